# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from .nets.feature_encoder import FeatureEncoder

__all__ = ["prepare_network"]

Network = TypeVar("Network", bound=nn.Module)


def prepare_network(
    network: Network,
    device: torch.device | str,
    channels_last: bool | None = None,
    compile: bool | None = None,
    checkpointing: bool = False,
) -> Network:
    """Make a network ready for training on a device, in place; the names of its weights stay what they are.

    Args:
        network: a 2D network.
        device: where to.
        channels_last: whether convolutions work with the channels innermost, as the matrix units of GPUs do. Default:
            on a GPU.
        compile: whether ``forward`` is compiled as one graph at its first call, which takes a minute or two. Default:
            on a GPU; on a CPU it gained a tenth and takes a C++ compiler.
        checkpointing: whether encoders compute activations again instead of keeping them, for cards of little memory
            (:class:`~monai_fewshot.networks.nets.FeatureEncoder`).

    Returns:
        The network.

    Raises:
        ValueError: where activations shall be checkpointed in a network without a ``FeatureEncoder``.
    """
    on_gpu = torch.device(device).type == "cuda"
    network.to(device)
    if on_gpu if channels_last is None else channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    encoders = [module for module in network.modules() if isinstance(module, FeatureEncoder)]
    if checkpointing and not encoders:
        raise ValueError(f"{type(network).__name__} has no FeatureEncoder whose activations could be checkpointed.")
    for encoder in encoders:
        encoder.checkpointing = checkpointing
    if on_gpu if compile is None else compile:
        network.compile(fullgraph=True)
    return network
