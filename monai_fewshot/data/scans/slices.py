# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.data import Dataset
from monai.utils import convert_to_tensor

from monai_fewshot.utils import IGNORED, device_tensor, resize_slices

from .class_numbers import slices_with_classes
from .scan_reading import prepare_scans, read_scans

__all__ = ["SliceStack", "training_stacks"]

DEVICE_SHARE = 0.5
"""Part of a device's free memory that slices may fill; the rest is for the network."""
IMAGE_TOLERANCE = 0.01
"""Largest rounding of an intensity, in standard deviations of its image."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceStack:
    """Slices of several volumes, or images, in three tensors, for episodes to be drawn from.

    The tensors lie in the memory of the device that episodes are made on, or, where it has no room for them, in pinned
    memory of the host, from where the slices of a batch are copied.

    Attributes:
        image: (S, C, H, W), floating point, or uint8 for colors that :meth:`take` brings to 0..1.
        label: (S, 1, H, W), integers: pseudo-labels or labels.
        scan: (S,), the number of the scan that a slice is of.
        device: where episodes are made; None for where the slices lie.
    """

    image: torch.Tensor
    label: torch.Tensor
    scan: torch.Tensor
    device: torch.device | None = None

    @classmethod
    def from_scans(
        cls,
        scans: Sequence[Mapping[Hashable, Any]],
        label_key: str | None = "pseudo_label",
        image_size: Sequence[int] | None = None,
        exclude_classes: Sequence[int] = (),
        device: torch.device | str = "cpu",
        transform: Callable[[Any], Mapping[Hashable, torch.Tensor]] | None = None,
    ) -> SliceStack:
        """Cut volumes into slices along their last axis, and keep them in small types on a device.

        Images are kept in half precision, if that changes no intensity by more than a hundredth of the standard
        deviation of its volume, and as bytes where they are bytes; labels in the smallest type that holds them. The
        memory taken is logged.

        Args:
            scans: the scans; several are read at a time (:func:`~monai_fewshot.data.read_scans`). In a process group
                each process first makes the pseudo-labels of its share, for what caches them.
            label_key: key of the label, 255 where a scan has none; None where images alone matter, labels are then 0.
            image_size: in-plane size to which slices are brought, images with antialiased bilinear interpolation and
                labels by the nearest neighbor; None keeps their own, which must then be the same for all.
            exclude_classes: numbers of tested classes; slices that hold any of them, by the scan's ``label``, are
                left out (the field's setting 2). Empty for setting 1.
            device: where episodes shall be made, and slices lie unless they would take more than half of the free
                memory there.
            transform: makes of a scan a dictionary with ``image`` (C, H, W, D) and a label (1, H, W, D). A 2D image
                (C, H, W) is one slice. None where the scans are such dictionaries.

        Raises:
            ValueError: where no slice is left, or slices differ in channels or size, or only some are of bytes.
        """
        images, labels, numbers = [], [], []
        if transform is not None:
            scans = Dataset(scans, transform)
        if label_key == "pseudo_label":
            prepare_scans(scans)
        for number, scan in enumerate(read_scans(scans)):
            image = _slices(scan["image"])
            if label_key in scan:
                label = _slices(scan[label_key])
            else:
                label = image.new_full((len(image), 1, *image.shape[2:]), IGNORED if label_key else 0)
            if exclude_classes:
                keep = ~slices_with_classes(convert_to_tensor(scan["label"], track_meta=False), exclude_classes)
                image, label = image[keep], label[keep]
            is_color = image.dtype == torch.uint8
            image = image.float()
            if image_size is not None:
                image = resize_slices(image, image_size)
                label = resize_slices(label, image_size, mode="nearest")
            images.append(image.round().to(torch.uint8) if is_color else _compact_image(image))
            labels.append(_compact_label(label))
            numbers.append(torch.full((len(image),), number))
        if not images or not sum(map(len, images)):
            raise ValueError("No training slice is left: there are no scans, or every slice is excluded.")
        shapes = sorted({tuple(image.shape[1:]) for image in images})
        if len(shapes) > 1:
            raise ValueError(
                f"Slices of the scans differ in channels or in-plane size: {', '.join(map(str, shapes))}. "
                "Give an image_size, and scans of equally many channels."
            )
        if len({image.dtype == torch.uint8 for image in images}) > 1:
            raise ValueError("Some images are of bytes (uint8) and some are not: load all of them in one way.")
        return cls(torch.cat(images), torch.cat(labels), torch.cat(numbers))._placed(torch.device(device))

    def take(self, slices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Copy slices to where episodes are made.

        Args:
            slices: B numbers.

        Returns:
            Images (B, C, H, W), float32, bytes divided by 255, and labels (B, 1, H, W).
        """
        index = device_tensor(slices, self.image.device)
        image, label = self._gather(self.image, index), self._gather(self.label, index)
        return image.float() / 255 if image.dtype == torch.uint8 else image.float(), label

    def with_slices(self, other: SliceStack) -> SliceStack:
        """Append the slices of further scans, which are numbered on.

        Args:
            other: slices of the same size and channels; they are brought to where the slices of this stack lie.
        """
        image, label = (
            torch.cat([own, more.to(own.device)])
            for own, more in ((self.image, other.image), (self.label, other.label))
        )
        if self.image.is_pinned():
            image, label = image.pin_memory(), label.pin_memory()
        return replace(self, image=image, label=label, scan=torch.cat([self.scan, other.scan + self.scan.max() + 1]))

    def _gather(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if self.device is None or self.device == tensor.device:
            return tensor[index]
        staging = tensor.new_empty((len(index), *tensor.shape[1:]), pin_memory=tensor.is_pinned())
        return torch.index_select(tensor, 0, index, out=staging).to(self.device, non_blocking=True)

    def _placed(self, device: torch.device) -> SliceStack:
        needed = self.image.nbytes + self.label.nbytes
        free = _free_memory(device)
        logger.info("%d slices of %s take %.1f MB", len(self.scan), tuple(self.image.shape[1:]), needed / 1e6)
        if free is None or needed <= DEVICE_SHARE * free:
            return replace(self, image=self.image.to(device), label=self.label.to(device))
        logger.warning(
            "Slices stay in host memory, for %s has %.1f MB free: making episodes will be slower.", device, free / 1e6
        )
        return replace(self, image=self.image.pin_memory(), label=self.label.pin_memory(), device=device)


def _slices(volume: torch.Tensor) -> torch.Tensor:
    """Turn a volume (C, H, W, D) or an image (C, H, W) into slices (D, C, H, W)."""
    volume = convert_to_tensor(volume, track_meta=False)
    return volume[None] if volume.ndim == 3 else volume.movedim(3, 0)


def _compact_image(image: torch.Tensor) -> torch.Tensor:
    half = image.half()
    if not len(image) or (half.float() - image).abs().max() <= IMAGE_TOLERANCE * image.std():
        return half
    return image


def _compact_label(label: torch.Tensor) -> torch.Tensor:
    highest = int(label.max()) if len(label) else 0
    return label.to(
        next(dtype for dtype in (torch.uint8, torch.int16, torch.int32) if highest <= torch.iinfo(dtype).max)
    )


def _free_memory(device: torch.device) -> int | None:
    """Free bytes of a device that has memory of its own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def training_stacks(parts: Iterable[Sequence[Mapping[Hashable, Any]]], **settings: Any) -> list[SliceStack]:
    """Cut the scans that a network is trained on, and those that it is validated on, into slices.

    Args:
        parts: both, as :func:`~monai_fewshot.data.hold_out` returns them.
        settings: see :meth:`SliceStack.from_scans`.
    """
    return [SliceStack.from_scans(part, **settings) for part in parts]
