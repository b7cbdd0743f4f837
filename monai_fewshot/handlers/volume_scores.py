# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor, decollate_batch
from monai.utils import CommonKeys, MetaKeys, convert_to_numpy

from monai_fewshot.data import IMAGE_AFFINE
from monai_fewshot.inferers import SegmentationProtocol, get_protocols
from monai_fewshot.metrics import ScanScore, compute_mask_agreement, summarize
from monai_fewshot.utils import EpisodeKeys, file_of, pixels_per_slice
from monai_fewshot.visualize import SliceCase, capture_case

__all__ = ["VolumeScores", "overall_metrics"]


class VolumeScores:
    """Scores each scan that an evaluator segments, under every protocol, and keeps what a report needs.

    After each iteration, class c of ``pred`` is ``pred[:, c] > 0``, on its own, and is scored in the slices that the
    protocol scores (:func:`monai_fewshot.metrics.compute_mask_agreement`). After the epoch ``engine.state.metrics``
    holds ``NAME_dice`` (0 to 1) and ``NAME_hd95`` of each protocol NAME, averaged over scans, then classes
    (:func:`monai_fewshot.metrics.summarize`), and how many values were undefined and left out as
    ``NAME_dice_undefined`` and ``NAME_hd95_undefined``, the Dice of the worst scan, ``NAME_dice_worst``, and how many
    values failed, ``NAME_failed``. List this handler before those that print or save metrics.

    The evaluator's ``pred`` is what :class:`monai_fewshot.inferers.FewShotVolumeInferer` gives: margins
    (B, N+1, H, W, D), or a dictionary of them by protocol name. It may be decollated (MONAI's default) or not.

    Voxel sizes come from the affine of ``label``. Where it is a plain tensor, or the affine of its file the identity,
    HD95 is in voxels; of 2D images (:class:`monai_fewshot.data.ImageAsVolumed`) it is in pixels. The scores name the
    unit. Scans are called by ``name`` in the batch, or else by the file of the image. A run starts anew. In a process
    group it knows the scans of its own process alone.

    Args:
        protocols: a protocol or its name, or several, as the inferer has them.
        class_names: what the label values 1..N stand for.
        fold: cross-validation fold that the scans are queries of.
        postprocessing: what becomes of the masks (N, H, W, D) of a scan, 0 and 1, before they are scored, given them
            the ``support_label`` of the batch, their affine and ``support_affine``, such as
            :class:`monai_fewshot.transforms.KeepSupportComponents`.
            None for nothing.

    Attributes:
        scores: one :class:`~monai_fewshot.metrics.ScanScore` a scan, class and protocol, so far.
        cases: one :class:`~monai_fewshot.visualize.SliceCase` a scan and class, so far.

    Example:
        >>> scores = VolumeScores(["alpnet", "whole_volume"], ["liver", "right kidney", "left kidney", "spleen"])
        >>> [protocol.name for protocol in scores.protocols]
        ['alpnet', 'whole_volume']
    """

    def __init__(
        self,
        protocols: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
        class_names: Sequence[str],
        fold: int = 0,
        postprocessing: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        self.protocols = get_protocols(protocols)
        self.class_names = tuple(class_names)
        self.fold = fold
        self.postprocessing = postprocessing
        self.scores: list[ScanScore] = []
        self.cases: list[SliceCase] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator.

        Args:
            engine: for example a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _start(self, _engine: Engine) -> None:
        self.scores, self.cases = [], []

    def _score(self, engine: Engine) -> None:
        outputs, batch = batch_items(engine.state.output), batch_items(engine.state.batch)
        for output, item in zip(outputs, batch, strict=True):
            image, label = output[CommonKeys.IMAGE], output[CommonKeys.LABEL]
            scan = str(item["name"]) if "name" in item else _file_name(image)
            affine = convert_to_numpy(label.affine) if isinstance(label, MetaTensor) else np.eye(4)
            of_support = [item.get(key) for key in (EpisodeKeys.SUPPORT_LABEL, EpisodeKeys.SUPPORT_AFFINE)]
            support = (of_support[0], torch.from_numpy(affine), of_support[1])
            masks = self._masks(scan, output[CommonKeys.PRED], support)
            self.scores += self._score_scan(scan, label, masks, np.linalg.norm(affine[:3, :3], axis=0).tolist())
            arrays = {name: convert_to_numpy(mask) for name, mask in masks.items()}
            self.cases += self._capture(scan, _as_picture(image), convert_to_numpy(label)[0], arrays, affine)

    def _masks(
        self, scan: str, margins: torch.Tensor | Mapping[str, torch.Tensor], support: Sequence[Any]
    ) -> dict[str, torch.Tensor]:
        names = [protocol.name for protocol in self.protocols]
        by_name = {names[0]: margins} if isinstance(margins, torch.Tensor) else margins
        channels = {name: len(tensor) for name, tensor in by_name.items()}
        if set(channels) != set(names) or set(channels.values()) != {len(self.class_names) + 1}:
            raise ValueError(
                f"The prediction for {scan} has these channels by protocol: {channels}. VolumeScores expects "
                f"{len(self.class_names) + 1} (background and {', '.join(self.class_names)}) for {names}: give it and "
                "the inferer the same protocols and classes."
            )
        masks = {name: by_name[name].as_subclass(torch.Tensor)[1:] > 0 for name in names}
        if self.postprocessing is None:
            return masks
        return {name: self.postprocessing(mask.float(), *support) > 0 for name, mask in masks.items()}

    def _score_scan(
        self, scan: str, label: torch.Tensor, masks: Mapping[str, torch.Tensor], spacing: Sequence[float]
    ) -> list[ScanScore]:
        pixels = pixels_per_slice(label, len(self.class_names))
        truth = label == torch.arange(1, len(pixels) + 1, device=label.device).view(-1, 1, 1, 1)
        rows = []
        for protocol in self.protocols:
            scored = torch.from_numpy(protocol.segmented_slices(pixels))
            agreement = compute_mask_agreement(masks[protocol.name][None], truth[None], scored[None], spacing)
            rows += [
                ScanScore(
                    fold=self.fold,
                    scan=scan,
                    class_number=c + 1,
                    class_name=name,
                    protocol=protocol.name,
                    dice=agreement.dice[0, c].item(),
                    hd95=agreement.hd95[0, c].item(),
                    hd95_unit=_distance_unit(label),
                    num_slices_scored=int(scored[c].sum()),
                    num_slices=scored.shape[1],
                    label_voxels=int(agreement.label_voxels[0, c]),
                    predicted_voxels=int(agreement.predicted_voxels[0, c]),
                )
                for c, name in enumerate(self.class_names)
            ]
        return rows

    def _capture(
        self, scan: str, image: np.ndarray, label: np.ndarray, masks: Mapping[str, np.ndarray], affine: np.ndarray
    ) -> list[SliceCase]:
        captured = (
            capture_case(self.fold, scan, name, image, label == c + 1, {k: m[c] for k, m in masks.items()}, affine)
            for c, name in enumerate(self.class_names)
        )
        return [case for case in captured if case is not None]

    def _report(self, engine: Engine) -> None:
        engine.state.metrics.update(overall_metrics(self.scores, self.protocols))


def overall_metrics(scores: Sequence[ScanScore], protocols: Sequence[SegmentationProtocol]) -> dict[str, float]:
    """Average scores over scans, then classes.

    Args:
        scores: of any scans.
        protocols: that they are of.

    Returns:
        Of each protocol NAME, as in :class:`VolumeScores`: ``NAME_dice``, ``NAME_hd95`` and their undefined counts,
        ``NAME_dice_worst`` of the worst scan, and ``NAME_failed``, the count of Dice below
        :data:`monai_fewshot.metrics.FAILED_DICE`.
    """
    reductions = {protocol.name: str(protocol.scan_reduction) for protocol in protocols}
    metrics: dict[str, float] = {}
    for row in summarize(scores, reductions):
        if row.fold is None and row.class_number is None:
            metrics[f"{row.protocol}_dice"] = row.dice
            metrics[f"{row.protocol}_hd95"] = row.hd95
            metrics[f"{row.protocol}_dice_undefined"] = row.undefined_dice
            metrics[f"{row.protocol}_hd95_undefined"] = row.undefined_hd95
            metrics[f"{row.protocol}_dice_worst"] = row.worst_dice
            metrics[f"{row.protocol}_failed"] = row.failed
    return metrics


def _distance_unit(label: torch.Tensor) -> str:
    """Name the unit of distances by the affine of a label, and of the file that it was read from and reoriented."""
    if not isinstance(label, MetaTensor):
        return "voxels"
    affines = [convert_to_numpy(label.affine), convert_to_numpy(label.meta.get(MetaKeys.ORIGINAL_AFFINE, label.affine))]
    if any(np.array_equal(affine, IMAGE_AFFINE) for affine in affines):
        return "pixels"
    return "voxels" if np.array_equal(affines[1], np.eye(4)) else "mm"


def _as_picture(image: torch.Tensor) -> np.ndarray:
    """Return an image (C, H, W, D) as (H, W, D, 3) where it is of colors, else its first channel (H, W, D)."""
    array = convert_to_numpy(image)
    return np.moveaxis(array, 0, -1) if len(array) == 3 else array[0]


def batch_items(batch: Any) -> list[dict[str, Any]]:
    """Return what an engine's batch or output holds, item by item, whether it is decollated already or not."""
    return batch if isinstance(batch, list) else decollate_batch(batch)


def _file_name(image: torch.Tensor) -> str:
    path = file_of(image, "")
    if not path:
        raise ValueError('A scan has neither a "name" in its batch nor an image that knows its file: give it a name.')
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")
