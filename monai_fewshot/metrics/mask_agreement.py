# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

__all__ = ["VolumeScore", "score_volume"]


class VolumeScore(NamedTuple):
    """Scores of one volume, one value a class.

    Attributes:
        dice: (N,) fraction 0 to 1, NaN where the scored slices hold no ground truth.
        hd95_mm: (N,) millimeters, NaN where the ground truth or the prediction is empty in the scored slices.
        label_voxels: (N,) voxels of the ground truth in the scored slices.
        predicted_voxels: (N,) voxels predicted in the scored slices.
    """

    dice: torch.Tensor
    hd95_mm: torch.Tensor
    label_voxels: torch.Tensor
    predicted_voxels: torch.Tensor


def score_volume(
    prediction: torch.Tensor,
    label: torch.Tensor,
    scored_slices: torch.Tensor,
    spacing: Sequence[float],
) -> VolumeScore:
    """Dice and 95th percentile of the Hausdorff distance of each class, in the slices that a protocol scores.

    Both masks are cleared outside the scored slices, slices keep their places, and what is left is scored as one
    volume: true and false positives are pooled over slices. A structure cut off at the last scored slice ends there
    in both masks.

    ``Dice = 2 |P and G| / (|P| + |G|)`` is ``monai.metrics.compute_dice``, NaN where the ground truth G is empty,
    whatever was predicted; 0 where only the prediction P is empty.

    HD95 is ``monai.metrics.compute_hausdorff_distance``: surface voxels are those with a face neighbor outside
    the mask (or the volume), every one counts the same, distances run between voxel centers, the percentile is
    interpolated linearly in each direction and the larger direction counts. (DeepMind's surface-distance weights
    surface elements by area instead, and differs.) NaN where either mask is empty: there is no distance to or from
    nothing. A method that finds nothing is thus not punished by HD95; report the count of undefined values with it.

    MONAI crops the masks to their joint bounding box itself: four organs in 256 x 256 x 36 take 0.35 s on one core,
    1.7 s with 2 % of all voxels wrong.

    Args:
        prediction: (N, H, W, D) bool or 0/1, one channel a class, each segmented on its own.
        label: (1, H, W, D) label map, value c for channel c - 1; other values count as background.
        scored_slices: (N, D) bool, the slices that count for each class.
        spacing: voxel size along H, W and D in mm.

    Returns:
        The scores, on the CPU.

    Raises:
        ValueError: where shapes do not fit together.

    Example:
        >>> label = torch.zeros(1, 8, 8, 4, dtype=torch.long)
        >>> label[:, 2:6, 2:6, 1:3] = 1
        >>> score = score_volume(label == 1, label, torch.ones(1, 4, dtype=torch.bool), (1.25, 1.25, 7.7))
        >>> score.dice.item(), score.hd95_mm.item()
        (1.0, 0.0)
    """
    _check(prediction, label, scored_slices, spacing)
    numbers = torch.arange(1, prediction.shape[0] + 1).reshape(-1, 1, 1, 1)
    scored = _plain(scored_slices).bool()[:, None, None]
    predicted = _plain(prediction).bool() & scored
    truth = (_plain(label) == numbers) & scored
    return VolumeScore(
        compute_dice(predicted[None], truth[None], include_background=True)[0],
        torch.stack([_hd95(p, t, spacing) for p, t in zip(predicted, truth, strict=True)]),
        truth.sum((1, 2, 3)),
        predicted.sum((1, 2, 3)),
    )


def _hd95(predicted: torch.Tensor, truth: torch.Tensor, spacing: Sequence[float]) -> torch.Tensor:
    if not (predicted.any() and truth.any()):
        return torch.tensor(float("nan"))
    masks = predicted[None, None], truth[None, None]
    mm = tuple(float(size) for size in spacing)
    return compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=mm)[0, 0]


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().as_subclass(torch.Tensor)


def _check(
    prediction: torch.Tensor,
    label: torch.Tensor,
    scored_slices: torch.Tensor,
    spacing: Sequence[float],
) -> None:
    expected = {
        "label": (tuple(label.shape), (1, *prediction.shape[1:])),
        "scored_slices": (tuple(scored_slices.shape), (prediction.shape[0], prediction.shape[-1])),
        "spacing": ((len(spacing),), (3,)),
    }
    if prediction.ndim != 4:
        raise ValueError(f"prediction must be (classes, H, W, D), got shape {tuple(prediction.shape)}.")
    for name, (got, wanted) in expected.items():
        if got != wanted:
            raise ValueError(
                f"{name} has shape {got}, but a prediction of shape {tuple(prediction.shape)} asks for {wanted}."
            )
    if not all(size > 0 for size in spacing):
        raise ValueError(f"spacing must be three positive numbers of millimeters, got {tuple(spacing)}.")
