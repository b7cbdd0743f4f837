# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_hausdorff_distance
from monai.utils import CommonKeys

__all__ = ["EpisodeScores"]

IGNORED = 255


class EpisodeScores:
    """Counts, for every episode and class that an evaluator segments, what Dice and IoU are made of.

    The class of a pixel is that of its highest logit. Pixels labeled 255 do not count. A run starts anew.

    Args:
        hd95: whether the 95th percentile of the Hausdorff distance is computed too, in pixels.

    Attributes:
        counts: (E, N, 3) of the E episodes so far: pixels of the ground truth, of the prediction and of both.
        distances: (E, N), NaN where either is empty.
    """

    def __init__(self, hd95: bool = True) -> None:
        self.hd95 = hd95
        self._counts: list[torch.Tensor] = []
        self._distances: list[torch.Tensor] = []

    @property
    def counts(self) -> torch.Tensor:
        """See the class."""
        return torch.cat(self._counts)

    @property
    def distances(self) -> torch.Tensor:
        """See the class."""
        return torch.cat(self._distances)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator that does not decollate.

        Args:
            engine: for example a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)

    def _start(self, _engine: Engine) -> None:
        self._counts, self._distances = [], []

    def _count(self, engine: Engine) -> None:
        logits = engine.state.output[CommonKeys.PRED].as_subclass(torch.Tensor)
        label = engine.state.output[CommonKeys.LABEL].as_subclass(torch.Tensor)
        classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
        truth = label == classes
        predicted = (logits.argmax(1, keepdim=True) == classes) & (label != IGNORED)
        parts = (mask.sum((2, 3)) for mask in (truth, predicted, truth & predicted))
        self._counts.append(torch.stack(list(parts), dim=2).cpu())
        distances = torch.full(truth.shape[:2], torch.nan)
        if self.hd95:
            both = (truth.any(-1).any(-1) & predicted.any(-1).any(-1)).cpu()
            for episode, number in both.nonzero().tolist():
                masks = (mask[episode, number][None, None] for mask in (predicted, truth))
                distances[episode, number] = compute_hausdorff_distance(*masks, include_background=True, percentile=95)
        self._distances.append(distances)
