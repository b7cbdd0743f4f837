# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from monai.config import PathLike

from monai_fewshot.utils import load_network, read_checkpoint

__all__ = ["start_from"]

Network = TypeVar("Network", bound=torch.nn.Module)


def start_from(network: Network, checkpoint: PathLike | None, classes: Mapping[int, str]) -> Network:
    """Give a network the weights of a trained one, which may know fewer classes.

    Of layers whose first axis grows with the number of classes, the rows of the background and of the known classes are
    taken over, and those of new classes stay as they are.

    Args:
        network: of as many channels of logits, or multiples of it, as there are classes and one more, background first.
        checkpoint: ``model.pt`` of a training, of a network that is made alike; None leaves the network as it is.
        classes: name by number, in the order of the network's channels.

    Returns:
        The network.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the network is made otherwise, the checkpoint does not name its classes, or has one that is
            not among these.
    """
    if checkpoint is None:
        return network
    content = read_checkpoint(checkpoint)
    before = (content.get("settings") or {}).get("preparation", {}).get("classes")
    if not before:
        raise ValueError(f"{checkpoint} does not tell its classes: start from a model.pt that knows its classes.")
    if lost := [f"{number} {name}" for number, name in before.items() if number not in classes]:
        raise ValueError(
            f"{checkpoint} knows classes that are not learned now: {', '.join(lost)}. Name them in classes too, or "
            "train from the beginning."
        )
    if list(before) == list(classes):
        load_network(network, checkpoint)
        return network
    places = [0, *(1 + list(classes).index(number) for number in before)]
    weights, own = content["model"], network.state_dict()
    taken = {name: _grown(own[name], weights[name], len(classes) + 1, places) for name in own if name in weights}
    differing = sorted({*own, *weights} - {name for name, tensor in taken.items() if tensor is not None})
    if differing:
        raise ValueError(
            f"{checkpoint} is of another network: {len(differing)} tensors differ, such as "
            f"{', '.join(differing[:3])}. Start from a network that is made alike."
        )
    network.load_state_dict(taken)
    return network


def _grown(own: torch.Tensor, weight: torch.Tensor, num_logits: int, places: list[int]) -> torch.Tensor | None:
    """The weight, with rows for the classes that it has none for; None where it does not fit."""
    if own.shape == weight.shape:
        return weight
    is_grown = own.ndim == weight.ndim > 0 and own.shape[1:] == weight.shape[1:] and len(own) % num_logits == 0
    rows = len(own) // num_logits
    if not is_grown or len(weight) != rows * len(places):
        return None
    grown = own.detach().clone().unflatten(0, (num_logits, rows))
    grown[places] = weight.unflatten(0, (len(places), rows)).to(grown)
    return grown.flatten(0, 1)
