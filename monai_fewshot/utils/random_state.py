# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

__all__ = ["RandomState"]


class RandomState:
    """The global random generators of Python, numpy and torch, as one object that a checkpoint can hold.

    Put it into the ``save_dict`` of ``monai.handlers.CheckpointSaver`` and the ``load_dict`` of
    ``monai.handlers.CheckpointLoader``: a resumed training then draws on where the interrupted one stopped. The state
    is made of tensors and plain numbers, so that it loads with ``weights_only=True``.
    """

    def state_dict(self) -> dict[str, Any]:
        """Read the state of all generators."""
        name, keys, *rest = np.random.get_state()  # noqa: NPY002
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the state of all generators; those of GPUs where as many are there as were saved."""
        version, internal, gauss = state_dict["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, *rest = state_dict["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"].cpu())
        if state_dict["cuda"] and len(state_dict["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in state_dict["cuda"]])
