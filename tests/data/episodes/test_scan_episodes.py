# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.transforms import SaveImage

from monai_fewshot.data import ImageMaskWriter, MaskWriter, ScanEpisodes

DEPTHS = {"a": 4, "b": 4, "c": 5, "q": 6, "r": 3}


class Loader:
    """Stands for a pipeline that reads files; counts how often each scan is read."""

    def __init__(self):
        self.read = []

    def __call__(self, scan):
        self.read.append(scan["name"])
        values = np.random.default_rng(ord(scan["name"])).random((1, 8, 10, DEPTHS[scan["name"]]))
        affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
        loaded = {"image": MetaTensor(values, affine=affine, meta={"filename_or_obj": scan["image"]})}
        if "label" in scan:
            loaded["label"] = MetaTensor(values > 0.5, affine=affine)
        return {**scan, **loaded}


def _scan(name, label=True):
    return {"name": name, "image": f"/x/{name}/IM0001.dcm", **({"label": f"/x/{name}_label.nii"} if label else {})}


def test_every_query_comes_with_the_support():
    load = Loader()
    dataset = ScanEpisodes([_scan("q", label=False), _scan("r")], [_scan("a"), _scan("b")], load)
    assert len(dataset) == 2
    first, second = dataset[0], dataset[1]
    assert load.read == ["a", "b", "q", "r"], "the support is read once"
    assert "label" not in first
    assert second["label"].shape == (1, 8, 10, 3)
    for episode in (first, second):
        assert episode["support_image"].shape == (2, 1, 8, 10, 4)
        assert type(episode["support_image"]) is type(episode["support_label"]) is torch.Tensor
        for number, name in enumerate("ab"):
            loaded = load(_scan(name))
            assert torch.equal(episode["support_image"][number], loaded["image"].as_tensor())
            assert torch.equal(episode["support_label"][number], loaded["label"].as_tensor())
            assert torch.equal(episode["support_affine"][number], loaded["image"].affine)
    assert torch.equal(first["image"].as_tensor(), load(_scan("q"))["image"].as_tensor())
    assert first["image"].affine[2, 2] == 3


def test_images_are_called_after_their_scans():
    dataset = ScanEpisodes([_scan("q"), _scan("r")], [_scan("a")], Loader())
    assert [dataset[i]["image"].meta["filename_or_obj"] for i in range(2)] == [
        "q.nii.gz",
        "r.nii.gz",
    ]


@pytest.mark.parametrize("name", ["q", "1.2.840.113619", "photo.v2", "scan.gz", "a b"])
def test_masks_are_called_after_their_scans(tmp_path, name):
    """Names of DICOM series are often dotted numbers, of which a writer must not take the last for a suffix."""
    load = Loader()

    def transform(scan):
        return {**load({**scan, "name": "q" if scan["name"] == name else scan["name"]}), "name": scan["name"]}

    episode = ScanEpisodes([_scan(name)], [_scan("a")], transform)[0]
    for extension in (".nii.gz", ".png"):
        values = MetaTensor(torch.ones(1, 8, 10, 1), meta=episode["image"].meta)
        writer = ImageMaskWriter if extension == ".png" else MaskWriter
        SaveImage(tmp_path, "seg", extension, separate_folder=False, resample=False, print_log=False, writer=writer)(
            values
        )
        assert (tmp_path / f"{name}_seg{extension}").is_file()


def test_supports_of_different_size_are_listed():
    episode = ScanEpisodes([_scan("q")], [_scan("a"), _scan("c")], Loader())[0]
    assert [tuple(image.shape) for image in episode["support_image"]] == [(1, 8, 10, 4), (1, 8, 10, 5)]
    assert [tuple(label.shape) for label in episode["support_label"]] == [(1, 8, 10, 4), (1, 8, 10, 5)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_loader_adds_the_batch_axis(num_workers):
    dataset = ScanEpisodes([_scan("q", False), _scan("r", False)], [_scan("a"), _scan("c")], Loader())
    batches = list(DataLoader(dataset, batch_size=1, num_workers=num_workers))
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 1, 8, 10, 6), (1, 1, 8, 10, 3)]
    assert [tuple(image.shape) for image in batches[1]["support_image"]] == [(1, 1, 8, 10, 4), (1, 1, 8, 10, 5)]
    stacked = ScanEpisodes([_scan("q")], [_scan("a"), _scan("b")], Loader())
    (batch,) = DataLoader(stacked, batch_size=1, num_workers=num_workers)
    assert batch["support_image"].shape == (1, 2, 1, 8, 10, 4)


def test_support_without_label():
    with pytest.raises(ValueError, match=r"A support needs an image and a label; without label: b, c\."):
        ScanEpisodes([_scan("q")], [_scan("a"), _scan("b", False), _scan("c", False)], Loader())


def test_no_support():
    with pytest.raises(ValueError, match="There is no support scan: name one annotated scan at least"):
        ScanEpisodes([_scan("q")], [], Loader())


def test_classes_of_the_supports_are_numbered_from_1():
    numbers = {"a": [0, 850, 2], "b": [205, 0, 70000], "q": [0, 0, 0]}

    def load(scan):
        label = torch.tensor(numbers[scan["name"]], dtype=torch.float32).view(1, 3, 1, 1)
        return {**scan, "image": MetaTensor(torch.zeros(1, 3, 1, 1)), "label": MetaTensor(label)}

    episodes = ScanEpisodes([_scan("q", label=False)], [_scan("a"), _scan("b")], load)
    assert episodes.classes == [2, 205, 850, 70000]
    np.testing.assert_array_equal(episodes[0]["support_label"][:, 0, :, 0, 0], [[0, 3, 1], [2, 0, 4]])
