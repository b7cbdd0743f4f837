# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import monai_fewshot
from monai_fewshot.apps.annotation import RefinedFolder, refine, refining
from monai_fewshot.apps.annotation.changes import MaskChange
from monai_fewshot.apps.annotation.rounds import read_rounds
from monai_fewshot.apps.command import segment
from monai_fewshot.apps.command.cli import app
from monai_fewshot.apps.command.running import StepRunner
from monai_fewshot.metrics import QUALITY_TABLE
from tests.helpers.slicer_files import write_seg_nrrd_by_hand

pytestmark = pytest.mark.default_dtype
SETTINGS = {"minutes": 0.0001, "device": "cpu"}
FIRST, SECOND, THIRD = "phantom_001", "phantom_002", "phantom_003"


@pytest.fixture
def truth(phantom):
    """File of the true label of a scan."""
    return lambda name: phantom / "labelsTr" / f"{name}.nii.gz"


@pytest.fixture
def drawn(truth, tmp_path):
    """Masks as a person has corrected them: their file by name of the scan."""

    def draw(name):
        file = tmp_path / "drawn" / f"{name}_seg.nii.gz"
        file.parent.mkdir(exist_ok=True)
        return shutil.copyfile(truth(name), file)

    return draw


def voxels(file):
    return np.asarray(nibabel.load(file).dataobj).astype(int)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.glob("*_seg.nii.gz")}


def weights(file):
    return torch.load(file, weights_only=True)["model"]


def test_a_corrected_mask_stays_and_the_others_are_made_anew(masks, drawn, truth, steps):
    """Interrupted between training and the masks, the same call goes on; then no command changes the mask."""
    file, said = drawn(SECOND), []
    before, network, content = contents(masks), weights(masks / "model" / "model.pt"), file.read_bytes()

    def interrupted(runner, name, settings):
        if name == "inference":
            raise KeyboardInterrupt
        run(runner, name, settings)

    run = StepRunner.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepRunner, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            refine(masks, [file], **SETTINGS, say=said.append)
    assert steps == ["train"]
    del steps[:]
    done = refine(masks, [file], **SETTINGS, say=said.append)
    assert steps == ["inference"]
    assert "Going on with round 1." in said
    assert file.read_bytes() == content
    np.testing.assert_array_equal(voxels(masks / f"{SECOND}_seg.nii.gz"), voxels(truth(SECOND)))
    assert contents(masks / "rounds" / "1" / "before") == before
    assert (masks / "rounds" / "1" / "corrected" / f"{SECOND}.nii.gz").read_bytes() == content
    old = weights(masks / "rounds" / "1" / "before" / "model.pt")
    assert all(torch.equal(old[name], network[name]) for name in network)
    new = weights(masks / "model" / "model.pt")
    assert any(not torch.equal(new[name], network[name]) for name in network)
    assert done.corrected == (SECOND,)
    assert {row.scan for row in done.changes} == {FIRST, SECOND, THIRD}
    one, other = voxels(done.round / "before" / f"{THIRD}_seg.nii.gz"), voxels(masks / f"{THIRD}_seg.nii.gz")
    for row in done.changes:
        if row.scan == THIRD:
            both = (one == row.label).sum() + (other == row.label).sum()
            expected = 2 * ((one == row.label) & (other == row.label)).sum() / both if both else 1
            assert row.dice_between == pytest.approx(expected)
    predicted = {row.scan: row.predicted_dice for row in QUALITY_TABLE.read(masks / "quality.csv")}
    assert predicted[SECOND] == 1
    assert max(predicted[FIRST], predicted[THIRD]) < 1
    assert done.page.read_text().count("before and after") == 3

    del steps[:]
    again = refine(masks, [file], **SETTINGS, say=said.append)
    assert said[-1].startswith("All corrected masks are learned from already.")
    assert (steps, again.changes) == ([], done.changes)


def test_segmenting_again_leaves_corrected_masks_alone(
    masks, segmented, phantom, truth, drawn, quick_self_training, steps
):
    refine(masks, [drawn(SECOND)], **SETTINGS, say=lambda text: None)
    (masks / "previews" / f"{SECOND}.png").unlink()
    (masks / f"{THIRD}_seg.nii.gz").unlink()
    del steps[:]
    example = (segmented / "scans" / f"{FIRST}.nii.gz", truth(FIRST))
    segment(segmented / "scans", [example], masks, quick_self_training, device="cpu", say=lambda text: None)
    assert steps == ["inference"]
    listed = json.loads((masks / "model" / "scans" / "dataset.json").read_text())["training"]
    assert [scan["name"] for scan in listed] == [THIRD]
    np.testing.assert_array_equal(voxels(masks / f"{SECOND}_seg.nii.gz"), voxels(truth(SECOND)))


def test_masks_changed_in_their_place_count_and_a_second_round_learns_from_both(masks, truth, drawn, steps):
    said = []
    shutil.copyfile(truth(THIRD), masks / f"{THIRD}_seg.nii.gz")
    first = refine(masks, **SETTINGS, say=said.append)
    assert first.corrected == (THIRD,)
    assert any("was changed since it was written, and counts as corrected" in text for text in said)
    np.testing.assert_array_equal(voxels(masks / f"{THIRD}_seg.nii.gz"), voxels(truth(THIRD)))
    second = refine(masks, [drawn(SECOND)], **SETTINGS, say=said.append)
    assert second.corrected == (SECOND, THIRD)
    assert any(text.startswith("Learning from 3 examples for 0.0001 minutes.") for text in said)
    assert [each.number for each in read_rounds(masks)] == [1, 2]
    np.testing.assert_array_equal(voxels(masks / f"{THIRD}_seg.nii.gz"), voxels(truth(THIRD)))


def test_a_run_that_is_killed_while_it_writes_masks_leaves_none_that_counts_as_corrected(masks, drawn, steps):
    """Nothing is noted any more then, as after a loss of power."""

    def killed(*arguments):
        raise SystemExit("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monai_fewshot.apps.command.segment_steps.note_masks", killed)
        patch.setattr(refining, "note_masks", lambda *arguments: None)
        with pytest.raises(SystemExit):
            refine(masks, [drawn(SECOND)], **SETTINGS, say=lambda text: None)
    del steps[:]
    done = refine(masks, [drawn(SECOND)], **SETTINGS, say=lambda text: None)
    assert (done.corrected, done.round.name, steps) == ((SECOND,), "1", ["inference"])


def told(patch):
    """Settings of the steps that are run; the first one is an interruption."""
    settings = []

    def stop(runner, name, given):
        settings.append(given)
        raise KeyboardInterrupt

    patch.setattr(StepRunner, "run", stop)
    return settings


def test_only_touched_slices_count_as_annotated(masks, monkeypatch, segmented, tmp_path):
    made = nibabel.load(masks / f"{SECOND}_seg.nii.gz")
    changed = voxels(masks / f"{SECOND}_seg.nii.gz").astype(np.uint8)
    for place in (2, 5):
        changed[4:9, 4:9, place] = 1
        changed[12:16, 12:16, place] = 0
    file = tmp_path / f"{SECOND}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(changed, made.affine), file)
    settings = told(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        refine(masks, [file], touched_only=True, **SETTINGS, say=lambda text: None)
    assert settings[0]["annotated_slices"] == [None, [2, 5]]
    assert settings[0]["support_image"] == [
        settings[0]["support_image"][0],
        str(segmented / "scans" / f"{SECOND}.nii.gz"),
    ]
    assert settings[0]["start_from"] == masks / "rounds" / "1" / "before" / "model.pt"


def test_slices_touched_in_their_place_are_found_by_predicting_anew(masks, steps, monkeypatch):
    """The network's own mask is not there any more; it was made in float32."""
    monkeypatch.setenv("MONAI_FEWSHOT_DTYPE", "float32")
    file = masks / f"{SECOND}_seg.nii.gz"
    made, numbers = nibabel.load(file), voxels(file)
    changed = numbers.copy()
    changed[4:9, 4:9, 3] = 1 + (numbers[4:9, 4:9, 3] == 1)
    nibabel.save(nibabel.Nifti1Image(changed.astype(np.uint8), made.affine), file)
    done = refine(masks, touched_only=True, **SETTINGS, say=lambda text: None)
    assert steps == ["inference", "train", "inference"]
    (correction,) = read_rounds(masks)[0].corrections
    assert correction.slices == (3,)
    np.testing.assert_array_equal(voxels(done.round / "predicted" / file.name), numbers)
    assert min(row.dice_between for row in done.changes if row.scan == SECOND) < 1
    np.testing.assert_array_equal(voxels(file), changed)


def test_a_new_class_is_added_and_it_is_told_what_that_means(masks, drawn, truth, steps, tmp_path, phantom):
    label = nibabel.load(truth(SECOND))
    numbers = voxels(truth(SECOND)).astype(np.uint8)
    numbers[:6, :6, 2:6] = 5
    segments = [("Spleen", 0, 4), ("liver", 0, 1), ("right kidney", 0, 2), ("left kidney", 0, 3), ("cyst", 0, 5)]
    file = write_seg_nrrd_by_hand(tmp_path / f"{SECOND}_seg.seg.nrrd", numbers, segments, label.affine)
    said = []
    done = refine(masks, [file], **SETTINGS, say=said.append)
    assert any(
        "shows a new class, 5 (cyst): the network learns it from the masks that show it alone" in s for s in said
    )
    content = torch.load(masks / "model" / "model.pt", weights_only=True)
    assert content["settings"]["preparation"]["classes"][5] == "cyst"
    assert {row.name for row in done.changes} == {"liver", "right kidney", "left kidney", "spleen", "cyst"}
    np.testing.assert_array_equal(voxels(masks / f"{SECOND}_seg.nii.gz"), numbers)


def other_grid(path, label):
    nibabel.save(nibabel.Nifti1Image(voxels(label)[..., :6].astype(np.uint8), nibabel.load(label).affine), path)


def empty(path, label):
    nibabel.save(nibabel.Nifti1Image(0 * voxels(label).astype(np.uint8), nibabel.load(label).affine), path)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (SECOND, other_grid, r"cannot be used as the corrected mask of the scan phantom_002:\n.*32, 32, 6"),
        (SECOND, empty, r"cannot be used as the corrected mask of the scan phantom_002:\n.*is empty"),
        ("patient_7", other_grid, r"patient_7_seg.nii.gz is called after none of the 3 scans that have a mask"),
    ],
)
def test_bad_masks_are_refused_before_anything_is_written(name, make, message, masks, truth, tmp_path):
    file = tmp_path / f"{name}_seg.nii.gz"
    make(file, truth(SECOND))
    with pytest.raises(ValueError, match=message):
        refine(masks, [file], **SETTINGS, say=lambda text: None)
    assert read_rounds(masks) == []


def test_folders_that_cannot_be_refined(masks, tmp_path, drawn):
    with pytest.raises(FileNotFoundError, match="is no folder: name the folder of masks"):
        refine(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no model \(model/segment.json\)"):
        refine(tmp_path / "empty")
    with pytest.raises(ValueError, match="No mask is corrected: give --corrected FILE"):
        refine(masks)
    with pytest.raises(FileNotFoundError, match=r"The corrected mask .*absent\.nii\.gz does not exist"):
        refine(masks, [tmp_path / "absent.nii.gz"])
    with pytest.raises(ValueError, match="--minutes is 0: give more than 0"):
        refine(masks, [drawn(SECOND)], minutes=0)
    request = masks / "model" / "request.json"
    noted = json.loads(request.read_text())
    request.write_text(json.dumps(noted | {"method": "supervised"}))
    with pytest.raises(ValueError, match="masks of the method supervised, whose network cannot go on from corrected"):
        refine(masks, [drawn(SECOND)])
    request.write_text(json.dumps(noted | {"scans": str(tmp_path / "moved")}))
    with pytest.raises(FileNotFoundError, match=r"The scans of these masks are not in .*moved any more: put them back"):
        refine(masks, [drawn(SECOND)])
    request.write_text(json.dumps(noted | {"examples": [[str(tmp_path / "gone.nii.gz"), noted["examples"][0][1]]]}))
    with pytest.raises(FileNotFoundError, match=r"gone\.nii\.gz, from which the network has learned, is gone: put it"):
        refine(masks, [drawn(SECOND)])
    origin = masks / "model" / "segment.json"
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"trained": False}))
    with pytest.raises(ValueError, match="was interrupted: let monai-fewshot segment come to its end first"):
        refine(masks, [drawn(SECOND)])
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {"trained": True}))
    request.unlink()
    with pytest.raises(FileNotFoundError, match="run the monai-fewshot segment of these masks once more"):
        refine(masks, [drawn(SECOND)])


def test_the_command_tells_what_has_changed(masks, monkeypatch):
    def pretend(folder, corrected, **options):
        calls.append((folder, corrected, options["touched_only"], options["minutes"]))
        changes = (MaskChange("a", 1, "liver", 0.5), MaskChange("b", 1, "liver", 0.25))
        return RefinedFolder({}, ("a",), changes, (), Path("changes.html"), Path("changes.csv"), Path("rounds/1"))

    calls: list = []
    monkeypatch.setattr(refining, "refine", pretend)
    words = ["refine", str(masks), "--corrected", "a.nii.gz", "--corrected", "b", "--touched-only", "--minutes", "3"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, calls) == (0, [(masks, [Path("a.nii.gz"), Path("b")], True, 3.0)])
    assert "Changed most: b, liver: Dice 0.25 between before and after" in result.output
    assert "Changed most: a" not in result.output


def test_bad_input_ends_the_command_with_its_code(tmp_path):
    result = CliRunner().invoke(app, ["refine", str(tmp_path / "absent")])
    assert (result.exit_code, "is no folder: name the folder of masks" in result.output) == (2, True)


def test_refining_is_called_from_the_package():
    assert monai_fewshot.refine is refine
