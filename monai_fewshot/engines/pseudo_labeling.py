# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.distributed as dist

from monai_fewshot.data import SliceStack
from monai_fewshot.networks.blocks import class_masks
from monai_fewshot.utils import IGNORED, num_processes, process_rank, run_together

__all__ = ["describe_labels", "pseudo_labels"]


@torch.no_grad()
def pseudo_labels(
    network: torch.nn.Module,
    slices: SliceStack,
    min_confidence: float = 0.0,
    normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch_size: int = 16,
) -> SliceStack:
    """Label slices with a network.

    In a process group every process labels a share of the batches, and gets the labels of all: those that a single
    process would give, for the batches are the same. Labels travel as tensors of the device that they lie on, which the
    group's backend must serve (:func:`monai_fewshot.utils.start_process_group`).

    Args:
        network: from images (B, C, H, W) to logits (B, N+1, H, W), with the same weights in all processes; it is put
            into evaluation mode.
        slices: what to label.
        min_confidence: pixels whose class has a lower probability are labeled 255, which is ignored.
        normalize: what is done to images before.
        batch_size: slices at a time.

    Returns:
        The slices, with the network's labels.

    Raises:
        RuntimeError: where labeling fails in another process; that one raises its own error.
    """
    network.eval()
    labels = torch.zeros(slices.label.shape, dtype=torch.uint8, device=slices.label.device)

    def label_share() -> None:
        batches = zip(torch.arange(len(labels)).split(batch_size), labels.split(batch_size), strict=True)
        for places, part in list(batches)[process_rank() :: num_processes()]:
            image, _ = slices.take(places.tolist())
            logits = network(image if normalize is None else normalize(image))
            probability, label = logits.softmax(1).max(1, keepdim=True)
            part.copy_(label.masked_fill(probability < min_confidence, IGNORED))

    run_together(label_share)
    if num_processes() > 1:
        dist.all_reduce(labels)  # a sum, in which each batch is 0 but from the process that has labeled it
    return replace(slices, label=labels)


def describe_labels(pseudo: SliceStack, truth: SliceStack | None = None) -> str:
    """Say how much of slices is pseudo-labeled, and how well.

    Args:
        pseudo: slices with pseudo-labels.
        truth: the same slices with the truth, where it is known.

    Returns:
        A text.
    """
    label = pseudo.label
    known = label != IGNORED
    labeled, of_class = (100 * where.float().mean().item() for where in (known, known & (label > 0)))
    text = f"{labeled:.1f} % of the pixels are pseudo-labeled, {of_class:.1f} % as a class."
    if truth is None:
        return text
    count = int(truth.label.max())
    one, other = (class_masks(stack.label.float(), count)[:, 1:] for stack in (pseudo, truth))
    dice = 2 * (one * other).sum((0, 2, 3)) / (one.sum((0, 2, 3)) + other.sum((0, 2, 3))).clamp(min=1)
    return f"{text} Dice of the pseudo-labels, by class: {', '.join(f'{d:.3f}' for d in dice.tolist())}"
