# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from small_pictures import write_pictures

from monai_fewshot.apps.annotation import refine, suggest
from monai_fewshot.apps.command import segment

pytestmark = pytest.mark.default_dtype
NAMES = "abcd"
QUIET = {"device": "cpu", "say": lambda text: None}


def test_pictures_of_color_are_refined_and_suggested(quick_self_training, steps, tmp_path):
    """The example is corrected itself, and another picture."""
    folder = write_pictures(tmp_path / "all", NAMES)
    pictures, masks = folder / "images", tmp_path / "masks"
    assert suggest(pictures, 1, 1, output=tmp_path / "first.csv", **QUIET)[0].scan in NAMES
    segment(pictures, [(pictures / "a.png", folder / "masks" / "a.png")], masks, quick_self_training, 0.0001, **QUIET)
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for name in "ac":
        shutil.copyfile(folder / "masks" / f"{name}.png", drawn / f"{name}_seg.png")
    done = refine(masks, [drawn], minutes=0.0001, **QUIET)
    assert done.corrected == ("a", "c")
    assert sorted(done.masks) == sorted(NAMES)
    for name in "ac":
        np.testing.assert_array_equal(Image.open(done.masks[name]), Image.open(folder / "masks" / f"{name}.png"))
    assert {each.scan for each in suggest(masks, 9, 1, **QUIET)} == set(NAMES) - {"a", "c"}
    log = (masks / "rounds" / "1" / "round.json").read_text()
    assert '"a"' in log
    assert done.page.read_text().count("data:image/png") == len(NAMES)
