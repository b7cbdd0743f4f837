# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_fewshot.networks.blocks import class_masks, linear_resize, masked_average
from monai_fewshot.utils import num_processes, process_rank

__all__ = ["PrototypeContrastLoss"]


class PrototypeContrastLoss(_Loss):
    r"""Prototypes of a class shall be alike in all images of a batch, and unlike those of other classes.

    .. math::
        L = - \sum_n \sum_k \log \frac{\exp(v_k^n \cdot v_k^m / \tau)}
        {\exp(v_k^n \cdot v_k^m / \tau) + \sum_{j \neq k} \sum_{i \neq n} \exp(v_k^n \cdot v_j^i / \tau)}

    where :math:`v_k^n` averages the embedding of image n over the pixels predicted as class k, and m is one other image
    that shows the class, drawn at random. The predicted classes (argmax of the logits) become masks, brought to the
    embedding's size by linear interpolation, without antialiasing; a pixel belongs to every class whose mask is not 0
    there, so that the masks overlap by up to a pixel at their borders, and an object smaller than the step from one
    pixel of the embedding to the next may be lost.

    A class that an image does not show has no prototype there, one that no other image shows has no positive: neither
    counts, and no gradient comes from it. A prototype of zeros, as of units that are all off, has no direction and
    counts as absent. Where nothing counts the loss is 0, with a graph.

    In a process group the batch is that of all its processes, which give batches of one size: prototypes and draws are
    gathered, every process has the loss of the global batch, and so are the mean gradients. Generators of one state in
    all processes make the draws of a single one.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, equations 3 to 5,
    https://arxiv.org/abs/2204.01713.

    Deviation: prototypes are scaled to unit length, of which the paper says nothing. At a temperature of 0.07 the
    products of plain features run into the hundreds, where the softmax is that of one pair alone and its gradient
    vanishes or is as large as the features; products of unit vectors stay within 1 / 0.07 = 14. The default is the mean
    over the terms, not their sum, so that the weight of the loss depends neither on the size of the batch nor on the
    number of classes shown.

    Args:
        include_background: whether background (class 0) has prototypes too. Not by default: the paper speaks of
            organs, and the background of synthetic images is black here and any anatomy there, which no single
            prototype stands for. With a single class beside the background it is needed, for want of negatives.
        temperature: tau, positive.
        generator: of the draws; default torch's of the CPU, so that any device has the same ones.
        reduction: ``"mean"`` over classes and images that count, ``"sum"`` of them, or ``"none"``.

    Raises:
        ValueError: where the temperature is not positive.

    Example:
        >>> embedding = torch.eye(2).view(1, 2, 2, 1).repeat(3, 1, 1, 1)
        >>> logits = torch.cat([torch.full((3, 1, 2, 1), -9.0), embedding], dim=1)
        >>> PrototypeContrastLoss()(embedding, logits) < 1e-5
        tensor(True)
    """

    def __init__(
        self,
        include_background: bool = False,
        temperature: float = 0.07,
        generator: torch.Generator | None = None,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.include_background = include_background
        self.temperature = temperature
        self.generator = generator

    def forward(self, input: torch.Tensor, target: torch.Tensor, draw: torch.Tensor | None = None) -> torch.Tensor:
        """Compare the prototypes of a batch.

        Args:
            input: embedding, (B, C, *s). Computed in float32 under any autocast.
            target: logits, (B, N+1, *S), background first; only which is largest counts.
            draw: (B, N), or (B, N+1) with background, from 0 to below 1: at which part of the other images that show
                the class, in the order of the (global) batch, the positive is. Default: drawn anew.

        Returns:
            A scalar, or for ``reduction="none"`` (B, N), or (B, N+1) with background, 0 where nothing counts.

        Raises:
            ValueError: where the shapes do not fit, or there is only one class.
        """
        self._check(input, target)
        with torch.autocast(input.device.type, enabled=False):
            prototypes, shown = self._prototypes(input, target)
            if draw is None:
                draw = self._draw(shown)
            prototypes, shown, draw = _gathered(prototypes, shown, draw)
            loss, counted = self._contrast(prototypes, shown, draw)
        if self.reduction == LossReduction.NONE:
            return loss.unflatten(0, (num_processes(), -1))[process_rank()]
        return loss.sum() / counted.sum().clamp(min=1) if self.reduction == LossReduction.MEAN else loss.sum()

    def _check(self, embedding: torch.Tensor, logits: torch.Tensor) -> None:
        if embedding.shape[0] != logits.shape[0] or embedding.ndim != logits.ndim or embedding.ndim not in (4, 5):
            raise ValueError(
                f"An embedding {tuple(embedding.shape)} does not fit logits {tuple(logits.shape)}: give (B, C, *s) and "
                "(B, N+1, *S) with 2 or 3 spatial dimensions."
            )
        if logits.shape[1] - (not self.include_background) < 2:
            raise ValueError(
                f"Logits {tuple(logits.shape)} have {logits.shape[1]} channel(s), background among them, which leaves "
                "no two classes to tell apart: set include_background=True, or do without this loss."
            )

    def _prototypes(self, embedding: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit prototypes (B, N, C), and where there is one, (B, N)."""
        masks = class_masks(logits.argmax(1, keepdim=True), logits.shape[1] - 1)
        masks = masks if self.include_background else masks[:, 1:]
        features = embedding if embedding.dtype == torch.float64 else embedding.float()
        average = masked_average(features, (linear_resize(masks, features.shape[2:]) > 0).to(features.dtype))
        return F.normalize(average, dim=2), (average != 0).any(2)

    def _draw(self, shown: torch.Tensor) -> torch.Tensor:
        """Draw for the images of all processes, and give this one's (B, N)."""
        shape = (num_processes() * shown.shape[0], shown.shape[1])
        device = "cpu" if self.generator is None else self.generator.device
        return torch.rand(shape, generator=self.generator, device=device).chunk(num_processes())[process_rank()]

    def _contrast(
        self, prototypes: torch.Tensor, shown: torch.Tensor, draw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Terms of the loss, 0 where they do not count, and which count, (B, N) both."""
        batch, classes = shown.shape
        flat = prototypes.flatten(0, 1)
        similarity = (flat @ flat.T / self.temperature).view(batch, classes, batch, classes)
        other_image = ~torch.eye(batch, dtype=torch.bool, device=shown.device).view(batch, 1, batch)
        other_class = ~torch.eye(classes, dtype=torch.bool, device=shown.device).view(1, classes, 1, classes)
        chosen, counted = _positives(shown.T & other_image, shown, draw)
        positive = (similarity.diagonal(dim1=1, dim2=3).mT * chosen).sum(2, keepdim=True)
        negatives = similarity.masked_fill(~(other_class & other_image.unsqueeze(3) & shown), -torch.inf)
        loss = torch.cat([positive, negatives.flatten(2)], dim=2).logsumexp(2) - positive.squeeze(2)
        return loss * counted, counted


def _positives(candidates: torch.Tensor, shown: torch.Tensor, draw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mark the drawn one among the candidates (B, N, B), and the classes and images (B, N) that have one."""
    number = candidates.sum(2)
    place = (draw * number).long().clamp(min=0).minimum(number - 1)
    chosen = candidates & (candidates.cumsum(2) == place.unsqueeze(2) + 1)
    return chosen, shown & (number > 0)


def _gathered(
    prototypes: torch.Tensor, shown: torch.Tensor, draw: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prototypes, where there are, and draws of all processes, in one exchange."""
    draw = draw.to(prototypes, non_blocking=True)
    if num_processes() == 1:
        return prototypes, shown, draw
    packed = torch.cat([prototypes, shown.unsqueeze(2).to(prototypes), draw.unsqueeze(2)], dim=2)
    whole = _Gather.apply(packed)
    return whole[..., :-2], whole[..., -2] > 0, whole[..., -1]


class _Gather(torch.autograd.Function):
    """Concatenate the tensors of all processes; gradients come back from all of them.

    That of ``torch.distributed.nn`` is deprecated as of torch 2.13, and its successor is not public.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(num_processes())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(num_processes())[process_rank()]
