# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping

import torch

from monai_fewshot.metrics import PredictedQuality, QualityLine

__all__ = ["MaskQuality"]


class MaskQuality:
    """Tells how good each class of a mask is expected to be, before anybody has looked at it.

    Args:
        line: predicts Dice from the evidence.
        class_names: names of the classes by number, in the order of the evidence.
    """

    def __init__(self, line: QualityLine, class_names: Mapping[int, str]) -> None:
        self.line = line
        self.class_names = dict(class_names)

    def __call__(self, scan: str, evidence: torch.Tensor) -> list[PredictedQuality]:
        """Turn evidence into rows of ``quality.csv``.

        Args:
            scan: its name.
            evidence: (N,), in the order of the classes.

        Returns:
            A predicted Dice with an interval for each class.
        """
        return [
            PredictedQuality(scan, number, name, *self.line(value), value)
            for (number, name), value in zip(self.class_names.items(), evidence.tolist(), strict=True)
        ]
