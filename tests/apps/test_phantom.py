# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import json
import runpy
import sys

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from scipy import ndimage

from monai_fewshot.apps.phantom import dataset, make_phantom_dataset, make_phantom_volume
from monai_fewshot.apps.phantom.anatomy import Tissue, make_patient, paint
from monai_fewshot.apps.phantom.appearance import LOOKS, render
from monai_fewshot.data.scans.folds import cross_validation_folds, load_folds
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = ORGANS = 1, 2, 3, 4
SMALL = (48, 48, 16)
PATIENTS = 6


@pytest.fixture(scope="module", params=["mr", "ct"])
def scans(request):
    return request.param, [make_phantom_volume(index, modality=request.param) for index in range(PATIENTS)]


@pytest.fixture(scope="module")
def labels():
    return [make_phantom_volume(index, seed=3, size=(64, 64, 32))[1:] for index in range(12)]


def centroid(mask, affine):
    return nib.affines.apply_affine(affine, np.argwhere(mask).mean(0))


def best_threshold_dice(image, organ):
    """Dice of the best of all intervals of intensity, in 256 steps between the 0.1 and the 99.9 percentile."""
    low, high = np.percentile(image, [0.1, 99.9])
    step = ((image.clip(low, high) - low) / (high - low) * 255).astype(int)
    below_all = np.concatenate([[0], np.cumsum(np.bincount(step.ravel(), minlength=256))])
    below_organ = np.concatenate([[0], np.cumsum(np.bincount(step[organ], minlength=256))])
    hits = below_organ - below_organ[:, None]
    marked = below_all - below_all[:, None]
    return np.triu(2 * hits / (marked.clip(0) + organ.sum()), 1).max()


def test_threshold_dice_finds_the_interval():
    image = np.array([0, 10, 10, 20, 30, 30, 40, 50])
    assert best_threshold_dice(image, np.isin(image, [20, 30])) == 1
    assert best_threshold_dice(image, image == image) == 1
    assert best_threshold_dice(image, np.arange(8) == 4) == pytest.approx(2 / 3)


def test_a_volume_is_a_function_of_seed_and_index():
    first, again = make_phantom_volume(1, 2, SMALL), make_phantom_volume(1, 2, SMALL)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    for other in (make_phantom_volume(2, 2, SMALL), make_phantom_volume(1, 3, SMALL)):
        assert (other[1] != first[1]).any()
        assert (other[2] != first[2]).any()


def test_modalities_share_the_anatomy():
    mr, ct = (make_phantom_volume(4, size=SMALL, modality=modality) for modality in ("mr", "ct"))
    np.testing.assert_array_equal(mr[1], ct[1])
    np.testing.assert_array_equal(mr[2], ct[2])


def test_sizes_share_the_anatomy():
    coarse, fine = (make_phantom_volume(0, size=size)[1] for size in ((42, 42, 32), (126, 126, 32)))
    for organ in ORGANS:
        a, b = coarse == organ, fine[1::3, 1::3] == organ
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.97


def test_types_and_spacing(scans):
    _, volumes = scans
    for image, label, affine in volumes:
        assert image.dtype == np.int16
        assert label.dtype == np.uint8
        assert image.shape == label.shape == (128, 128, 32)
        assert nib.aff2axcodes(affine) == ("R", "A", "S")
        spacing = nib.affines.voxel_sizes(affine)
        np.testing.assert_allclose(spacing, [2.5, 2.5, 6], rtol=0.031)
        middle = nib.affines.apply_affine(affine, (np.array(image.shape) - 1) / 2)
        assert np.abs(middle).max() <= 30.01
    assert len({tuple(np.diag(affine)) for _, _, affine in volumes}) == PATIENTS


def test_organs_have_plausible_volumes_and_are_whole(labels):
    bounds = {LIVER: (700, 1800), RIGHT_KIDNEY: (70, 300), LEFT_KIDNEY: (70, 300), SPLEEN: (60, 350)}
    for label, affine in labels:
        assert np.unique(label).tolist() == [0, *ORGANS]
        for organ, (least, most) in bounds.items():
            components, _ = ndimage.label(label == organ)
            sizes = np.bincount(components.ravel())[1:]
            assert least < sizes.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000 < most
            assert sizes.max() > 0.97 * sizes.sum()


def test_organs_are_on_their_sides(labels):
    for label, affine in labels:
        liver, right, left, spleen = (centroid(label == organ, affine) for organ in ORGANS)
        middle = (right + left) / 2
        assert liver[0] > middle[0] + 15
        assert spleen[0] < middle[0] - 40
        assert right[0] > left[0] + 80
        assert liver[1] > middle[1]
        assert min(liver[2], spleen[2]) > max(right[2], left[2])


def test_anatomy_varies_between_patients(labels):
    for organ in ORGANS:
        in_voxels = np.array([centroid(label == organ, np.diag([5, 5, 6, 1])) for label, _ in labels])
        assert (in_voxels.std(0) > 2).all()
        volumes = np.array([(label == organ).sum() for label, _ in labels])
        assert volumes.std() > 0.06 * volumes.mean()


def test_no_organ_reaches_the_first_or_last_slice(labels):
    for label, _ in labels:
        holding = np.flatnonzero(label.any((0, 1)))
        assert holding[0] >= 1
        assert holding[-1] <= 30
        for organ in ORGANS:
            z = np.flatnonzero((label == organ).any((0, 1)))
            assert 8 <= len(z) == z[-1] - z[0] + 1 <= 26


def test_slices_change_smoothly(labels):
    for label, _ in labels:
        liver = label == LIVER
        inner = np.flatnonzero(liver.any((0, 1)))[3:-3]
        for z in inner:
            here, above = liver[..., z], liver[..., z + 1]
            assert 2 * (here & above).sum() > 0.7 * (here.sum() + above.sum())


def test_thresholding_fails(scans):
    _, volumes = scans
    dice = np.array([[best_threshold_dice(image, label == o) for o in ORGANS] for image, label, _ in volumes])
    assert (dice.mean(0) < 0.6).all(), dice
    assert (dice < 0.8).all(), dice
    assert dice.mean() < 0.5, dice


def test_contrast_changes_between_patients(scans):
    _, volumes = scans
    for organ in ORGANS:
        medians = np.array([np.median(image[label == organ]) for image, label, _ in volumes])
        assert medians.std() > 0.05 * medians.mean()


def test_organ_borders_are_visible(scans):
    """What lies around an organ differs from it by more than the noise in most places."""
    modality, volumes = scans
    for image, label, _ in volumes:
        smooth = ndimage.gaussian_filter(image.astype(float), (1, 1, 0))
        edges = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)) / 8
        for organ in ORGANS:
            inside = label == organ
            border = inside & ~ndimage.binary_erosion(inside, np.ones((3, 3, 1)))
            interior = ndimage.binary_erosion(inside, np.ones((9, 9, 1)))
            assert np.median(edges[border]) > 2 * np.median(edges[interior]), (modality, organ)


def test_intensities_of_mr(scans):
    modality, volumes = scans
    if modality == "ct":
        return
    for image, _, _ in volumes:
        corners = image[:8, :8].astype(float)
        assert image.min() >= 0
        assert 800 < image.max() < 2500
        assert (corners < 50).mean() > 0.99
        np.testing.assert_allclose(corners.mean(), 14 * np.sqrt(np.pi / 2), rtol=0.03)


@pytest.mark.parametrize("kind", [k for k in Tissue if k != Tissue.LIVER_VESSEL])
def test_hounsfield_units(kind):
    bounds = {
        Tissue.AIR: (-1024, -990),
        Tissue.FAT: (-125, -75),
        Tissue.LUNG: (-900, -740),
        Tissue.GAS: (-1000, -800),
        Tissue.BONE: (300, 700),
        Tissue.MARROW: (90, 250),
    }
    rng = np.random.default_rng(5)
    tissue = np.full(SMALL, kind, np.uint8)
    image = render(rng, tissue, np.array([6.0, 6, 12]), "ct")
    least, most = bounds.get(kind, (0, 180))
    assert least < np.median(image) < most


def test_every_tissue_is_there_and_has_a_look():
    for looks in LOOKS.values():
        assert set(looks) == set(Tissue)
    tissue, _ = paint(make_patient(np.random.default_rng(0), (96, 96, 24), np.array([320.0, 320, 192])))
    assert set(np.unique(tissue)) == set(Tissue)
    assert (tissue == Tissue.AIR)[:, [0, -1]].all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_phantom_dataset(tmp_path_factory.mktemp("phantom") / "new", 4, SMALL, "ct", seed=6, num_folds=2)


def test_dataset_reads_as_a_decathlon(folder):
    entries = load_decathlon_datalist(str(folder / "dataset.json"), data_list_key="training")
    assert len(entries) == 4
    for index, entry in enumerate(entries):
        image, label, affine = make_phantom_volume(index, 6, SMALL, "ct")
        for key, array in {"image": image, "label": label}.items():
            stored = nib.load(entry[key])
            np.testing.assert_array_equal(np.asanyarray(stored.dataobj), array)
            assert stored.get_data_dtype() == array.dtype
            np.testing.assert_allclose(stored.affine, affine, rtol=1e-6)
            np.testing.assert_allclose(stored.get_qform(), affine, rtol=1e-5, atol=1e-4)
            np.testing.assert_allclose(stored.header.get_zooms(), np.diag(affine)[:3], rtol=1e-6)
            assert stored.header.get_xyzt_units()[0] == "mm"


def test_dataset_json(folder):
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"]["4"] == "spleen"
    assert content["modality"] == {"0": "CT"}
    assert content["licence"] == "Apache-2.0"
    assert content["tensorImageSize"] == "3D"
    assert (content["numTraining"], content["numTest"], content["test"]) == (4, 0, [])
    assert content["training"][0]["label"] == "./labelsTr/phantom_001.nii.gz"
    assert content["folds"][0] == {"query": ["phantom_001", "phantom_002"], "support": ["phantom_003"]}
    assert content["folds"][1] == {"query": ["phantom_003", "phantom_004"], "support": ["phantom_001"]}


def test_dataset_reads_as_ours(folder):
    names = [scan["name"] for scan in load_scans(folder, require_labels=True)]
    assert names == ["phantom_001", "phantom_002", "phantom_003", "phantom_004"]
    assert load_folds(folder) == cross_validation_folds(names, 2)
    assert load_class_names(folder) == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}


def test_more_volumes_keep_the_first_ones(folder, tmp_path):
    more = make_phantom_dataset(tmp_path, 5, SMALL, "ct", seed=6, num_folds=3)
    assert len(list(more.glob("imagesTr/*"))) == 5
    for file in folder.glob("*/*.nii.gz"):
        assert (more / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_command_line(tmp_path, monkeypatch, capsys):
    arguments = ["--num_volumes", "2", "--num_folds", "2", "--size", "32,32,8", "--output_dir", str(tmp_path / "a")]
    monkeypatch.setattr(sys, "argv", ["phantom", *arguments])
    runpy.run_module("monai_fewshot.apps.phantom", run_name="__main__")
    assert len(load_scans(tmp_path / "a")) == 2
    assert capsys.readouterr().out.strip() == str(tmp_path / "a")


def test_an_interrupted_run_leaves_no_description(tmp_path, monkeypatch):
    make_phantom_dataset(tmp_path, 2, (32, 32, 8), num_folds=2)
    complete = dataset.make_phantom_volume

    def killed(index, *arguments):
        if index == 1:
            raise KeyboardInterrupt
        return complete(index, *arguments)

    monkeypatch.setattr(dataset, "make_phantom_volume", killed)
    with pytest.raises(KeyboardInterrupt):
        make_phantom_dataset(tmp_path, 2, (32, 32, 8), num_folds=2, seed=1)
    assert not (tmp_path / "dataset.json").exists()
    assert not list(tmp_path.rglob(".*"))


def test_another_data_set_is_left_alone(tmp_path):
    (tmp_path / "dataset.json").write_text('{"name": "CHAOS"}')
    with pytest.raises(FileExistsError, match=r"dataset\.json describes another data set: name an empty or new folder"):
        make_phantom_dataset(tmp_path, 2, (32, 32, 8), num_folds=2)
    assert [file.name for file in tmp_path.iterdir()] == ["dataset.json"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write .*file.*phantom_001\.nii\.gz.*Name an output folder"):
        make_phantom_dataset(tmp_path / "file" / "phantom", 2, (32, 32, 8), num_folds=2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"modality": "pet"}, r"modality is 'pet'; choose 'mr' or 'ct'"),
        ({"seed": -1}, r"seed is -1; give 0 or a positive"),
        ({"size": (16, 64, 32)}, r"size is \(16, 64, 32\); give three whole numbers of voxels, at least \(32, 32, 8\)"),
        ({"size": (64, 64)}, r"size is \(64, 64\); give three"),
        ({"size": (64, 64, 8.5)}, r"size is \(64, 64, 8.5\); give three"),
        ({"num_volumes": 0}, r"num_volumes is 0; give 1 to 999"),
        ({"num_volumes": 1000}, r"num_volumes is 1000; give 1 to 999"),
        ({"num_volumes": 4}, r"num_folds is 5; 4 scans make at least 2 and at most 4"),
        ({"num_folds": 1}, r"num_folds is 1; 10 scans make at least 2"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, arguments, text):
    with pytest.raises(ValueError, match=text):
        make_phantom_dataset(tmp_path / "phantom", **arguments)
    assert not (tmp_path / "phantom").exists()


def test_negative_index():
    with pytest.raises(ValueError, match="index is -1; patients count from 0"):
        make_phantom_volume(-1)
