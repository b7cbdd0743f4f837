# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

__all__ = ["class_confidence", "reverse_dice", "volume_bounds"]

SURE = 0.9


def class_confidence(spread: torch.Tensor, label: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Average over each mask how sure the network is of its voxels.

    Args:
        spread: (1, *S), from 0, sure, to 0.5, undecided (:func:`monai_fewshot.inferers.margin_spread`).
        label: (1, *S), 0 background, 1..N the classes.
        num_classes: their number N.

    Returns:
        (N,), the mean of ``1 - spread`` in each class, from 0.5 to 1; NaN for a class that is not found.

    Example:
        >>> spread, label = torch.tensor([[0.5, 0.25, 0.0, 0.0]]), torch.tensor([[0, 1, 1, 2]])
        >>> class_confidence(spread, label, 3)
        tensor([0.8750, 1.0000,    nan])
    """
    numbers = convert_to_tensor(label, track_meta=False).flatten().long()
    sure = 1 - convert_to_tensor(spread, track_meta=False).flatten().double()
    sums = sure.new_zeros(num_classes + 1).index_add_(0, numbers, sure)
    return (sums / torch.bincount(numbers, minlength=num_classes + 1))[1:].float()


def volume_bounds(probability: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Tell between which volumes each class lies.

    The network is sure of the voxels with a probability of 90 %, and rules out those below 10 %.

    Args:
        probability: (N, H, W, D), of each class against its strongest rival.
        affine: (4, 4), from array indices to mm.

    Returns:
        (N, 2), least and most volume in mL.

    Example:
        >>> affine = torch.diag(torch.tensor([10.0, 10, 5, 1]))
        >>> volume_bounds(torch.tensor([0.05, 0.2, 0.95, 1.0]).view(1, 4, 1, 1), affine)
        tensor([[1.0000, 1.5000]])
    """
    given = convert_to_tensor(probability, track_meta=False).flatten(1)
    counts = torch.stack([(given > SURE).sum(1), (given > 1 - SURE).sum(1)], 1)
    return counts.cpu() * torch.linalg.det(affine[:3, :3].cpu()).abs().float() / 1000


def reverse_dice(
    make_inferer: Callable[[int], Inferer],
    network: Any,
    image: torch.Tensor,
    label: torch.Tensor,
    support_image: torch.Tensor | Sequence[torch.Tensor],
    support_label: torch.Tensor | Sequence[torch.Tensor],
    support_affine: torch.Tensor | None = None,
) -> torch.Tensor:
    """Tell how good a predicted mask is as the example from which the annotated scans are segmented.

    What was segmented becomes the support, and each annotated scan the query, whose truth is known. A mask that is
    wrong leads astray: the Dice of the annotated scan goes with that of the mask. A good mask of a scan that looks
    otherwise, or a method that is weak itself, lowers it too.

    Based on: Valindria et al., "Reverse Classification Accuracy: Predicting Segmentation Performance in the Absence of
    Ground Truth", IEEE TMI 36(8), 2017, https://arxiv.org/abs/1702.03407; with few-shot networks:
    https://arxiv.org/abs/2503.04522

    Args:
        make_inferer: makes an inferer of a number of classes that takes a support, such as
            :class:`~monai_fewshot.inferers.FewShotVolumeInferer` with one protocol.
        network: for the inferer, on the device of ``label``.
        image: (C, H, W, D), the scan that was segmented.
        label: (1, H, W, D), its mask, 0 background, 1..N the classes.
        support_image: (K, C, H', W', D'), or a list of K images (C, H', W', D').
        support_label: the same with one channel; N is its highest value.
        support_affine: (K, 4, 4), from array indices to mm. Default: one voxel is a cube of 1 mm.

    Returns:
        (N,), Dice from 0 to 1, averaged over the annotated scans that show the class; NaN for a class that the mask
        does not hold.
    """
    device = label.device
    truths = [convert_to_tensor(part, device=device, track_meta=False)[0].long() for part in support_label]
    queries = [convert_to_tensor(part, device=device, track_meta=False)[None] for part in support_image]
    places = torch.eye(4).expand(len(queries), 4, 4) if support_affine is None else support_affine
    num_classes = max(int(truth.max()) for truth in truths)
    mask = convert_to_tensor(label, track_meta=False).long()
    found = [c for c in range(1, 1 + num_classes) if bool((mask == c).any())]
    result = torch.full((len(queries), num_classes), torch.nan)
    if not found:
        return result[0]
    order = torch.zeros(num_classes + 1, dtype=torch.long, device=device)
    order[found] = torch.arange(1, 1 + len(found), device=device)
    example = {
        "support_image": convert_to_tensor(image, device=device, track_meta=False)[None, None],
        "support_label": order[mask][None, None],
        "support_affine": (image.affine if isinstance(image, MetaTensor) else torch.eye(4))[None, None],
    }
    inferer = make_inferer(len(found))
    for number, (query, truth, place) in enumerate(zip(queries, truths, places, strict=True)):
        again = inferer(MetaTensor(query, affine=place), network, **example).argmax(1)[0]
        for index, c in enumerate(found, 1):
            if bool((truth == c).any()):
                one, other = again == index, truth == c
                result[number, c - 1] = float(2 * (one & other).sum() / (one.sum() + other.sum()))
    return result.nanmean(0)
