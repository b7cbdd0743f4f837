# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping

from ignite.engine import Engine, Events

from monai_fewshot.metrics import QUALITY_TABLE, PredictedQuality, QualityLine
from monai_fewshot.utils import EpisodeKeys

from .volume_scores import batch_items

__all__ = ["MaskQuality"]


class MaskQuality:
    """Writes how good each mask is expected to be, before anybody has looked at it, into a table.

    After each iteration ``evidence`` of a scan, (N,) in the order of the classes, becomes a predicted Dice with an
    interval: rows of ``quality.csv``.

    Args:
        table: the file.
        line: predicts Dice from the evidence.
        class_names: names of the classes by number, in the order of the evidence.
    """

    def __init__(self, table: str | os.PathLike[str], line: QualityLine, class_names: Mapping[int, str]) -> None:
        self.table = table
        self.line = line
        self.class_names = dict(class_names)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator; list this handler after the one that writes masks.

        Args:
            engine: for example a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        outputs, batch = engine.state.output, engine.state.batch
        rows = [
            PredictedQuality(str(item["name"]), number, name, *self.line(evidence), evidence)
            for output, item in zip(batch_items(outputs), batch_items(batch), strict=True)
            for (number, name), evidence in zip(
                self.class_names.items(), output[EpisodeKeys.EVIDENCE].tolist(), strict=True
            )
        ]
        QUALITY_TABLE.add(self.table, rows)
