# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator

from monai_fewshot.engines import PrepareBatchEpisode, PrepareBatchTask


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
    assert [id(t) for t in target] == [id(batch["label"]), id(batch["support_label"])]
    assert [id(t) for t in args] == [id(batch["support_image"]), id(batch["support_label"])]
    assert kwargs == {}


def test_all_tensors_move():
    image, target, args, _ = PrepareBatchEpisode()(_batch(), device="meta", dtype=torch.float16)
    for tensor in (image, *target, *args):
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
    assert [id(t) for t in target] == [id(batch[key]) for key in ("label", "support_label", "surrogate_target")]
    assert [id(t) for t in args] == [id(batch[key]) for key in ("support_image", "support_label", "surrogate_image")]
    assert kwargs == {}


def test_surrogate_images_and_their_originals_move():
    _, target, args, _ = PrepareBatchEpisode()(_with_surrogate(), device="meta", dtype=torch.float16)
    for tensor in (target[2], args[2]):
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
    assert len(target) == len(args) == 2


def _tasks():
    shapes = {
        "image": (3, 4, 3, 8, 8),
        "label": (3, 4, 1, 8, 8),
        "support_image": (3, 2, 3, 8, 8),
        "support_label": (3, 2, 1, 8, 8),
        "number": (3,),
    }
    return {key: torch.rand(shape) for key, shape in shapes.items()}


def test_queries_of_tasks_stand_in_a_row_and_supports_by_task():
    batch = _tasks()
    image, label, support, kwargs = PrepareBatchTask()(batch, device="cpu")
    assert (image.shape, label.shape) == ((12, 3, 8, 8), (12, 1, 8, 8))
    for task in range(3):
        for place in range(4):
            assert torch.equal(image[4 * task + place], batch["image"][task, place])
            assert torch.equal(label[4 * task + place], batch["label"][task, place])
    assert [id(t) for t in support] == [id(batch["support_image"]), id(batch["support_label"])]
    assert kwargs == {}


def test_all_tensors_of_tasks_move():
    image, label, support, _ = PrepareBatchTask()(_tasks(), device="meta", dtype=torch.float16)
    for tensor in (image, label, *support):
        assert tensor.device.type == "meta"
        assert tensor.dtype == torch.float16


@pytest.mark.parametrize("key", ["image", "label", "support_image", "support_label"])
def test_tasks_need_all_keys(key):
    batch = _tasks()
    del batch[key]
    with pytest.raises(KeyError, match=key):
        PrepareBatchTask()(batch)


class _Brighter(torch.nn.Module):
    """Foreground is what is brighter than all of the foreground of the first support image of its task."""

    def forward(self, image, support_image, support_label):
        level = torch.where(support_label[:, 0] > 0, support_image[:, 0, :1], 0).amax((1, 2, 3))
        return image[:, :1] - level.repeat_interleave(len(image) // len(level)).view(-1, 1, 1, 1)


def test_monais_evaluator_judges_every_query_of_a_task():
    batch = _tasks()
    batch["support_label"] = (batch["support_label"] > 0.5).float()
    outputs = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=[batch],
        network=_Brighter(),
        prepare_batch=PrepareBatchTask(),
        decollate=False,
    )
    evaluator.add_event_handler("ITERATION_COMPLETED", lambda engine: outputs.append(engine.state.output))
    evaluator.run()
    (output,) = outputs
    assert torch.equal(output["label"], batch["label"].flatten(0, 1))
    for task in range(3):
        one = [batch[key][[task]] for key in ("support_image", "support_label")]
        expected = _Brighter()(batch["image"][task], *one)
        torch.testing.assert_close(output["pred"][4 * task :][:4], expected)
