# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fewshot.utils import compiler_error, num_processes

from .encoders.feature_encoder import FeatureEncoder

__all__ = ["average_gradients", "prepare_network"]

Network = TypeVar("Network", bound=nn.Module)

logger = logging.getLogger(__name__)
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def prepare_network(
    network: Network,
    device: torch.device | str,
    channels_last: bool | None = None,
    compile: bool | None = None,
    checkpointing: bool = False,
) -> Network:
    """Make a network ready for training on a device, in place; the names of its weights stay what they are.

    Args:
        network: the network.
        device: where to.
        channels_last: whether convolutions work with the channels innermost, as the matrix units of GPUs do. Default:
            on a GPU, for 2D networks.
        compile: whether ``forward`` is compiled at its first call, which takes a minute or two: as one graph, or, where
            processes synchronize their batch normalization, in the parts between. Default: on a GPU, where
            ``torch.compile`` works and nothing is synchronized; on a CPU it gained a tenth and takes a C++ compiler.
        checkpointing: whether encoders compute activations again instead of keeping them, for cards of little memory
            (:class:`~monai_fewshot.networks.encoders.FeatureEncoder`).

    Returns:
        The network.

    Raises:
        ValueError: where activations shall be checkpointed in a network without a ``FeatureEncoder``.
    """
    place = torch.device(device)
    on_gpu = place.type == "cuda"
    network.to(place)
    is_3d = any(parameter.ndim == 5 for parameter in network.parameters())
    if on_gpu and not is_3d if channels_last is None else channels_last:
        for parameter in network.parameters():
            if parameter.ndim in CHANNELS_LAST:
                parameter.data = parameter.data.to(memory_format=CHANNELS_LAST[parameter.ndim])
    encoders = [module for module in network.modules() if isinstance(module, FeatureEncoder)]
    if checkpointing and not encoders:
        raise ValueError(f"{type(network).__name__} has no FeatureEncoder whose activations could be checkpointed.")
    for encoder in encoders:
        encoder.checkpointing = checkpointing
    synchronized = any(isinstance(module, nn.SyncBatchNorm) for module in network.modules())
    if on_gpu and not synchronized and _can_compile(place) if compile is None else compile:
        network.compile(fullgraph=not synchronized)
    return network


def average_gradients(network: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network so that a process group averages its gradients; outside of one, return it as it is.

    Args:
        network: on its device.
        device: of this process.
    """
    if num_processes() == 1:
        return network
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def _can_compile(device: torch.device) -> bool:
    error = compiler_error(device)
    if error:
        logger.warning("The network is not compiled, which makes training slower: %s", error)
    return error is None
