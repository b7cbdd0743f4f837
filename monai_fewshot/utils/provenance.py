# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import monai
import numpy as np
import torch

import monai_fewshot

__all__ = ["Provenance"]


class Provenance:
    """What made a checkpoint or a result: settings, versions, date and data, as plain text and numbers.

    It goes into checkpoints, through ``save_dict`` of ``monai.handlers.CheckpointSaver``, and into result files.

    Args:
        data: fingerprint of the data, as :func:`monai_fewshot.data.fingerprint_scans` gives it.
        settings: seed, fold, sizes and whatever else tells this run from others.
    """

    def __init__(self, data: str, **settings: Any) -> None:
        self.settings = {key: _plain(value) for key, value in settings.items()}
        self.data = data
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def state_dict(self) -> dict[str, Any]:
        """Everything as a dictionary that JSON and ``torch.load(weights_only=True)`` can hold."""
        return {
            "settings": self.settings,
            "data": self.data,
            "started": self.started,
            "versions": {
                "monai_fewshot": monai_fewshot.__version__,
                "monai": monai.__version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
