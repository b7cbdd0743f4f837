# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.config import PathLike

from monai_fewshot.utils import load_network

__all__ = ["NetworkLoader"]


class NetworkLoader:
    """Load the weights of a trained network when an engine starts, or say why they do not fit.

    Args:
        network: the network.
        path: see :func:`monai_fewshot.utils.load_network`.
    """

    def __init__(self, network: torch.nn.Module, path: PathLike) -> None:
        self.network = network
        self.path = path

    def attach(self, engine: Engine) -> None:
        """Register with an engine.

        Args:
            engine: the engine.
        """
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, _engine: Engine) -> None:
        """Load."""
        load_network(self.network, self.path)
