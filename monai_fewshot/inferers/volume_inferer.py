# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import cycle
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import convert_to_dst_type

from monai_fewshot.utils import autocast

from .protocol import SegmentationProtocol, get_protocols
from .support_encoding import SupportScan
from .volume_checks import SupportReader, check_query, check_query_label

__all__ = ["QueryScan", "VolumeInferer", "check_margins", "margin_spread", "winning_margins"]


class QueryScan(NamedTuple):
    """A scan to segment: ``image`` (C, H, W, D), ``affine`` (4, 4) in mm, ``label`` (1, H, W, D) where it is known."""

    image: torch.Tensor
    affine: np.ndarray
    label: torch.Tensor | None


class VolumeInferer(Inferer, ABC):
    """Segments query volumes under protocols, with annotated support volumes as the example.

    What all inferers of volumes share: the protocols, the checks of what they are given, the size and the batches in
    which slices go through a network, and what a result is. Channel 0 of a result is 0. Channel c is the margin of
    class c, above 0 where the class is found: ``result[:, c] > 0`` is class c alone, ``result.argmax(1)`` a label map
    of all classes. Margins are scores and no probabilities, unless the inferer has ``log_odds``. Sub-classes implement
    :meth:`segment`.

    Args:
        protocol: a protocol or its name in :data:`~monai_fewshot.inferers.PROTOCOLS`, or several; then the result is
            a dictionary from the protocols' names to what each gives.
        num_classes: number of classes N in the labels. Default: the highest value in the support's labels.
        image_size: height and width in pixels at which the network works. Images are resized by bilinear
            interpolation (smoothed where they shrink). Default: the query's size.
        batch_size: number of slices that go through the network at once.
        dtype: of the network's convolutions and matrix products, as in
            :class:`~monai_fewshot.inferers.AutocastInferer`; margins are float32.

    Attributes:
        needs_support: whether a support is read and checked.
        log_odds: whether the margin of a class is the logarithm of its probability over that of its strongest rival.
            ``result[:, c].sigmoid()`` is then the probability of class c, were there only the two, and
            :func:`margin_spread` tells how undecided a voxel is.

    Raises:
        ValueError: where an argument is out of its range or two protocols have the same name.
    """

    needs_support: ClassVar[bool] = True
    log_odds: ClassVar[bool] = False

    def __init__(
        self,
        protocol: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
        num_classes: int | None = None,
        image_size: Sequence[int] | None = None,
        batch_size: int = 16,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.protocols = get_protocols(protocol)
        self.single = isinstance(protocol, (SegmentationProtocol, str))
        if (num_classes is not None and num_classes < 1) or batch_size < 1:
            raise ValueError(f"num_classes and batch_size must be 1 or more, got {num_classes} and {batch_size}.")
        if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
            raise ValueError(f"image_size must be a height and a width of 1 or more, or None, got {image_size!r}.")
        self.num_classes = num_classes
        self.image_size = None if image_size is None else (int(image_size[0]), int(image_size[1]))
        self.batch_size = batch_size
        self.dtype = dtype
        self._read_support = SupportReader(self.protocols)

    @abstractmethod
    def segment(self, query: QueryScan, network: Any, scans: Sequence[SupportScan]) -> Sequence[torch.Tensor]:
        """Segment one volume.

        Args:
            query: the query.
            network: the network.
            scans: the support; empty where none is needed.

        Returns:
            Margins (N+1, H, W, D) of each protocol, or a single one for all.
        """

    def segment_labels(self, query: QueryScan, network: Any, scans: Sequence[SupportScan]) -> Sequence[torch.Tensor]:
        """Segment one volume whose margins nobody needs; an inferer that can makes do without all of them in memory.

        Args:
            query: the query.
            network: the network.
            scans: the support; empty where none is needed.

        Returns:
            Label maps (1, H, W, D) of each protocol, or a single one for all.
        """
        margins = self.segment(query, network, scans)
        for part in margins:
            check_margins(part)
        return [part.argmax(0, keepdim=True).to(part.dtype) for part in margins]

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Any,
        support_image: torch.Tensor | Sequence[torch.Tensor] = (),
        support_label: torch.Tensor | Sequence[torch.Tensor] = (),
        label: torch.Tensor | None = None,
        support_affine: torch.Tensor | None = None,
        labels_only: bool = False,
    ) -> Any:
        """Segment query volumes.

        Args:
            inputs: query images (B, C, H, W, D), slices along the last axis. Their affine says where slices lie, in mm;
                those of a plain tensor are 1 mm apart.
            network: see the inferer.
            support_image: (B or 1, K, C, H, W, D), or a list of K images (C, H, W, D) or (B or 1, C, H, W, D) where
                the support scans differ in size.
            support_label: the same with one channel: 0 background, 1..N the classes.
            label: the query's ground truth (B, 1, H, W, D), for protocols that need it.
            support_affine: (B or 1, K, 4, 4), from array indices to mm. Default: each query's own.
            labels_only: whether label maps (B, 1, H, W, D) are wanted in place of margins, which are ``argmax(1)`` of
                them and may take far less memory.

        Returns:
            Margins (B, N+1, H, W, D), or label maps, float32, of the type of ``inputs`` and with its affine; for
            several protocols a dictionary of them.

        Raises:
            ValueError: where shapes do not fit together, a label has values beyond the classes, a class is absent from
                the support, an image holds NaN or infinite values, or the network gives NaN.
        """
        check_query(inputs)
        check_query_label(label, inputs)
        batch = len(inputs)
        affines = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        affines = affines.reshape(-1, 4, 4).expand(batch, 4, 4).cpu().numpy()
        truths = [None] * batch if label is None else list(label.as_subclass(torch.Tensor))
        results = []
        for index, volume in enumerate(inputs.as_subclass(torch.Tensor).float()):
            query = QueryScan(volume, affines[index], truths[index])
            support = (support_image, support_label, support_affine, self.num_classes)
            scans = self._read_support(*support, index, batch, volume) if self.needs_support else []
            with autocast(inputs.device, self.dtype):
                results.append((self.segment_labels if labels_only else self.segment)(query, network, scans))
        margins = [torch.stack(parts) for parts in zip(*results, strict=True)]
        for part in margins:
            check_margins(part)
        converted = [convert_to_dst_type(part, inputs, dtype=torch.float32)[0] for part in margins]
        named = {protocol.name: part for protocol, part in zip(self.protocols, cycle(converted), strict=False)}
        return converted[0] if self.single else named


def check_margins(margins: torch.Tensor) -> None:
    """Raise a ValueError where margins are no numbers."""
    if margins.isnan().any():
        raise ValueError(
            "The network gives values that are no numbers: its weights, or those adapted to the support, have "
            "diverged. Take another checkpoint, or a lower learning rate, or dtype float32."
        )


def winning_margins(logits: torch.Tensor) -> torch.Tensor:
    """Subtract from each logit (S, N+1, ...) the highest of the others; 0 for the background."""
    highest, second = logits.topk(2, dim=1).values.unbind(1)
    margins = torch.where(logits == highest[:, None], (highest - second)[:, None], logits - highest[:, None])
    margins[:, 0] = 0
    return margins


def margin_spread(margins: torch.Tensor) -> torch.Tensor:
    r"""Tell how undecided each voxel is between its two most probable classes.

    .. math:: \frac{p_2}{p_1 + p_2} = \mathrm{sigmoid}\left(-\left|\max_{c \geq 1} m_c\right|\right)

    The highest margin m of a foreground class is log p1 - log p2 where that class is found, and log p2 - log p1 in the
    background. These are the probabilities of the network, which may be surer than it is right.

    Args:
        margins: (N+1, *S) of one volume, from an inferer with ``log_odds``.

    Returns:
        (1, *S), from 0, sure, to 0.5, undecided.

    Example:
        >>> margin_spread(torch.tensor([0.0, -3.0, 0.0])[:, None]).item()
        0.5
    """
    return torch.sigmoid(-margins[1:].amax(0, keepdim=True).abs())
