# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import json
import os
import re

import nibabel
import numpy as np
import pytest
from matplotlib.figure import Figure

from monai_fewshot.apps.command import segment
from monai_fewshot.data import annotated_classes
from monai_fewshot.handlers import OutputFiles, ScanResults
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, PredictedQuality, measure
from monai_fewshot.utils import write_atomically
from monai_fewshot.visualize import figure_to_png
from tests.helpers.slicer_files import write_seg_nrrd_by_hand

SETTINGS = {"formats": "nifti", "device": "cpu", "say": lambda text: None}


def _rows(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.default_dtype
def test_from_an_example_to_masks_and_with_the_model_to_masks_of_new_scans(
    scans, example, quick_bundle, steps, monkeypatch, tmp_path
):
    """One scan is damaged, one fails while its results are written, one comes later."""
    write = ScanResults.write

    def write_some(results, name, *further):
        if name == "phantom_001":
            raise RuntimeError("no memory")
        write(results, name, *further)

    broken = scans / "broken.nii.gz"
    broken.write_bytes(example[0].read_bytes()[:2000])
    new = scans / "study1" / "phantom_002.nii.gz"
    os.rename(new, tmp_path / "new.nii.gz")
    said = []
    request = (scans, [example], tmp_path / "masks", str(quick_bundle))
    with monkeypatch.context() as patch:
        patch.setattr(ScanResults, "write", write_some)
        done = segment(*request, **{**SETTINGS, "say": said.append})
    assert steps == ["train", "inference"]
    assert sorted(done.masks) == ["phantom_003"]
    assert [problem.scan for problem in done.problems] == ["broken", "phantom_001"]
    row, failed = _rows(tmp_path / "masks" / "problems.csv")
    assert failed["what is wrong"] == "cannot be segmented (RuntimeError: no memory)"
    assert row["file"] == str(broken)
    assert "is truncated or damaged" in row["what is wrong"]
    assert row["what to do"] == "Copy or download the file again."
    assert any(line.startswith(f"LEFT OUT: {broken}: is truncated") for line in said)
    mask, image = nibabel.load(done.masks["phantom_003"]), nibabel.load(scans / "study0" / "phantom_003.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
    assert "phantom_003" in done.index.read_text()
    assert {row["scan"] for row in _rows(done.quality)} == set(done.masks)
    assert {row["name"] for row in _rows(done.measurements)} == {"liver", "right kidney", "left kidney", "spleen"}
    origin = json.loads((tmp_path / "masks" / "model" / "segment.json").read_text())
    assert (origin["method"], origin["trained"]) == ("quick", True)
    assert origin["classes"] == {"1": "liver", "2": "right kidney", "3": "left kidney", "4": "spleen"}

    first = done.masks["phantom_003"].stat().st_mtime_ns
    os.rename(tmp_path / "new.nii.gz", new)
    broken.unlink()
    del steps[:]
    again = segment(*request, **SETTINGS)
    assert steps == ["inference"]
    assert sorted(again.masks) == ["phantom_001", "phantom_002", "phantom_003"]
    assert again.problems == ()
    assert _rows(again.problem_table) == []
    assert again.masks["phantom_003"].stat().st_mtime_ns == first
    assert again.model.is_file()

    del steps[:]
    assert segment(*request, **SETTINGS).masks == again.masks
    assert steps == []


def test_settings_of_training_are_those_that_are_asked_for(scans, example, pretended_steps, tmp_path):
    segment(scans, [example], tmp_path / "masks", "supervised", **{**SETTINGS, "seed": 3})
    (name, settings), (last, inference) = pretended_steps
    assert (name, last) == ("train", "inference")
    assert settings["support_image"] == str(example[0])
    assert settings["support_label"] == str(example[1])
    assert (settings["seed"], settings["resume"], settings["device"]) == (3, True, "cpu")
    assert settings["ckpt_dir"] == tmp_path / "masks" / "model"
    assert inference["checkpoint"] == tmp_path / "masks" / "model" / "model.pt"
    listed = json.loads((settings["dataset_dir"] / "dataset.json").read_text())
    assert [scan["name"] for scan in listed["training"]] == ["phantom_001", "phantom_002", "phantom_003"]
    assert listed["labels"]["2"] == "right kidney"


def test_regions_that_are_chosen_are_learned_by_the_numbers_of_the_label(scans, example, pretended_steps, tmp_path):
    """Training reads the label by its own numbers: spleen is 4 in it, whatever is asked for first."""
    image, label = nibabel.load(example[0]), nibabel.load(example[1])
    segments = [("liver", 0, 1), ("right kidney", 0, 2), ("left kidney", 0, 3), ("spleen", 0, 4)]
    file = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", label.get_fdata().astype(np.uint8), segments, image.affine)
    segment(scans, [(example[0], file)], tmp_path / "masks", minutes=1, class_names=["spleen"], **SETTINGS)
    settings = pretended_steps[0][1]
    learned = [{"name": "a", "image": str(example[0]), "label": str(file)}]
    assert annotated_classes(learned, settings["dataset_dir"], settings.get("classes")) == {4: "spleen"}


def test_slices_that_are_not_annotated_are_told_and_make_another_model(scans, example, pretended_steps, tmp_path):
    request = (scans, [example], tmp_path / "masks", "self_training")
    segment(*request, minutes=1, annotated_slices=[2, 5], **SETTINGS)
    assert pretended_steps[0][1]["annotated_slices"] == [2, 5]
    segment(*request, annotated_slices=(2, 5), **SETTINGS)
    with pytest.raises(ValueError, match=r"annotated slices: the model has \[2, 5\], now it is all"):
        segment(*request, **SETTINGS)


def test_masks_to_begin_with_are_told_and_make_another_model(scans, example, pretended_steps, tmp_path):
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    request = (scans, [example], tmp_path / "masks", "self_training")
    with pytest.raises(ValueError, match="is called after one of the scans, such as phantom_001_seg"):
        segment(*request, minutes=1, seed_labels=seeds, **SETTINGS)
    assert pretended_steps == []
    (seeds / "phantom_002_seg.nii.gz").write_bytes(example[1].read_bytes())
    segment(*request, minutes=1, seed_labels=seeds, **SETTINGS)
    assert pretended_steps[0][1]["seed_labels"] == str(seeds)
    with pytest.raises(ValueError, match=f"seed labels: the model has {seeds}, now it is none"):
        segment(*request, **SETTINGS)


def test_scans_that_fail_are_problems(scans, example, pretended_steps, tmp_path):
    done = segment(scans, [example], tmp_path / "masks", "registration", **SETTINGS)
    assert [name for name, _ in pretended_steps] == ["inference"]
    assert done.model is None
    assert [problem.problem for problem in done.problems] == ["cannot be segmented (no)"] * 3
    assert len(_rows(done.problem_table)) == 3


def _pretend_results(folder, names):
    """Masks, pictures and tables, as a segmentation that was interrupted before its page leaves them."""
    files, label = OutputFiles(folder, measurements=True, previews=True), np.ones((4, 4, 2), np.uint8)
    for name in names:
        nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), files.mask(name, "nifti"))
        write_atomically(files.preview(name), figure_to_png(Figure()))
    rows = [row for name in names for row in measure(name, label.astype(float), label, {1: "liver"}, np.eye(4))]
    MEASUREMENT_TABLE.write(files.table, rows)
    dice = {"phantom_001": 0.69, "phantom_002": 0.71, "phantom_003": 0.2}
    QUALITY_TABLE.write(
        files.quality_table, [PredictedQuality(name, 1, "liver", dice[name], 0.1, 0.9) for name in names]
    )
    return files


def test_a_page_that_an_interruption_has_left_out_is_written(scans, example, pretended_steps, tmp_path):
    request = (scans, [example], tmp_path / "masks", "registration")
    segment(*request, **SETTINGS)
    _pretend_results(tmp_path / "masks", ["phantom_001", "phantom_002", "phantom_003"])
    del pretended_steps[:]
    done = segment(*request, **SETTINGS)
    assert pretended_steps == []
    page = done.index.read_text()
    assert page.index("phantom_003") < page.index("phantom_001") < page.index("phantom_002")
    assert done.flagged == ("phantom_003", "phantom_001")
    assert "2 of 3 scans have a class below" in page
    again = segment(*request, **{**SETTINGS, "flag_below": 0.01})
    assert again.flagged == ()
    assert "0 of 3 scans have a class below 1.0 %" in again.index.read_text()


def test_the_mask_of_another_scan_of_the_same_name_is_not_taken_for_that_of_a_scan(
    scans, example, pretended_steps, tmp_path
):
    """Such as of another folder, or of a scan that was exported again."""
    segment(scans, [example], tmp_path / "masks", "registration", **SETTINGS)
    _pretend_results(tmp_path / "masks", ["phantom_001", "phantom_002", "phantom_003"])
    other = scans / "study1" / "phantom_002.nii.gz"
    other.unlink()
    other.write_bytes((scans / "study0" / "phantom_003.nii.gz").read_bytes())
    done = segment(scans, [example], tmp_path / "masks", "registration", **SETTINGS)
    assert sorted(done.masks) == ["phantom_001", "phantom_003"]
    (problem,) = done.problems
    assert (problem.scan, problem.file) == ("phantom_002", str(other))
    assert "its mask is of another scan of the same name" in problem.problem
    assert problem.remedy.startswith("Name another --output, or remove ")
    assert "phantom_002_seg.nii.gz" in problem.remedy


@pytest.mark.parametrize("change", ["method", "example", "classes", "seed"])
def test_a_model_that_does_not_fit_is_refused(change, scans, example, phantom, pretended_steps, tmp_path):
    masks = tmp_path / "masks"
    segment(scans, [example], masks, "supervised", **SETTINGS)
    request = {"method": "supervised", "examples": [example], **SETTINGS}
    expected = {"method": "method: the model has supervised, now it is registration"}
    if change == "method":
        request["method"] = "registration"
    elif change == "example":
        request["examples"] = [tuple(path.with_name("phantom_002.nii.gz") for path in example)]
        expected["example"] = r"example: the model has phantom_001 \(\w{8}\), now it is phantom_002 \(\w{8}\)"
    elif change == "classes":
        request["class_names"] = ["liver", "a", "b", "c"]
        expected["classes"] = "classes: the model has 1 liver, 2 right kidney.*now it is 1 liver, 2 a, 3 b, 4 c"
    else:
        request["seed"] = 7
        expected["seed"] = "seed: the model has 0, now it is 7"
    examples = request.pop("examples")
    with pytest.raises(ValueError, match=expected[change]) as raised:
        segment(scans, examples, masks, **request)
    assert "Name another --output" in str(raised.value)


def test_the_example_is_known_by_its_content(scans, example, pretended_steps, tmp_path):
    segment(scans, [example], tmp_path / "masks", "supervised", **SETTINGS)
    copies = []
    for kind, file in zip(("image", "label"), example, strict=True):
        copies.append(tmp_path / f"{kind}.nii.gz")
        copies[-1].write_bytes(file.read_bytes())
    (tmp_path / "dataset.json").write_text((example[0].parents[1] / "dataset.json").read_text())
    segment(scans, [tuple(copies)], tmp_path / "masks", "supervised", **SETTINGS)
    assert [name for name, _ in pretended_steps] == ["train", "inference", "inference"]


def test_an_interruption_before_anything_is_learned_settles_nothing(
    scans, example, pretended_steps, monkeypatch, tmp_path
):
    request = (scans, [example], tmp_path / "masks", "supervised")
    with monkeypatch.context() as patch:
        patch.setattr("monai_fewshot.apps.command.running.StepRunner.run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            segment(*request, **SETTINGS)
    segment(*request, **{**SETTINGS, "seed": 7})
    assert pretended_steps[0][1]["seed"] == 7


def test_what_training_warned_of_is_said_once(scans, example, pretended_steps, tmp_path):
    said = []
    segment(scans, [example], tmp_path / "masks", "supervised", **{**SETTINGS, "say": said.append})
    warnings = [text for text in said if "Hardly" in text or "not ours" in text]
    assert warnings == ["WARNING: Hardly found: liver (Dice 0.40)."]


def test_an_interrupted_training_goes_on_with_the_scans_that_it_began_with(
    scans, example, pretended_steps, monkeypatch, tmp_path
):
    request = (scans, [example], tmp_path / "masks", "supervised")
    later = scans / "study1" / "phantom_002.nii.gz"
    os.rename(later, tmp_path / "later.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr("monai_fewshot.apps.command.running.StepRunner.run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            segment(*request, **SETTINGS)
    (tmp_path / "masks" / "model" / "checkpoint_epoch=1.pt").touch()
    os.rename(tmp_path / "later.nii.gz", later)
    said = []
    segment(*request, **{**SETTINGS, "say": said.append})
    (_, training), (_, inference) = pretended_steps
    learned, segmented = (
        [scan["name"] for scan in json.loads((step["dataset_dir"] / "dataset.json").read_text())["training"]]
        for step in (training, inference)
    )
    assert learned == ["phantom_001", "phantom_003"]
    assert segmented == ["phantom_001", "phantom_002", "phantom_003"]
    assert any("1 scan(s) are new and will be segmented, but not learned from." in line for line in said)


def test_an_interrupted_training_does_not_go_on_without_scans_that_it_began_with(
    scans, example, pretended_steps, monkeypatch, tmp_path
):
    request = (scans, [example], tmp_path / "masks", "supervised")
    with monkeypatch.context() as patch:
        patch.setattr("monai_fewshot.apps.command.running.StepRunner.run", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            segment(*request, **SETTINGS)
    (tmp_path / "masks" / "model" / "checkpoint_epoch=1.pt").touch()
    taken = scans / "study1" / "phantom_002.nii.gz"
    os.rename(taken, tmp_path / "taken.nii.gz")
    with pytest.raises(RuntimeError, match=r"1 of the 3 scans that it began with are gone from .*: phantom_002\. Put"):
        segment(*request, **SETTINGS)
    assert pretended_steps == []
    os.rename(tmp_path / "taken.nii.gz", taken)
    segment(*request, **SETTINGS)
    assert [name for name, _ in pretended_steps] == ["train", "inference"]


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "supervisd"}, "There is no method 'supervisd'; did you mean supervised?"),
        (
            {"method": "se_net"},
            "se_net cannot segment scans from an example alone: it learns from scans in which other",
        ),
        ({"method": "masksplit"}, "masksplit cannot segment scans from an example alone: it works on 2D images"),
        ({"minutes": 5}, "The method supervised takes no --minutes, its training has a length of its own"),
        ({"minutes": 5, "method": "registration"}, "takes no --minutes, it trains nothing"),
        ({"minutes": 0}, "--minutes is 0: give more than 0."),
        ({"annotated_slices": 5}, "The method supervised takes no --annotated-slices, it needs all slices"),
        ({"seed_labels": "seeds"}, "The method supervised takes no --seed-labels, it learns from no other masks"),
        ({"examples": []}, "No example is given"),
        ({"examples": [("nowhere.nii", "label.nii")]}, "The image of an example, nowhere.nii, does not exist"),
        ({"scans": "nowhere"}, "nowhere does not exist: give a folder of scans, or one scan."),
        ({"device": "tpu"}, "--device is 'tpu', which is not here"),
        ({"formats": "dicom_seg"}, "scans are no DICOM series"),
    ],
)
def test_bad_input_is_told_before_anything_is_done(changes, message, scans, example, pretended_steps, tmp_path):
    request = {"scans": scans, "examples": [example], "output": tmp_path / "masks", "method": "supervised"}
    request |= SETTINGS | changes
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        segment(**request)
    assert pretended_steps == []


def test_image_and_label_that_are_swapped_are_told(scans, example, pretended_steps, tmp_path):
    with pytest.raises(ValueError, match=r"The example cannot be used|Are image and label swapped"):
        segment(scans, [example[::-1]], tmp_path / "masks", "supervised", **SETTINGS)


def test_masks_do_not_go_among_the_scans_nor_beside_those_of_another_model(scans, example, pretended_steps, tmp_path):
    with pytest.raises(ValueError, match="holds the scans: name another --output"):
        segment(scans, [example], scans, "supervised", **SETTINGS)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "phantom_001_seg.nii.gz").touch()
    with pytest.raises(ValueError, match=r"holds 1 mask\(s\), but no model that made them"):
        segment(scans, [example], tmp_path / "masks", "supervised", **SETTINGS)
    assert pretended_steps == []


def test_a_folder_of_broken_scans_is_refused(example, pretended_steps, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"no scan")
    with pytest.raises(ValueError, match=r"None of the scans in .* can be used; .*problems.csv tells why"):
        segment(tmp_path / "scans", [example], tmp_path / "masks", "supervised", **SETTINGS)
    assert len(_rows(tmp_path / "masks" / "problems.csv")) == 1
