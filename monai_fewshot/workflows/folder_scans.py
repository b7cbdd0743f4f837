# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from monai.config import PathLike
from monai.transforms import Compose
from monai.utils import ensure_tuple

from monai_fewshot.data import (
    AcquiredScans,
    OneAtATime,
    ReadAhead,
    VolumePreparation,
    check_headers,
    load_scans,
    name_classes,
    own_share,
    readers_for,
    shown_classes,
    support_scans,
    without_labels,
)
from monai_fewshot.handlers import OutputFiles

from .failing_scans import RemainingItems
from .segmentation import Segmentation, check_support_files

__all__ = ["FolderScans"]


class FolderScans(Segmentation):
    """How the scans of a folder come to a network: listed, checked, dealt out to processes, read ahead and prepared.

    Args:
        support: images and labels of the annotated scans, and their series, or None each.
        chosen: ``modality``, ``description`` and ``series_uid``, see :func:`monai_fewshot.data.load_scans`.
        class_names: see :func:`monai_fewshot.data.name_classes`.
        own_preparation: for scans as they were acquired, where the model has none.
        num_workers: number of threads that read scans ahead; None for as many as fit.
        segmentation: arguments of :class:`Segmentation`.
    """

    def __init__(
        self,
        support: tuple[Any, Any, Any],
        chosen: dict[str, Any],
        class_names: Sequence[str] | None,
        own_preparation: Callable[[Any], Any] | None,
        num_workers: int | None,
        *segmentation: Any,
    ) -> None:
        super().__init__(*segmentation)
        self.support: tuple[PathLike | Sequence[PathLike] | None, ...] = support
        self.chosen = chosen
        self.class_names = class_names
        self.own_preparation = own_preparation
        self.num_workers = num_workers
        self.grid_lock = threading.Lock()

    @property
    @abstractmethod
    def files(self) -> OutputFiles:
        """What is written, and where."""

    @cached_property
    def supports(self) -> list[dict[str, Any]]:
        """The annotated scans; none where the network knows its classes."""
        image, label, series_uid = self.support
        if self.model.classes is not None:
            return []
        if image is None or label is None:
            raise ValueError("This network is shown its classes: give support_image and support_label.")
        check_support_files(image, label)
        return support_scans(image, label, series_uid)

    @cached_property
    def pending(self) -> list[dict[str, Any]]:
        """The scans that lack any of the wanted results."""
        no_scans = [self.output_dir, *(() if self.support[1] is None else ensure_tuple(self.support[1]))]
        scans = load_scans(self.dataset_dir, **self.chosen, leave_out=no_scans)
        return self.files.pending(without_labels(scans), self.overwrite)

    @cached_property
    def preparation(self) -> VolumePreparation:
        """The model's preparation, with the caller's own where it has none."""
        trained = self.model.preparation
        if self.supports:
            trained = trained.on_axes_of(self.supports[0])
        if self.own_preparation is None:
            return trained
        if trained.spatial is not None:
            raise ValueError(
                f"preparation is given, but {', '.join(self.model.checkpoints)} prepares scans itself "
                f"({trained.settings()['spatial']}): leave preparation out."
            )
        return trained.changed(spatial=self.own_preparation)

    @cached_property
    def voxels(self) -> list[int]:
        """Number of voxels of each pending scan, by its header, which is checked."""
        return check_headers(self.pending, self.model.preparation.channels)

    @cached_property
    def queries(self) -> list[dict[str, Any]]:
        """The pending scans that this process segments."""
        return own_share(self.pending, self.voxels)

    @cached_property
    def acquired(self) -> AcquiredScans:
        """Checks scans before they are prepared, and keeps what is measured and drawn."""
        return AcquiredScans(self.model.preparation.channels, self.files.measurements or self.files.previews)

    @cached_property
    def transform(self) -> Compose:
        """Reads and prepares a scan."""
        grid = None if self.preparation.grid is None else OneAtATime(self.preparation.grid, self.grid_lock)
        return self.preparation.transform(class_names=self.class_names, acquired=self.acquired, grid=grid)

    @cached_property
    def reader(self) -> ReadAhead:
        """Reads scans ahead of the network."""
        workers = readers_for(max(self.voxels, default=0)) if self.num_workers is None else self.num_workers
        return ReadAhead(self.dataset, workers)

    @cached_property
    def remaining(self) -> RemainingItems:
        """What is still to be segmented."""
        return RemainingItems(self.reader)

    def _check_classes(self) -> None:
        """Raise a ValueError where a class of the supports is lost on the grid of the network."""
        shown = shown_classes(self.supports, self.class_names)
        names = name_classes(shown, self.class_names, self.supports)
        lost = [f"{number} ({names[number]})" for number in shown if number not in self.classes]
        if lost:
            raise ValueError(
                f"{', '.join(scan['label'] for scan in self.supports)}: no voxel is left of {', '.join(lost)} where "
                "scans are resampled for the network: annotate more of it, or leave it out of the label."
            )
