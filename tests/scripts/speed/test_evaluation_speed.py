# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The plain evaluation finds the masks of the package, slice by slice and class by class."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from monai_fewshot.apps.phantom import make_phantom_dataset

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import evaluation_speed


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    make_phantom_dataset(folder, 3, (64, 64, 12), num_folds=3)
    return folder


def _run(phantom, **changed):
    settings = {"fold": 0, "scans": 1, "encoder": "unet", "image_size": 48, "batch_size": 4, "plain_slices": 3}
    return evaluation_speed.run(Namespace(**{**settings, "device": "cpu", **changed}), phantom)


def test_masks_of_both_ways_are_the_same(phantom):
    result = _run(phantom)
    assert result["compared"] > 0
    assert 0 < result["foreground"] < result["compared"]
    assert result["differ_beyond_rounding"] == 0


def test_another_segmentation_is_told(phantom, monkeypatch):
    plain = evaluation_speed.plain_segmentation
    monkeypatch.setattr(
        evaluation_speed, "plain_segmentation", lambda *inputs: tuple(x.flip(1) for x in plain(*inputs))
    )
    assert _run(phantom)["differ_beyond_rounding"] > 100


def test_every_slice_and_class_has_its_own_pass_of_two_images(phantom, monkeypatch):
    batches = []
    plain = evaluation_speed.plain_segmentation

    def counted(encoder, *inputs):
        return plain(lambda images: (batches.append(len(images)), encoder(images))[1], *inputs)

    monkeypatch.setattr(evaluation_speed, "plain_segmentation", counted)
    result = _run(phantom)
    assert batches == [2] * 3 * result["classes"]
