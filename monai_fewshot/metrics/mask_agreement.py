# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from monai.metrics import CumulativeIterationMetric, compute_hausdorff_distance
from monai.utils import convert_to_tensor

__all__ = ["MaskAgreement", "MaskAgreementMetric", "compute_mask_agreement"]


class MaskAgreement(NamedTuple):
    """How well predicted masks agree with the ground truth, on the CPU.

    Attributes:
        label_voxels: (B, N) voxels (or pixels) of the ground truth.
        predicted_voxels: (B, N) voxels predicted.
        common_voxels: (B, N) voxels in both.
        hd95: (B, N) 95th percentile of the Hausdorff distance, NaN where either mask is empty.
    """

    label_voxels: torch.Tensor
    predicted_voxels: torch.Tensor
    common_voxels: torch.Tensor
    hd95: torch.Tensor

    @property
    def dice(self) -> torch.Tensor:
        """``2 |P and G| / (|P| + |G|)``, 0 to 1; NaN where the ground truth G is empty, whatever was predicted."""
        dice = 2.0 * self.common_voxels / (self.label_voxels + self.predicted_voxels)
        return dice.where(self.label_voxels > 0, torch.nan)

    @property
    def iou(self) -> torch.Tensor:
        """``|P and G| / |P or G|``, 0 to 1; NaN where both are empty."""
        return self.common_voxels / (self.label_voxels + self.predicted_voxels - self.common_voxels)


def compute_mask_agreement(
    y_pred: torch.Tensor,
    y: torch.Tensor,
    scored_slices: torch.Tensor | None = None,
    spacing: Sequence[float] | None = None,
    hd95: bool = True,
) -> MaskAgreement:
    """Compare masks by overlap and distance, class by class, in the slices that count.

    Both masks are cleared outside the scored slices, slices keep their places, and what is left is scored as one
    volume: true and false positives are pooled over slices. A structure cut off at the last scored slice ends there
    in both masks.

    Dice is that of ``monai.metrics.compute_dice``. HD95 is ``monai.metrics.compute_hausdorff_distance``: surface voxels
    are those with a face neighbor outside the mask (or the volume), every one counts the same, distances run between
    voxel centers, the percentile is interpolated linearly in each direction and the larger direction counts.
    (DeepMind's surface-distance weights surface elements by area instead, and differs.) There is no distance to or
    from an empty mask. So HD95 does not punish a method that finds nothing: report the count of undefined values with
    it.

    MONAI crops the masks to their joint bounding box itself: four organs in 256 x 256 x 36 take 0.35 s on one core,
    1.7 s with 2 % of all voxels wrong.

    Args:
        y_pred: (B, N, *S) bool or 0/1, one channel a class.
        y: (B, N, *S) the ground truth likewise.
        scored_slices: (B, N, D) bool, slices along the last axis that count for each class. Defaults to None, all.
        spacing: voxel size along each axis in mm, for distances in mm. Defaults to None, distances in voxels.
        hd95: whether distances are computed; else they are NaN.

    Returns:
        Numbers of voxels and distances.

    Raises:
        ValueError: where shapes do not fit together, or a voxel size is not positive.

    Example:
        >>> y = torch.zeros(1, 1, 8, 8, 4, dtype=torch.bool)
        >>> y[..., 2:6, 2:6, 1:3] = True
        >>> agreement = compute_mask_agreement(y, y, spacing=(1.25, 1.25, 7.7))
        >>> agreement.dice.item(), agreement.hd95.item()
        (1.0, 0.0)
    """
    _check(y_pred, y, scored_slices, spacing)
    predicted, truth = (convert_to_tensor(mask, device="cpu", track_meta=False).bool() for mask in (y_pred, y))
    if scored_slices is not None:
        scored = convert_to_tensor(scored_slices, device="cpu", track_meta=False).bool()
        scored = scored.unflatten(1, (-1, *[1] * (y.ndim - 3)))
        predicted, truth = predicted & scored, truth & scored
    axes = tuple(range(2, y.ndim))
    counts = [mask.sum(axes) for mask in (truth, predicted, truth & predicted)]
    distances = torch.full(counts[0].shape, torch.nan)
    for item, number in ((counts[0] > 0) & (counts[1] > 0)).nonzero().tolist() if hd95 else ():
        masks = (mask[item, number][None, None] for mask in (predicted, truth))
        mm = spacing and tuple(map(float, spacing))
        distance = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=mm)
        distances[item, number] = distance
    return MaskAgreement._make([*counts, distances])


class MaskAgreementMetric(CumulativeIterationMetric):
    """Overlap and distance of masks over a data set, see :func:`compute_mask_agreement`.

    :meth:`aggregate` pools the voxels of a class over all items, as the few-shot literature does for its mean IoU. The
    values of each item are in ``get_buffer``, in the order of :class:`MaskAgreement`.

    Args:
        hd95: whether distances are computed; else they are NaN.

    Example:
        >>> metric = MaskAgreementMetric(hd95=False)
        >>> y = torch.ones(2, 1, 4, 4)
        >>> y_pred = torch.ones(2, 1, 4, 4)
        >>> y_pred[0, :, 2:] = 0
        >>> _ = metric(y_pred, y)
        >>> metric.aggregate().iou
        tensor([0.7500])
    """

    def __init__(self, hd95: bool = True) -> None:
        super().__init__()
        self.hd95 = hd95

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> MaskAgreement:
        assert y is not None
        return compute_mask_agreement(y_pred, y, hd95=self.hd95, **kwargs)

    def aggregate(self) -> MaskAgreement:
        """Pool voxels over all items, and average the distances that are defined; each has the shape (N,)."""
        *counts, distances = self.get_buffer()
        return MaskAgreement._make([*(count.sum(0) for count in counts), distances.nanmean(0)])


def _check(
    y_pred: torch.Tensor, y: torch.Tensor, scored_slices: torch.Tensor | None, spacing: Sequence[float] | None
) -> None:
    if y_pred.ndim < 4:
        raise ValueError(f"y_pred must be (B, N, H, W) or (B, N, H, W, D), got shape {tuple(y_pred.shape)}.")
    slices = (*y_pred.shape[:2], y_pred.shape[-1])
    expected = {
        "y": (tuple(y.shape), tuple(y_pred.shape)),
        "scored_slices": (slices if scored_slices is None else tuple(scored_slices.shape), slices),
        "spacing": (y_pred.ndim - 2 if spacing is None else len(spacing), y_pred.ndim - 2),
    }
    for name, (got, wanted) in expected.items():
        if got != wanted:
            raise ValueError(
                f"{name} has shape {got}, but a prediction of shape {tuple(y_pred.shape)} asks for {wanted}."
            )
    if spacing is not None and not all(size > 0 for size in spacing):
        raise ValueError(f"spacing must be positive numbers of millimeters, got {tuple(spacing)}.")
