# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from monai_fewshot.metrics import MaskAgreement, compute_mask_agreement
from monai_fewshot.utils import IGNORED

__all__ = ["EpisodeScores"]


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
        self._batches: list[MaskAgreement] = []

    @property
    def counts(self) -> torch.Tensor:
        """See the class."""
        return torch.cat([torch.stack(batch[:3], dim=2) for batch in self._batches])

    @property
    def distances(self) -> torch.Tensor:
        """See the class."""
        return torch.cat([batch.hd95 for batch in self._batches])

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator that does not decollate.

        Args:
            engine: for example a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._compare)

    def _start(self, _engine: Engine) -> None:
        self._batches = []

    def _compare(self, engine: Engine) -> None:
        logits, label = (engine.state.output[key] for key in (CommonKeys.PRED, CommonKeys.LABEL))
        classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, 1, 1)
        predicted = (logits.argmax(1, keepdim=True) == classes) & (label != IGNORED)
        self._batches.append(compute_mask_agreement(predicted, label == classes, hd95=self.hd95))
