# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import shutil
from functools import partial

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import VolumePreparation
from monai_fewshot.inferers import ClassVolumeInferer, FewShotVolumeInferer, reverse_dice
from monai_fewshot.metrics import CONFIDENCE_LINE, MEASUREMENT_TABLE, QUALITY_TABLE, REVERSE_LINE, PredictedQuality
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.transforms import ClassParts
from monai_fewshot.workflows import FolderSegmentation, GivenModel, class_parts


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom_dataset(tmp_path_factory.mktemp("phantom") / "data", 2, (32, 32, 8), num_folds=2)


def _run(segmentation):
    """Segment, and return the outputs of the evaluator, one a scan."""
    outputs = []
    segmentation.evaluator.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.extend(engine.state.output)
    )
    segmentation.run()
    return outputs


def test_log_odds_leave_their_spread_beside_the_mask(phantom, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    preparation = VolumePreparation(clip_percentiles=(0, 99.5), classes={2: "spleen", 5: "liver"})
    outputs = _run(
        FolderSegmentation(
            phantom,
            GivenModel(network, preparation, "cpu"),
            partial(ClassVolumeInferer, "whole_volume"),
            tmp_path,
            "conv",
            measurements=True,
            previews=True,
            keep_largest=False,
        )
    )
    assert len(outputs) == 2
    for number, output in enumerate(outputs, 1):
        probabilities = network(output["image"].as_tensor().movedim(3, 0)).softmax(1).detach().movedim(0, 3)
        *_, second, first = probabilities.sort(0).values
        assert output["spread"].shape == (1, 32, 32, 8)
        torch.testing.assert_close(output["spread"].as_tensor()[0], second / (first + second))
        winner = np.array([0, 2, 5])[probabilities.argmax(0)]
        mask = nibabel.load(tmp_path / f"phantom_{number:03d}_seg.nii.gz")
        assert np.array_equal(mask.get_fdata(), winner)
        assert len(np.unique(winner)) == 3


def test_scores_have_no_spread(phantom, tmp_path):
    torch.manual_seed(0)
    network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
    first = "phantom_001.nii.gz"
    outputs = _run(
        FolderSegmentation(
            phantom,
            GivenModel(network, VolumePreparation(), "cpu"),
            partial(FewShotVolumeInferer, "whole_volume"),
            tmp_path,
            "alpnet",
            phantom / "imagesTr" / first,
            phantom / "labelsTr" / first,
        )
    )
    assert len(outputs) == 2
    assert all("pred" in output and "spread" not in output for output in outputs)


def test_quality_follows_the_confidence_of_a_network_that_knows_its_classes(phantom, tmp_path):
    torch.manual_seed(0)
    preparation = VolumePreparation(clip_percentiles=(0, 99.5), classes={2: "spleen", 5: "liver", 6: "colon"})
    network = torch.nn.Conv2d(1, 4, 3, padding=1)
    network.bias.data[3] = -9
    outputs = _run(
        FolderSegmentation(
            phantom,
            GivenModel(network, preparation, "cpu"),
            partial(ClassVolumeInferer, "whole_volume"),
            tmp_path,
            "conv",
            flag_below=0.7,
        )
    )
    rows = {(row.scan, row.label): row for row in QUALITY_TABLE.read(tmp_path / "quality.csv")}
    assert len(rows) == 6
    for number, output in enumerate(outputs, 1):
        name = f"phantom_{number:03d}"
        mask = nibabel.load(tmp_path / f"{name}_seg.nii.gz").get_fdata()
        for label, organ in ((2, "spleen"), (5, "liver")):
            confidence = 1 - output["spread"][0].numpy()[mask == label].mean()
            row = rows[name, label]
            assert row.name == organ
            assert (row.predicted_dice, row.low, row.high) == pytest.approx(CONFIDENCE_LINE(confidence), rel=1e-4)
        assert str(rows[name, 6]) == str(PredictedQuality(name, 6, "colon", 0.0, 0.0, 0.0, math.nan))
    assert "Which masks to look at" in (tmp_path / "index.html").read_text()


def test_quality_follows_the_reverse_of_a_network_that_is_shown_its_classes(phantom, tmp_path, caplog):
    torch.manual_seed(0)
    network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
    make, first = partial(FewShotVolumeInferer, "whole_volume"), "phantom_001.nii.gz"
    support = (phantom / "imagesTr" / first, phantom / "labelsTr" / first)
    segmentation = FolderSegmentation(
        phantom, GivenModel(network, VolumePreparation(), "cpu"), make, tmp_path, "alpnet", *support, flag_below=0.7
    )
    _run(segmentation)
    episode = segmentation.dataset[1]
    mask = nibabel.load(tmp_path / "phantom_002_seg.nii.gz").get_fdata()
    numbers = torch.from_numpy(np.searchsorted([0, *segmentation.classes], mask))[None]
    shown = (episode["support_image"], episode["support_label"], episode["support_affine"])
    dice = reverse_dice(lambda number: make(num_classes=number), network, episode["image"], numbers, *shown)
    rows = [row for row in QUALITY_TABLE.read(tmp_path / "quality.csv") if row.scan == "phantom_002"]
    found = [row.predicted_dice for row in rows]
    assert found == pytest.approx([REVERSE_LINE(value)[0] for value in dice.tolist()], rel=1e-4)
    assert len(set(found)) > 1
    assert "cannot be judged" not in caplog.text


def test_a_mask_that_cannot_be_judged_is_flagged(phantom, tmp_path, caplog):
    """The example cannot be segmented after the mask, which stays all the same."""

    class OneWay(FewShotVolumeInferer):
        def segment(self, query, network, scans):
            if torch.equal(query.image, example):
                raise ValueError("the scans do not overlap")
            return super().segment(query, network, scans)

    torch.manual_seed(0)
    network = ALPNet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
    first, make = "phantom_001.nii.gz", partial(OneWay, "whole_volume")
    support = (phantom / "imagesTr" / first, phantom / "labelsTr" / first)
    (tmp_path / "scans").mkdir()
    shutil.copy(phantom / "imagesTr" / "phantom_002.nii.gz", tmp_path / "scans")
    model, out = GivenModel(network, VolumePreparation(), "cpu"), tmp_path / "out"
    segmentation = FolderSegmentation(tmp_path / "scans", model, make, out, "alpnet", *support, flag_below=0.7)
    example = segmentation.dataset[0]["support_image"][0]
    _run(segmentation)
    assert (out / "phantom_002_seg.nii.gz").is_file()
    assert {row.predicted_dice for row in QUALITY_TABLE.read(out / "quality.csv")} == {REVERSE_LINE(0)[0]}
    assert "phantom_002: its mask cannot be judged, look at it: the scans do not overlap" in caplog.text


def test_what_a_run_writes_and_learns_from_is_no_scan(phantom, tmp_path):
    """The output folder and the support's label lie in the folder of the scans, which must not be the output folder."""
    for name in ("a", "b", "organ", "results/old"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(phantom / "imagesTr" / "phantom_001.nii.gz", tmp_path / f"{name}.nii.gz")
    (tmp_path / "link").symlink_to(tmp_path)

    def segmentation(output_dir):
        model = GivenModel(torch.nn.Identity(), VolumePreparation(), "cpu")
        support = (tmp_path / "a.nii.gz", tmp_path / "organ.nii.gz")
        return FolderSegmentation(tmp_path, model, ClassVolumeInferer, output_dir, "none", *support)

    assert [scan["name"] for scan in segmentation(tmp_path / "results").pending] == ["a", "b"]
    for output_dir in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match="holds the scans: name another output folder"):
            segmentation(output_dir).check()


def test_probabilities_are_written_on_the_grid_of_the_scan(phantom, tmp_path):
    """Maps, and the volumes between which a class lies, of scans that lie otherwise than the model's."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    preparation = VolumePreparation(
        clip_percentiles=(0, 99.5), classes={2: "spleen", 5: "liver"}, axes=((-1, 0, 0), (0, 1, 0), (0, 0, 1))
    )
    settings = {"measurements": True, "previews": True, "probabilities": True}
    model, make = GivenModel(network, preparation, "cpu"), partial(ClassVolumeInferer, "whole_volume")
    segmentation = FolderSegmentation(phantom, model, make, tmp_path, "conv", **settings)
    outputs = _run(segmentation)
    for number, output in enumerate(outputs, 1):
        name = f"phantom_{number:03d}"
        scan = nibabel.load(phantom / "imagesTr" / f"{name}.nii.gz")
        probabilities = network(output["image"].as_tensor().movedim(3, 0)).softmax(1).detach().movedim(0, 3)
        rows = {row.label: row for row in MEASUREMENT_TABLE.read(tmp_path / "measurements.csv") if row.scan == name}
        voxel = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
        for channel, label in ((1, 2), (2, 5)):
            own = probabilities[channel]
            rival = probabilities[[c for c in range(3) if c != channel]].amax(0)
            expected = (own / (own + rival)).numpy()
            file = nibabel.load(tmp_path / "probabilities" / f"{name}_{label}.nii.gz")
            np.testing.assert_allclose(file.affine, scan.affine, atol=1e-4)
            assert file.header.get_data_dtype() == np.int16
            moved = nibabel.orientations.apply_orientation(file.get_fdata(), _turn(scan.affine, output["image"].affine))
            np.testing.assert_allclose(moved, expected, atol=2e-3)
            found = (rows[label].volume_low_ml, rows[label].volume_high_ml)
            assert found == pytest.approx(((expected > 0.9).sum() * voxel, (expected > 0.1).sum() * voxel), rel=1e-4)
            assert found[0] <= rows[label].volume_ml <= found[1]
    assert FolderSegmentation(phantom, model, make, tmp_path, "conv", **settings).pending == []
    (tmp_path / "probabilities" / "phantom_001_2.nii.gz").unlink()
    (tmp_path / "probabilities" / "phantom_001_5.nii.gz").unlink()
    again = FolderSegmentation(phantom, model, make, tmp_path, "conv", **settings)
    assert [scan["name"] for scan in again.pending] == ["phantom_001"]


def _turn(own, other):
    """How an array with one affine becomes one with another."""
    orientations = nibabel.orientations
    return orientations.ornt_transform(orientations.io_orientation(own), orientations.io_orientation(np.array(other)))


def test_scores_are_no_probabilities(phantom, tmp_path):
    model = GivenModel(torch.nn.Identity(), VolumePreparation(), "cpu")
    support = (phantom / "imagesTr" / "phantom_001.nii.gz", phantom / "labelsTr" / "phantom_001.nii.gz")
    make = partial(FewShotVolumeInferer, "whole_volume")
    segmentation = FolderSegmentation(phantom, model, make, tmp_path, "alpnet", *support, probabilities=True)
    with pytest.raises(ValueError, match="alpnet gives scores and no probabilities: leave probabilities out"):
        segmentation.check()


class OfLevels(torch.nn.Module):
    """Tells classes 1, 2, ... by the rank of a gray value among those of the slices."""

    def forward(self, image):
        ranks = torch.unique(image, return_inverse=True)[1][:, 0]
        return 9.0 * torch.nn.functional.one_hot(ranks, 3).movedim(3, 1)


def test_the_part_that_lies_as_in_training_is_kept(tmp_path):
    """A look-alike of class 5 is larger than the organ; the model knows where the organ lies to that of class 2."""
    image = np.zeros((24, 24, 12), np.float32)
    image[4:10, 4:10, 4:8] = 1
    image[14:18, 5:9, 4:8] = 2
    image[2:10, 14:22, 3:9] = 2
    (tmp_path / "scans").mkdir()
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "scans" / "a.nii.gz")
    make, masks = partial(ClassVolumeInferer, "whole_volume"), []
    for parts in (None, ClassParts({1: 1, 2: 1}, {1: [-9.0, 0.0, 0.0], 2: [9.0, 0.0, 0.0]})):
        model = GivenModel(OfLevels(), VolumePreparation(classes={2: "spleen", 5: "liver"}), "cpu")
        model.parts = parts
        FolderSegmentation(tmp_path / "scans", model, make, tmp_path / str(len(masks)), "levels").run()
        masks.append(nibabel.load(tmp_path / str(len(masks)) / "a_seg.nii.gz").get_fdata() == 5)
    assert np.argwhere(masks[0]).min(0).tolist() == [2, 14, 3]
    assert np.argwhere(masks[1]).min(0).tolist() == [14, 5, 4]
    assert masks[1].sum() == 4 * 4 * 4


def test_parts_of_annotated_scans_are_found_as_the_network_sees_them(phantom):
    preparation = VolumePreparation(classes={3: "a", 1: "b"})
    transform = preparation.transform(class_numbers=[3, 1])
    label = phantom / "labelsTr" / "phantom_001.nii.gz"
    scan = {"name": "a", "image": str(phantom / "imagesTr" / "phantom_001.nii.gz"), "label": str(label)}
    parts = class_parts([scan], transform)
    file = nibabel.load(label)
    places = [np.argwhere(np.asarray(file.dataobj) == number).mean(0) for number in (3, 1)]
    one, other = (file.affine[:3, :3] @ place for place in places)
    np.testing.assert_allclose(np.subtract(parts.centers[1], parts.centers[2]), one - other, atol=1e-3)
    assert parts.counts == {1: 1, 2: 1}
