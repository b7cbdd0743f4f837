# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import shutil
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.data import Dataset
from monai.utils import convert_to_tensor

from monai_fewshot.data.scans.class_numbers import slices_with_classes
from monai_fewshot.data.scans.scan_reading import prepare_scans, read_scans
from monai_fewshot.utils import IGNORED, device_tensor, gather_in_all, resize_slices, run_together

from .free_memory import free_memory
from .slice_estimate import Transform, estimate_slices
from .slice_storage import MemorySlices, SliceStorage, map_together

__all__ = ["SliceStack", "training_stacks"]

DEVICE_SHARE = 0.5
"""Part of a device's free memory that slices may fill; the rest is for the network."""
COPIES = 4
"""Memory that reading slices takes, in multiples of what they take in the end (measured): single scans, all of them
joined, and what the allocator cannot give back."""
IMAGE_TOLERANCE = 0.01
"""Largest rounding of an intensity, in standard deviations of its image."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceStack:
    """Slices of several volumes, or images, in three tensors, for episodes to be drawn from.

    The tensors lie in the memory of the device that episodes are made on, or, where it has no room for them, in pinned
    memory of the host, from where the slices of a batch are copied; or, where that has no room either, in files that
    are mapped into memory.

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
        transform: Transform | None = None,
        map_dir: PathLike | None = None,
        max_slices: int | None = None,
        seed: int = 0,
        further: SliceStack | None = None,
    ) -> SliceStack:
        """Cut volumes into slices along their last axis, and keep them in small types on a device.

        Images are kept in half precision, if that changes no intensity by more than a hundredth of the standard
        deviation of its volume, and as bytes where they are bytes; labels in the smallest type that holds them. The
        memory that this will take is estimated from the headers of the scans and logged before they are read. Where it
        is more than is free, slices go to files in ``map_dir``, in which slices are the same bit for bit; in a process
        group one process of each machine reads them for all.

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
            map_dir: folder for slices that memory has no room for, on a fast disk of the machine; None for memory
                whatever the estimate says.
            max_slices: how many slices to keep at most: whole scans are drawn at random, and no others are read
                (``SliceEstimate.drawn``). Slices that are left out for
                their classes count, too. None for all.
            seed: of that draw.
            further: slices that are added behind those of the scans, of the same channels and size.

        Raises:
            ValueError: where no slice is left, or slices differ in channels or size, or only some are of bytes; where
                ``max_slices`` is too few for one scan; where neither memory nor ``map_dir`` has room.
        """
        estimate = estimate_slices(scans, transform)
        if max_slices is not None:
            drawn = estimate.drawn(max_slices, seed)
            logger.info("%d of %d scans are drawn for max_slices %d", len(drawn), len(scans), max_slices)
            scans, estimate = [scans[index] for index in drawn], estimate.of_scans(drawn)
        needed = estimate.num_bytes(image_size)
        mapped = any(gather_in_all(run_together(_goes_to_disk, estimate.num_slices(), needed, map_dir)))
        if transform is not None:
            scans = Dataset(scans, transform)
        if label_key == "pseudo_label":
            prepare_scans(scans)

        def fill(storage: SliceStorage) -> torch.Tensor:
            return _read_into(storage, scans, label_key, image_size, exclude_classes, further)

        if mapped and map_dir is not None:
            image, label, scan = map_together(map_dir, fill)
        else:
            storage = MemorySlices()
            scan = fill(storage)
            image, label = storage.joined()
        return cls(image, label, scan)._placed(torch.device(device), mapped)

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

    def _gather(self, tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if self.device is None or self.device == tensor.device:
            return tensor[index]
        staging = tensor.new_empty((len(index), *tensor.shape[1:]), pin_memory=tensor.is_pinned())
        return torch.index_select(tensor, 0, index, out=staging).to(self.device, non_blocking=True)

    def _placed(self, device: torch.device, mapped: bool) -> SliceStack:
        needed = self.image.nbytes + self.label.nbytes
        free = _free_memory(device)
        logger.info("%d slices of %s take %.1f MB", len(self.scan), tuple(self.image.shape[1:]), needed / 1e6)
        if free is None or needed <= DEVICE_SHARE * free:
            return replace(self, image=self.image.to(device), label=self.label.to(device))
        logger.warning(
            "Slices stay in host memory, for %s has %.1f MB free: making episodes will be slower.", device, free / 1e6
        )
        if mapped:
            return replace(self, device=device)
        return replace(self, image=self.image.pin_memory(), label=self.label.pin_memory(), device=device)


def _goes_to_disk(slices: int | None, needed: int | None, map_dir: PathLike | None) -> bool:
    """Decide and tell where slices go, by an estimate of the bytes they take.

    Raises:
        ValueError: where neither memory nor the disk of ``map_dir`` has room.
    """
    free = free_memory()
    if needed is None or free is None:
        return False
    text = f"About {slices} slices will take about {_room(needed)}, and {_room(free)} of memory are free"
    if COPIES * needed <= free:
        logger.info("%s.", text)
        return False
    if map_dir is None:
        logger.warning("%s: they may not fit.", text)
        return False
    folder = next(place for place in (Path(map_dir).absolute(), *Path(map_dir).absolute().parents) if place.exists())
    room = shutil.disk_usage(folder).free
    if needed > room:
        raise ValueError(
            f"{text}, and {_room(room)} on the disk of {map_dir}: give max_slices, a smaller image_size, or name "
            "another folder."
        )
    logger.warning("%s: they go to files in %s; making episodes will be slower.", text, map_dir)
    return True


def _room(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.3g} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.3g} GB"


def _read_into(
    storage: SliceStorage,
    scans: Sequence[Mapping[Hashable, Any]],
    label_key: str | None,
    image_size: Sequence[int] | None,
    exclude_classes: Sequence[int],
    further: SliceStack | None,
) -> torch.Tensor:
    """Read scans, see :meth:`SliceStack.from_scans`, and tell which scan each slice is of."""
    numbers, kinds = [], set()
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
        storage.add(image.round().to(torch.uint8) if is_color else _compact_image(image), _compact_label(label))
        kinds.add((tuple(image.shape[1:]), is_color))
        numbers.append(torch.full((len(image),), number))
    if further is not None:
        storage.add(further.image.cpu(), further.label.cpu())
        kinds.add((tuple(further.image.shape[1:]), further.image.dtype == torch.uint8))
        numbers.append(further.scan + len(scans))
    if not sum(map(len, numbers)):
        raise ValueError("No training slice is left: there are no scans, or every slice is excluded.")
    shapes = sorted({shape for shape, _ in kinds})
    if len(shapes) > 1:
        raise ValueError(
            f"Slices of the scans differ in channels or in-plane size: {', '.join(map(str, shapes))}. "
            "Give an image_size, and scans of equally many channels."
        )
    if len(kinds) > 1:
        raise ValueError("Some images are of bytes (uint8) and some are not: load all of them in one way.")
    return torch.cat(numbers)


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


def training_stacks(
    parts: Sequence[Sequence[Mapping[Hashable, Any]]], max_slices: int | None = None, **settings: Any
) -> list[SliceStack]:
    """Cut the scans that a network is trained on, and those that it is validated on, into slices.

    Args:
        parts: both, as :func:`~monai_fewshot.data.hold_out` returns them.
        max_slices: how many slices to train on at most, see :meth:`SliceStack.from_scans`.
        settings: likewise.
    """
    trained, *validated = parts
    return [
        SliceStack.from_scans(trained, max_slices=max_slices, **settings),
        *(SliceStack.from_scans(part, **settings) for part in validated),
    ]
