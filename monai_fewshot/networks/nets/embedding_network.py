# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import nn

from monai_fewshot.networks.blocks import TrainingOutput

__all__ = ["EmbeddingNetwork"]


class EmbeddingNetwork(nn.Module):
    """A segmentation network that gives the output of one of its layers too, for losses on embeddings.

    In training :meth:`forward` returns logits and embedding by name, in evaluation the logits alone, so that inferers
    and metrics take it as any other network. The weights keep their names under ``network.``.

    Args:
        network: from images (B, C, *S) to logits (B, N+1, *S); where it returns several outputs, as in deep
            supervision, the first one counts.
        layer: name of the layer, as ``network.named_modules()`` has it; its output is (B, E, *s).

    Raises:
        ValueError: where there is no such layer.

    Example:
        >>> from monai.networks.nets import BasicUNet
        >>> network = EmbeddingNetwork(BasicUNet(2, 1, 4, features=(4, 4, 8, 8, 16, 4)), "down_4")
        >>> output = network(torch.rand(2, 1, 32, 32))
        >>> output.logits.shape, output.embedding.shape
        (torch.Size([2, 4, 32, 32]), torch.Size([2, 16, 2, 2]))
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        names = dict(network.named_modules())
        if layer not in names or not layer:
            known = ", ".join(name for name in names if name and name.count(".") <= layer.count("."))
            raise ValueError(f"{type(network).__name__} has no layer {layer!r}; it has {known}.")
        self.network = network
        self.layer = layer
        self._found: list[torch.Tensor] = []
        names[layer].register_forward_hook(self._keep)

    def forward(self, image: torch.Tensor) -> torch.Tensor | TrainingOutput:
        """Segment images.

        Args:
            image: (B, C, *S).

        Returns:
            Logits (B, N+1, *S); in training with the embedding (B, E, *s).
        """
        logits = _first(self.network(image))
        return TrainingOutput(logits, embedding=self._found.pop()) if self.training else logits

    def _keep(self, _module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        if self.training:
            self._found = [_first(output)]


def _first(output: torch.Tensor | list[torch.Tensor] | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]
