# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.config import PathLike

from monai_fewshot.utils import gather_in_all, run_together

__all__ = ["MappedSlices", "MemorySlices", "SliceStorage", "map_together"]

SUFFIX = ".slices"
SECONDS_OF_A_DAY = 24 * 60 * 60
CHUNK = 1 << 24


class MemorySlices:
    """Images and labels of slices, gathered in memory."""

    def __init__(self) -> None:
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, image: torch.Tensor, label: torch.Tensor) -> None:
        """Add the slices of a scan.

        Args:
            image: (S, C, H, W).
            label: (S, 1, H, W), integers.
        """
        self._parts.append((image, label))

    def joined(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All images and all labels, each in the smallest type that holds those of every scan."""
        images, labels = zip(*self._parts, strict=True)
        return torch.cat(images), torch.cat(labels)


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a tensor lie in a file, and how."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def open(self) -> torch.Tensor:
        """Map the file into memory; changes of the tensor do not reach it."""
        numbers = torch.from_file(str(self.path), shared=False, size=math.prod(self.shape), dtype=self.dtype)
        return numbers.view(self.shape)


class TensorFile:
    """A tensor that grows in a file along its first axis.

    Its type is that of ``torch.cat`` of all parts: where a part needs a wider type, the file is written anew.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / f".{uuid.uuid4().hex}{SUFFIX}"
        self.path.touch()
        self.shape: tuple[int, ...] = (0,)
        self.dtype: torch.dtype | None = None

    def add(self, part: torch.Tensor) -> None:
        """Append a part, of the same shape but for the first axis."""
        dtype = part.dtype if self.dtype is None else torch.promote_types(self.dtype, part.dtype)
        if self.dtype is not None and dtype != self.dtype:
            self._widen(dtype)
        with open(self.path, "ab") as file:
            file.write(part.to(dtype).contiguous().numpy().tobytes())
        self.dtype, self.shape = dtype, (self.shape[0] + len(part), *part.shape[1:])

    def layout(self) -> Layout:
        """How to open it."""
        assert self.dtype is not None
        return Layout(self.path.absolute(), self.shape, self.dtype)

    def _widen(self, dtype: torch.dtype) -> None:
        old, self.path = self.path, self.path.with_name(f".{uuid.uuid4().hex}{SUFFIX}")
        try:
            with open(self.path, "wb") as file:
                numbers = math.prod(self.shape)
                whole = Layout(old, (numbers,), self.dtype or dtype).open() if numbers else torch.empty(0)
                for chunk in whole.split(CHUNK):
                    file.write(chunk.to(dtype).numpy().tobytes())
        finally:
            old.unlink()


class MappedSlices:
    """Images and labels of slices, gathered in files that are then mapped into memory.

    The files are removed once they are mapped: their room is given back when the last process that uses them ends. What
    a process killed before that leaves behind is removed after a day.

    Args:
        folder: of the files, made if it does not exist.

    Raises:
        ValueError: where the folder cannot be written to, here and where slices are added.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.glob(f".*{SUFFIX}"):
                with suppress(OSError):  # gone, or of another user of the disk
                    if time.time() - path.stat().st_mtime > SECONDS_OF_A_DAY:
                        path.unlink()
            self._images, self._labels = TensorFile(self.folder), TensorFile(self.folder)
        except OSError as error:
            raise ValueError(self._not_written(error)) from error

    def add(self, image: torch.Tensor, label: torch.Tensor) -> None:
        """Add the slices of a scan, see :meth:`MemorySlices.add`."""
        try:
            self._images.add(image)
            self._labels.add(label)
        except OSError as error:
            raise ValueError(self._not_written(error)) from error

    def layouts(self) -> tuple[Layout, Layout]:
        """How to open images and labels, in this or another process of the machine."""
        return self._images.layout(), self._labels.layout()

    def remove(self) -> None:
        """Remove the files; what is mapped stays readable."""
        for file in (self._images, self._labels):
            with suppress(OSError):  # systems that keep mapped files: removed after a day
                file.path.unlink(missing_ok=True)

    def _not_written(self, error: OSError) -> str:
        return (
            f"Slices cannot be written to {self.folder} ({error.strerror or error}): free some room there, or give "
            "max_slices or a smaller image_size."
        )


SliceStorage = MemorySlices | MappedSlices


def map_together(
    folder: PathLike, fill: Callable[[SliceStorage], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gather slices in files, once on each machine, and map them in all processes there.

    Args:
        folder: of the files, as for :class:`MappedSlices`.
        fill: adds all slices and returns the scan of each, (S,).

    Returns:
        Images, labels, and the scan of each slice.
    """
    leads = int(os.environ.get("LOCAL_RANK", 0)) == 0
    machine = os.environ.get("GROUP_RANK", "0")
    storage: MappedSlices | None = None

    def gather() -> tuple[tuple[Layout, Layout], torch.Tensor] | None:
        nonlocal storage
        if not leads:
            return None
        storage = MappedSlices(folder)
        scan = fill(storage)
        return storage.layouts(), scan

    try:
        parts = gather_in_all((machine, run_together(gather)))
        (image, label), scan = next(part for place, part in parts if place == machine and part is not None)
        mapped = run_together(lambda: (image.open(), label.open()))
    finally:
        if storage is not None:
            storage.remove()
    return (*mapped, scan)
