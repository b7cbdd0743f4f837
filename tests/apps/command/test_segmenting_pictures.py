# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""A folder of 2D pictures, one of them annotated, to masks of all."""

from __future__ import annotations

import csv
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from small_pictures import SIZES, write_pictures

from monai_fewshot.apps.command import segment
from monai_fewshot.apps.command.scan_sources import list_scans, passed_over
from monai_fewshot.apps.command.survey import LABEL_AMONG_SCANS, survey_scans


@pytest.fixture
def folder(tmp_path):
    """Pictures of color, and the mask of one of them."""
    return write_pictures(tmp_path / "all")


@pytest.fixture
def pair(folder):
    return folder / "images" / "a.png", folder / "masks" / "a.png"


def rows(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.default_dtype
def test_from_one_picture_to_masks_of_all_and_of_new_ones(folder, pair, quick_self_training, steps, tmp_path):
    """One picture is damaged, one is gray, one comes later."""
    pictures, masks = folder / "images", tmp_path / "masks"
    new = tmp_path / "new.png"
    shutil.move(pictures / "b.png", new)
    (pictures / "broken.jpg").write_text("no picture")
    Image.open(pair[0]).convert("L").save(pictures / "gray.png")
    request = (pictures, [pair], masks, quick_self_training)
    said = []
    done = segment(*request, minutes=0.001, device="cpu", say=said.append)
    assert steps == ["train", "inference"]
    assert sorted(done.masks) == ["a", "c", "d", "e", "f"]
    assert [problem["scan"] for problem in rows(done.problem_table)] == ["broken", "gray"]
    assert rows(done.problem_table)[1]["what to do"].startswith("Convert it, e.g. with PIL.Image.open(file)")
    assert done.measurements is None
    assert not (masks / "measurements.csv").exists()
    page = done.index.read_text()
    assert page.count("data:image/png") == 5
    shutil.move(new, pictures / "b.png")
    steps.clear()
    again = segment(*request, device="cpu", say=said.append)
    assert steps == ["inference"]
    sizes = {name: np.asarray(Image.open(mask)).shape for name, mask in again.masks.items()}
    assert sizes == SIZES
    assert all(set(np.unique(Image.open(mask))) <= {0, 255} for mask in again.masks.values())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"method": "adnet"}, "The method adnet segments scans, no 2D pictures: take self_training."),
        ({"formats": "nifti"}, "scans are 2D pictures, whose masks are PNG files"),
        ({"examples": "small mask"}, r"small.png: is a mask of 20 x 28 pixels .* its image has 40 x 56"),
        ({"examples": "gray"}, r"None of the scans .* The first: .*a.png: is a color picture; expected a gray one"),
        ({"examples": "alpha"}, r"The example cannot be used:\n.*alpha.png: has a fourth channel, transparency"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_computed(changes, text, folder, pair, tmp_path):
    image, mask = pair
    odd = tmp_path / f"{changes.get('examples', 'odd')}.png".replace(" mask", "")
    examples = {
        "small mask": (image, odd),
        "gray": (odd, mask),
        "alpha": (odd, mask),
    }
    kind = changes.get("examples")
    if kind == "small mask":
        Image.open(mask).resize((28, 20)).save(odd)
    elif kind:
        Image.open(image).convert({"gray": "L", "alpha": "RGBA"}[kind]).save(odd)
    settings = {**changes, "examples": [examples.get(kind, pair)]}
    with pytest.raises(ValueError, match=text):
        segment(folder / "images", output=tmp_path / "masks", device="cpu", say=lambda text: None, **settings)


def test_the_example_tells_whether_pictures_or_scans_are_meant(phantom, folder, tmp_path):
    scan = phantom / "imagesTr" / "phantom_001.nii.gz"
    mixed = folder / "images"
    os.link(scan, mixed / "scan.nii.gz")
    found, problems = list_scans(mixed, pictures=True)
    assert [each["name"] for each in found] == list(SIZES)
    assert [problem.problem for problem in problems] == ["holds 1 scans beside 6 2D pictures"]
    found, problems = list_scans(mixed, pictures=False)
    assert ([each["name"] for each in found], problems) == (["scan"], [])
    assert passed_over(mixed, found).startswith("6 PNG, JPEG, BMP or TIFF file(s) beside the scans")
    assert passed_over(phantom / "imagesTr", found) == ""
    with pytest.raises(FileNotFoundError, match="holds 6 2D pictures and no scans, of which the example is"):
        list_scans(folder / "masks", pictures=False)
    assert [each["name"] for each in list_scans(folder / "masks")[0]] == list(SIZES)


def test_masks_among_pictures_are_told_apart(folder, pair):
    example = {"name": "a", "image": str(pair[0]), "label": str(pair[1])}
    scans = [{"name": name, "image": str(folder / name / "b.png")} for name in ("images", "masks")]
    survey = survey_scans(scans, [example])
    assert [scan.name for scan in survey.usable] == ["images"]
    assert survey.scans[1].problems == (LABEL_AMONG_SCANS,)
    assert survey.scans[0].format == "png"
    assert (survey.scans[0].size, survey.scans[0].spacing, survey.scans[0].axes) == ((48, 48), (), "")
