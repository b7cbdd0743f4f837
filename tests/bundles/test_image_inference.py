# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""From a folder of 2D images and one annotated image to masks as PNG files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image

pytestmark = pytest.mark.default_dtype
BUNDLES = Path(__file__).parents[2] / "bundles"
SIZES = {"a": (40, 56), "b": (48, 48), "c.v1": (51, 37), "c.v2": (40, 56)}


class Segmenting:
    """A bundle with random weights, and images to segment."""

    def __init__(self, bundle, overlays, folder):
        configs = BUNDLES / bundle / "configs"
        self.config, self.folder = str(configs / "inference.json"), folder
        parser = ConfigParser()
        parser.read_config([str(configs / f"{name}.json") for name in ("train", *overlays)])
        parser.update({"image_size": [32, 32], "encoder#channels": [4, 8, 8]})
        torch.manual_seed(0)
        content = {"model": "network_def", "settings": "settings"}
        torch.save(
            {name: parser.get_parsed_content(key).state_dict() for name, key in content.items()}, folder / "model.pt"
        )

    def run(self, **override):
        settings = {
            "dataset_dir": str(self.folder / "images"),
            "support_image": str(self.folder / "images" / "a.jpg"),
            "support_label": str(self.folder / "lesion.png"),
            "checkpoint": str(self.folder / "model.pt"),
            "output_dir": str(self.folder / "masks"),
            "device": "$torch.device('cpu')",
            **override,
        }
        workflow = ConfigWorkflow(config_file=self.config, logging_file=False, **settings)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        return {
            file.name: np.asarray(Image.open(file)) for file in sorted(Path(settings["output_dir"]).glob("*_seg.png"))
        }


def _mask(file, values, size=SIZES["a"]):
    mask = np.zeros(size, np.uint8)
    for number, value in enumerate(values):
        mask[8:30, 6 + 20 * number : 24 + 20 * number] = value
    Image.fromarray(mask).save(file)
    return str(file)


@pytest.fixture(
    params=[("masksplit", ()), ("surrogate_fewshot", ()), ("surrogate_fewshot", ("alpnet",))],
    ids=["masksplit", "surrogate_fewshot", "alpnet"],
)
def segmenting(request, tmp_path):
    (tmp_path / "images").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg")
    _mask(tmp_path / "lesion.png", [255])
    return Segmenting(*request.param, tmp_path)


def test_every_image_gets_a_mask_of_its_size(segmenting):
    masks = segmenting.run()
    assert {name: mask.shape for name, mask in masks.items()} == {f"{n}_seg.png": s for n, s in SIZES.items()}
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks.values()]))) <= {0, 255}
    assert any(mask.any() for mask in masks.values())


def test_a_run_goes_on_where_it_stopped(segmenting):
    first = segmenting.run()
    output = segmenting.folder / "masks"
    kept = (output / "a_seg.png").stat().st_mtime_ns
    (output / "b_seg.png").unlink()
    (output / "c.v1_seg.png").write_bytes((output / "c.v1_seg.png").read_bytes()[:-30])
    again = segmenting.run()
    assert all(np.array_equal(again[name], first[name]) for name in first)
    assert (output / "a_seg.png").stat().st_mtime_ns == kept


def test_examples_of_several_classes_and_sizes(segmenting):
    first, second = _mask(segmenting.folder / "two.png", [1, 2]), _mask(segmenting.folder / "b.png", [2], SIZES["b"])
    supports = [str(segmenting.folder / "images" / f"{name}.jpg") for name in "ab"]
    everywhere = {"threshold": -1e3, "keep_largest": False}
    masks = segmenting.run(support_image=supports, support_label=[first, second], binary_masks=False, **everywhere)
    assert len(masks) == 4
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks.values()]))) == {1, 2}


def test_masks_with_gray_levels(segmenting):
    gray = segmenting.folder / "lesion.jpg"
    Image.open(segmenting.folder / "lesion.png").save(gray, quality=50)
    with pytest.raises(Exception) as error:  # noqa: PT011, MONAI wraps it several times
        segmenting.run(support_label=str(gray))
    assert "give a mask_threshold such as 127" in "".join(_messages(error.value))
    assert len(segmenting.run(support_label=str(gray), mask_threshold=127)) == 4


def _messages(error):
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def test_a_class_tree_is_segmented_without_losing_images(segmenting):
    for name in ("x", "y"):
        for stem in ("a", "b"):
            (segmenting.folder / "tree" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(segmenting.folder / "images" / "a.jpg", segmenting.folder / "tree" / name / f"{stem}.jpg")
            shutil.copy(segmenting.folder / "lesion.png", segmenting.folder / "tree" / name / f"{stem}.png")
    masks = segmenting.run(dataset_dir=str(segmenting.folder / "tree"))
    assert list(masks) == ["x_a_seg.png", "x_b_seg.png", "y_a_seg.png", "y_b_seg.png"]
