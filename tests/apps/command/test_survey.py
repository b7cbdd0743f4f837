# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from monai_fewshot.apps.command import survey_scans
from monai_fewshot.apps.command.problems import ScanProblem
from monai_fewshot.apps.command.survey import scan_warnings
from monai_fewshot.data import ScanFacts
from tests.helpers.slicer_files import write_seg_nrrd_by_hand

FACTS = {"format": "nii.gz", "channels": 1, "size": (8, 8, 4), "axes": "RAS"}


def _scan(folder, name, label=None, spacing=1.0, offset=0.0):
    """A scan of noise between offset and offset + 1, and, where one is given, its label."""
    image = np.random.default_rng(0).random((16, 16, 4), dtype=np.float32) + offset
    folder.mkdir(exist_ok=True)
    paths = {"image": folder / f"{name}.nii.gz"}
    nibabel.save(nibabel.Nifti1Image(image, np.diag([spacing, spacing, 3 * spacing, 1])), paths["image"])
    if label is not None:
        paths["label"] = folder / f"{name}_label.nii.gz"
        nibabel.save(nibabel.Nifti1Image(label, np.diag([spacing, spacing, 3 * spacing, 1])), paths["label"])
    return {"name": name, **{key: str(path) for key, path in paths.items()}}


def _label(**voxels):
    label = np.zeros((16, 16, 4), np.uint8)
    start = 0
    for number, count in voxels.items():
        label.reshape(-1)[start : start + count] = int(number[1:])
        start += count
    return label


def test_facts_of_scans_and_examples(tmp_path):
    example = _scan(tmp_path, "a", _label(c1=100, c2=40))
    survey = survey_scans([_scan(tmp_path, "b", spacing=2.0)], [example])
    (scan,) = survey.usable
    assert (scan.size, scan.spacing, scan.axes, scan.channels) == ((16, 16, 4), (2.0, 2.0, 6.0), "RAS", 1)
    assert survey.classes == {1: "class 1", 2: "class 2"}
    assert survey.examples[0].class_voxels == {1: 100, 2: 40}
    assert survey.warnings == ()
    assert survey.problems == ()
    assert survey.minutes > 0


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"spacing": 0.001}, "ten times larger or smaller than those of the example (0.001 x 0.001 x 0.003 mm"),
        ({"offset": 500}, "The intensities of b do not overlap with those of the example"),
    ],
)
def test_a_scan_unlike_the_example_is_told(changes, warning, tmp_path):
    example = _scan(tmp_path, "a", _label(c1=100))
    (told,) = survey_scans([_scan(tmp_path, "b", **changes), _scan(tmp_path, "c")], [example]).warnings
    assert warning in told


def test_labels_among_the_scans_are_left_out(tmp_path):
    example, scan = _scan(tmp_path, "a", _label(c1=100, c2=40)), _scan(tmp_path, "b")
    label = {"name": "b_label", "image": example["label"]}
    survey = survey_scans([scan, label], [example])
    assert [fact.name for fact in survey.usable] == ["b"]
    (problem,) = survey.problems
    assert (problem.scan, problem.problem) == ("b_label", "holds a few whole numbers alone, as a label map does")
    assert problem.remedy == "Keep labels in another folder than scans."


def test_a_scan_unlike_the_others_is_told_without_an_example(tmp_path):
    scans = [_scan(tmp_path, name, spacing=spacing) for name, spacing in (("a", 1), ("b", 1), ("c", 20))]
    (told,) = survey_scans(scans).warnings
    assert "The voxels of c are ten times larger or smaller than those of most of the others" in told


def test_another_modality_is_told():
    example = ScanFacts(name="a", file="a", modality="MR", **FACTS)
    scans = [ScanFacts(name=name, file=name, modality=name[:2], **FACTS) for name in ("CT1", "MR1")]
    (told,) = scan_warnings(scans, [example])
    assert told.startswith("CT1: the modality is CT, that of the example MR.")


def test_small_classes_and_examples_of_different_classes_are_told(tmp_path):
    one, two = _scan(tmp_path, "a", _label(c1=100, c2=19)), _scan(tmp_path, "b", _label(c1=50, c3=20))
    small, first, second = survey_scans([_scan(tmp_path, "c")], [one, two]).warnings
    assert "a: class 2 (class 2) has only 19 voxel(s)" in small
    assert "a lacks 3 (class 3)" in first
    assert "b lacks 2 (class 2)" in second


def test_examples_that_name_a_number_differently_are_refused(tmp_path):
    examples = []
    for name, organ in (("a", "liver"), ("b", "spleen")):
        examples.append(_scan(tmp_path / name, name, _label(c1=100)))
        (tmp_path / name / "dataset.json").write_text(f'{{"labels": {{"1": "{organ}"}}}}')
    with pytest.raises(ValueError, match="The examples disagree on class 1: liver in a, spleen in b"):
        survey_scans([_scan(tmp_path, "c")], examples)


def test_regions_that_are_chosen_keep_their_numbers(tmp_path):
    example = _scan(tmp_path, "a")
    label = tmp_path / "a.seg.nrrd"
    segments = [("liver", 0, 1), ("kidney", 0, 2), ("Spleen", 0, 3)]
    write_seg_nrrd_by_hand(label, _label(c1=100, c2=5, c3=50), segments, np.diag([1.0, 1, 3, 1]))
    example["label"] = str(label)
    survey = survey_scans([_scan(tmp_path, "b")], [example], class_names=["spleen", "liver"])
    assert survey.classes == {1: "liver", 3: "spleen"}
    assert survey.warnings == (), "the kidney, of five voxels, is not asked for"
    with pytest.raises(ValueError, match=r"a.seg.nrrd has no region called lung; it has liver, kidney, Spleen"):
        survey_scans([_scan(tmp_path, "b")], [example], class_names=["lung"])


def test_a_folder_with_the_example_alone_is_told(tmp_path):
    example = _scan(tmp_path, "a", _label(c1=100))
    (told,) = survey_scans([{key: example[key] for key in ("name", "image")}], [example]).warnings
    assert told.startswith("The folder holds no scan beside the example")


def test_a_label_with_the_numbers_of_an_image_is_refused(tmp_path):
    example = _scan(tmp_path, "a", np.arange(1024, dtype=np.int16).reshape(16, 16, 4))
    with pytest.raises(ValueError, match=r"holds 1023 class numbers up to 1023; .*Are image and label swapped\?"):
        survey_scans([_scan(tmp_path, "b")], [example])


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("a.nii: is missing; correct its path.", "is missing", "Correct its path."),
        ("a.nii: is cut (see gzip; RFC 1952). Copy it again.", "is cut (see gzip; RFC 1952)", "Copy it again."),
        ("a.nii: has 2 channels; expected 1. Save one.", "has 2 channels; expected 1", "Save one."),
        ("a.nii: is odd", "is odd", "Look at the scan; export it again, or leave it out."),
    ],
)
def test_a_text_is_parted_into_problem_and_remedy(text, problem, remedy):
    found = ScanProblem.from_text("a", "a.nii", text)
    assert (found.problem, found.remedy) == (problem, remedy)
