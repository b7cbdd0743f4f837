# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import torch

from monai_fewshot.utils import pixels_per_slice

from .protocol import SegmentationProtocol
from .support_encoding import SupportScan

__all__ = ["SupportReader", "check_query", "check_query_label"]


def check_query(inputs: torch.Tensor) -> None:
    """Raise a ValueError unless the query images are (B, C, H, W, D) and finite."""
    if inputs.ndim != 5 or 0 in inputs.shape:
        raise ValueError(
            f"inputs must be (B, C, H, W, D) with slices along the last axis, got shape {tuple(inputs.shape)}. "
            "Give a single slice as D = 1, and the frames of a time series one by one."
        )
    _check_finite("inputs", inputs)


def check_query_label(label: torch.Tensor | None, inputs: torch.Tensor) -> None:
    """Raise a ValueError where the query's ground truth has another shape than the image."""
    expected = (inputs.shape[0], 1, *inputs.shape[2:])
    if label is not None and tuple(label.shape) != expected:
        raise ValueError(
            f"label has shape {tuple(label.shape)}, but inputs of shape {tuple(inputs.shape)} ask for {expected}. "
            "Resample the label to its image."
        )


class SupportReader:
    """Takes the support scans of a query out of what an inferer was given, and checks them.

    As long as images and labels keep their values, the same list is returned and nothing is checked again; a copy is
    kept for that comparison, which waits for the device once.

    Args:
        protocols: each must find support slices of every class.
    """

    def __init__(self, protocols: Sequence[SegmentationProtocol]) -> None:
        self.protocols = protocols
        self._given: list[torch.Tensor] = []
        self._scans: list[SupportScan] = []

    def __call__(
        self,
        image: torch.Tensor | Sequence[torch.Tensor],
        label: torch.Tensor | Sequence[torch.Tensor],
        affine: torch.Tensor | None,
        num_classes: int | None,
        index: int,
        batch: int,
        query: torch.Tensor,
    ) -> list[SupportScan]:
        """Read the support of one query.

        Args:
            image: (B or 1, K, C, H, W, D) or K of (C, H, W, D) or (B or 1, C, H, W, D).
            label: the same with one channel.
            affine: (B or 1, K, 4, 4) in mm, or None.
            num_classes: number of classes N; None for the highest value of the labels of all queries.
            index: number of the query in its batch.
            batch: number of queries B.
            query: the query image (C, H, W, D), for its channels and device.

        Returns:
            K scans.

        Raises:
            ValueError: where images and labels do not fit together or to the query, an image is not finite, a label has
                values beyond the classes, or a protocol finds no support slice of a class.
        """
        images = _scans_of("support_image", image, index, batch)
        labels = _scans_of("support_label", label, index, batch)
        if len(images) != len(labels) or not images:
            raise ValueError(
                f"support_image holds {len(images)} scans, support_label {len(labels)}: give one label each."
            )
        places = _places_of(affine, index, batch, len(images))
        given = [*images, *labels, *(place.to(images[0].device) for place in places if place is not None)]
        classes = max(int(item.max()) for item in label) if num_classes is None else num_classes
        known = [(scan.image.device, scan.image.shape[0], len(scan.pixels)) for scan in self._scans[:1]]
        if known != [(query.device, query.shape[0], classes)] or not _equal(given, self._given):
            numbered = enumerate(zip(images, labels, places, strict=True))
            scans = [_as_scan(number, *scan, classes, query) for number, scan in numbered]
            _check_scans(scans, self.protocols)
            self._given, self._scans = [tensor.clone() for tensor in given], scans
        return self._scans


def _equal(new: Sequence[torch.Tensor], old: Sequence[torch.Tensor]) -> bool:
    """Compare lists of tensors, waiting for the device once."""
    kinds, others = ([(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors] for tensors in (new, old))
    return kinds == others and bool(torch.stack([(a == b).all() for a, b in zip(new, old, strict=True)]).all())


def _check_scans(scans: Sequence[SupportScan], protocols: Sequence[SegmentationProtocol]) -> None:
    """Raise a ValueError where no support scan holds a class as a protocol asks for."""
    if not len(scans[0].pixels):
        raise ValueError("support_label holds no class above 0: annotate the structures to segment.")
    for protocol in protocols:
        held = torch.stack([torch.from_numpy((s.pixels >= protocol.min_pixels).any(1)) for s in scans]).any(0)
        absent = (torch.nonzero(~held).flatten() + 1).tolist()
        if absent:
            raise ValueError(
                f"support_label: no slice of the {len(scans)} support scan(s) holds {protocol.min_pixels} or more "
                f"pixels of class(es) {absent}, as protocol {protocol.name} asks for. Choose a support scan that shows "
                "them, or leave these classes out of the labels and of num_classes."
            )


def _scans_of(name: str, given: torch.Tensor | Sequence[torch.Tensor], index: int, batch: int) -> list[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        if given.ndim != 6 or given.shape[0] not in (1, batch):
            raise ValueError(
                f"{name} must be (B or 1, K, C, H, W, D) beside {batch} queries, or a list of K scans (C, H, W, D), "
                f"got shape {tuple(given.shape)}."
            )
        return list(given.as_subclass(torch.Tensor)[index if given.shape[0] > 1 else 0])
    scans = []
    for number, scan in enumerate(tensor.as_subclass(torch.Tensor) for tensor in given):
        if scan.ndim not in (4, 5) or (scan.ndim == 5 and scan.shape[0] not in (1, batch)):
            raise ValueError(
                f"{name}[{number}] must be (C, H, W, D), or (B or 1, C, H, W, D) beside {batch} queries, "
                f"got shape {tuple(scan.shape)}."
            )
        scans.append(scan if scan.ndim == 4 else scan[index if scan.shape[0] > 1 else 0])
    return scans


def _places_of(
    affine: torch.Tensor | None, index: int, batch: int, number: int
) -> Sequence[torch.Tensor] | Sequence[None]:
    if affine is None:
        return [None] * number
    if affine.shape[0] not in (1, batch) or affine.shape[1:] != (number, 4, 4):
        raise ValueError(
            f"support_affine must be (B or 1, K, 4, 4) beside {batch} queries and {number} support scans, got shape "
            f"{tuple(affine.shape)}."
        )
    return list(affine.as_subclass(torch.Tensor)[index if len(affine) > 1 else 0])


def _as_scan(
    number: int,
    image: torch.Tensor,
    label: torch.Tensor,
    affine: torch.Tensor | None,
    num_classes: int,
    query: torch.Tensor,
) -> SupportScan:
    if tuple(label.shape) != (1, *image.shape[1:]):
        raise ValueError(
            f"support_label of scan {number} has shape {tuple(label.shape)}, its support_image {tuple(image.shape)}: "
            f"expected {(1, *image.shape[1:])}. Resample the label to its image."
        )
    if image.shape[0] != query.shape[0]:
        raise ValueError(
            f"support_image of scan {number} has {image.shape[0]} channels, the query {query.shape[0]}: prepare both "
            "with the same transforms."
        )
    _check_finite(f"support_image of scan {number}", image)
    try:
        pixels = pixels_per_slice(label, num_classes)
    except ValueError as error:
        raise ValueError(f"support_label of scan {number}: {error}") from error
    place = None if affine is None else affine.cpu().numpy()
    return SupportScan(image.to(query.device).float(), label[0].to(query.device).long(), pixels, place)


def _check_finite(name: str, image: torch.Tensor) -> None:
    bad = ~torch.isfinite(image.as_subclass(torch.Tensor))
    if bad.any():
        places = torch.nonzero(bad)
        raise ValueError(
            f"{name} holds {len(places)} NaN or infinite values, the first at {tuple(places[0].tolist())}. "
            "Replace them, for example by the image's lowest value, before inference."
        )
