# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.utils import StrEnum

from monai_fewshot.data.slices.slice_stack import SliceStack

__all__ = ["BackgroundKind", "background_images", "choose_exemplars", "organ_free_slices", "take_slices"]


class BackgroundKind(StrEnum):
    """Images that organs are pasted onto."""

    UNLABELED = "unlabeled"
    """Slices that nobody has annotated, whatever they show."""
    ORGAN_FREE = "organ_free"
    """Slices of annotated scans that show no organ."""
    BLACK = "black"
    """None but black ones."""


def choose_exemplars(
    stack: SliceStack, classes: Sequence[int], slices: Sequence[int] | None = None, count: int = 1, seed: int = 0
) -> list[int]:
    """Choose the annotated slices that a network is trained from.

    One is drawn from the slices that hold all classes, as in ELSNet. Several are spread evenly over the slices that
    hold any class, from the first to the last, and one of them is moved to the nearest slice with all classes where
    none of them holds all: images can only be synthesized of such a one.

    Args:
        stack: the slices of an annotated volume, or images, with label maps.
        classes: label values.
        slices: numbers of given slices; None for a choice.
        count: how many to choose.
        seed: of the draw.

    Returns:
        Slice numbers, ascending.

    Raises:
        ValueError: where a given slice does not exist, or the chosen slices cannot hold all classes.

    Example:
        >>> label = torch.zeros(5, 1, 2, 2, dtype=torch.uint8)
        >>> label[1:4, 0, 0, 0], label[2, 0, 1, 1] = 1, 2
        >>> choose_exemplars(SliceStack(torch.zeros(5, 1, 2, 2), label, torch.zeros(5)), [1, 2])
        [2]
    """
    present = torch.stack([(stack.label == value).flatten(1).any(1) for value in classes], dim=1).cpu().numpy()
    if slices is not None:
        outside = [number for number in slices if not 0 <= number < len(present)]
        if outside:
            raise ValueError(f"There are no slices {outside}: the annotated scan has slices 0 to {len(present) - 1}.")
        return _complete(sorted(slices), present, classes)
    full, some = np.flatnonzero(present.all(1)), np.flatnonzero(present.any(1))
    random = np.random.RandomState(seed)
    if count == 1:
        if not len(full):
            best = int(present.sum(1).argmax())
            raise ValueError(
                f"No slice holds all classes {list(classes)}; slice {best} holds the most, "
                f"{np.array(classes)[present[best]].tolist()}. Choose several slices, other classes or another scan."
            )
        return [int(random.choice(full))]
    if not 1 <= count <= len(some):
        raise ValueError(f"{count} slices are asked for, {len(some)} hold a class: ask for 1 to {len(some)}.")
    chosen = some[np.linspace(0, len(some) - 1, count).round().astype(int)]
    if len(full) and not present[chosen].all(1).any():
        nearest = np.abs(chosen[:, None] - full[None]).min(1).argmin()
        chosen[nearest] = full[np.abs(full - chosen[nearest]).argmin()]
    return _complete(sorted(chosen.tolist()), present, classes)


def organ_free_slices(stack: SliceStack) -> list[int]:
    """List the slices whose labels are background throughout, onto which organs can be pasted.

    Args:
        stack: slices with label maps.

    Returns:
        Slice numbers, ascending; none may be left.
    """
    return (~(stack.label > 0).flatten(1).any(1)).nonzero().flatten().tolist()


def background_images(kind: BackgroundKind | str, annotated: SliceStack, unlabeled: SliceStack) -> torch.Tensor | None:
    """Gather the backgrounds of synthetic images.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, section 3.1,
    https://arxiv.org/abs/2204.01713, whose backgrounds are black or show no organ.

    Deviation: ``UNLABELED`` backgrounds may show organs. Where these are not hidden by what is pasted, they are wrongly
    taken for background; in return a network sees what surrounds organs, and the intensities of other scans.

    Args:
        kind: which.
        annotated: all slices of annotated scans, with label maps.
        unlabeled: slices of other scans, of the same size.

    Returns:
        (M, C, H, W), or None for black ones alone, also where no annotated slice is without organs.
    """
    kind = BackgroundKind(kind)
    if kind == BackgroundKind.UNLABELED:
        return unlabeled.image
    free = organ_free_slices(annotated) if kind == BackgroundKind.ORGAN_FREE else []
    return annotated.image[free] if free else None


def take_slices(stack: SliceStack, slices: Sequence[int]) -> SliceStack:
    """Keep some slices of a stack.

    Args:
        stack: the slices.
        slices: numbers of those to keep.

    Returns:
        A stack of them, in that order.
    """
    index = torch.tensor(list(slices), dtype=torch.int64)
    parts = {name: getattr(stack, name) for name in ("image", "label", "scan")}
    return replace(stack, **{name: tensor[index.to(tensor.device)] for name, tensor in parts.items()})


def _complete(slices: list[int], present: np.ndarray, classes: Sequence[int]) -> list[int]:
    missing = [classes[int(place)] for place in np.flatnonzero(~present[slices].any(axis=0))]
    if missing:
        raise ValueError(
            f"Slices {slices} do not show classes {missing}: a network cannot learn what no example shows. Choose "
            "other slices, more of them, or leave these classes out."
        )
    return slices
