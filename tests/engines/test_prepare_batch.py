# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.engines import PrepareBatchEpisode


def _batch():
    shapes = {
        "image": (2, 3, 8, 8),
        "label": (2, 1, 8, 8),
        "support_image": (2, 1, 3, 8, 8),
        "support_label": (2, 1, 1, 8, 8),
    }
    return {key: torch.rand(shape) for key, shape in shapes.items()}


def test_support_goes_to_the_network_and_its_label_to_the_loss_too():
    batch = _batch()
    image, target, args, kwargs = PrepareBatchEpisode()(batch, device="cpu")
    assert image is batch["image"]
    assert target.label is batch["label"]
    assert target.support_label is batch["support_label"]
    assert target.reconstruction is None
    assert [id(t) for t in args] == [id(batch["support_image"]), id(batch["support_label"])]
    assert kwargs == {}


def test_all_tensors_move():
    image, target, args, _ = PrepareBatchEpisode()(_batch(), device="meta", dtype=torch.float16)
    for tensor in (image, target.label, target.support_label, *args):
        assert tensor.device.type == "meta"
        assert tensor.dtype == torch.float16


def test_queries_stay_meta_tensors():
    batch = {**_batch(), "image": MetaTensor(torch.rand(2, 3, 8, 8))}
    assert isinstance(PrepareBatchEpisode()(batch, device="cpu")[0], MetaTensor)


def test_episodes_need_all_keys():
    batch = _batch()
    del batch["support_label"]
    with pytest.raises(KeyError, match="support_label"):
        PrepareBatchEpisode()(batch)


def _with_surrogate():
    shape = (2, 4, 3, 8, 8)
    return {**_batch(), "surrogate_image": torch.rand(shape), "surrogate_target": torch.rand(shape)}


def test_surrogate_images_go_to_the_network_last_and_their_originals_to_the_loss_last():
    batch = _with_surrogate()
    image, target, args, kwargs = PrepareBatchEpisode()(batch, device="cpu")
    assert image is batch["image"]
    assert target.label is batch["label"]
    assert target.support_label is batch["support_label"]
    assert target.reconstruction is batch["surrogate_target"]
    assert [id(t) for t in args] == [id(batch[key]) for key in ("support_image", "support_label", "surrogate_image")]
    assert kwargs == {}


def test_surrogate_images_and_their_originals_move():
    _, target, args, _ = PrepareBatchEpisode()(_with_surrogate(), device="meta", dtype=torch.float16)
    for tensor in (target.reconstruction, args[2]):
        assert (tensor.shape, tensor.device.type, tensor.dtype) == ((2, 4, 3, 8, 8), "meta", torch.float16)


def test_surrogate_images_need_their_originals():
    batch = _with_surrogate()
    del batch["surrogate_target"]
    with pytest.raises(KeyError, match="surrogate_target"):
        PrepareBatchEpisode()(batch)


def test_originals_alone_are_no_surrogate_task():
    batch = _with_surrogate()
    del batch["surrogate_image"]
    _, target, args, _ = PrepareBatchEpisode()(batch)
    assert target.reconstruction is None
    assert len(args) == 2
