# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import (
    ClipIntensityPercentilesd,
    Compose,
    LabelFilterd,
    MapLabelValued,
    NormalizeIntensityd,
)

from monai_fewshot.data.files.volume_loader import VolumeLoader
from monai_fewshot.data.images.picture_files import picture_channels
from monai_fewshot.data.layouts.scan_files import is_picture
from monai_fewshot.transforms import AlignAxesd
from monai_fewshot.utils import EpisodeKeys, build, definition_of

from .check_scan import CheckScand
from .check_scans import check_scans
from .load_scan import LoadScand, load_image
from .scan_folder import Scan

__all__ = ["VolumePreparation", "count_channels", "holds_picture", "scan_axes"]

KEYS = (EpisodeKeys.IMAGE, EpisodeKeys.LABEL)


def scan_axes(scan: Scan) -> list[list[float]]:
    """Tell along which axes a scan is cut into slices: through its plane, where voxels are farthest apart.

    Args:
        scan: with ``image``.

    Returns:
        Unit vectors in the patient's coordinates (RAS) along which rows, columns and slices increase. Rows and columns
        keep their order and direction, and so do slices that are the last axis already.
    """
    affine = load_image(scan[EpisodeKeys.IMAGE], VolumeLoader()).affine.numpy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    through = 2 if spacing[2] > 0.99 * spacing.max() else int(spacing.argmax())
    directions = (affine[:3, :3] / spacing).T.tolist()
    return [*(directions[axis] for axis in range(3) if axis != through), directions[through]]


def holds_picture(scan: Scan) -> bool:
    """Tell whether a scan is a 2D picture (PNG, JPEG, BMP or TIFF), and no volume."""
    return isinstance(scan[EpisodeKeys.IMAGE], str) and is_picture(Path(scan[EpisodeKeys.IMAGE]))


def count_channels(scan: Scan) -> int:
    """Tell how many channels scans like one of them have: 3 where it is a color picture, else 1."""
    return picture_channels(Path(scan[EpisodeKeys.IMAGE])) if holds_picture(scan) else 1


class VolumePreparation:
    """What is done to scans before a network sees their slices; saved with the network, for all that uses it.

    A scan is loaded and its axes are ordered; it is brought onto the spacing and size of the network's training, then
    checked and normalized. Masks go back onto the scan's own grid.

    Args:
        image_size: (H, W) in pixels to which the network's inferer or training resizes slices; None for their own.
        axes: directions that the axes of all scans are brought as near to as flips and permutations can
            (:func:`scan_axes`, :class:`~monai_fewshot.transforms.AlignAxes`); None leaves axes as they are.
        spatial: makes spacing and size alike, such as :func:`monai_fewshot.transforms.mr_preparation`, made by
            :func:`monai_fewshot.utils.define`; None for scans that were prepared beforehand.
        clip_percentiles: lower and upper percentile of a scan's values that the others are clipped to; None for none.
        classes: name by number of the classes that the network knows; None for a network that is shown its classes.
        channels: of an image, 3 for color pictures; each is normalized by itself.
        pictures: whether scans are 2D pictures (PNG, JPEG, BMP, TIFF), or volumes; None where either will do.

    Example:
        >>> VolumePreparation(image_size=[128, 128]).settings()["image_size"]
        [128, 128]
    """

    def __init__(
        self,
        image_size: Sequence[int] | None = None,
        axes: Sequence[Sequence[float]] | None = None,
        spatial: Callable[[Any], Any] | None = None,
        clip_percentiles: Sequence[float] | None = None,
        classes: Mapping[int, str] | None = None,
        channels: int = 1,
        pictures: bool | None = None,
    ) -> None:
        self.image_size = None if image_size is None else [int(pixels) for pixels in image_size]
        self.axes = None if axes is None else [[float(x) for x in direction] for direction in axes]
        self.spatial = spatial
        self.clip_percentiles = clip_percentiles
        self.classes = None if classes is None else {int(number): name for number, name in classes.items()}
        self.channels = channels
        self.pictures = pictures
        orientation = [AlignAxesd(KEYS, self.axes, allow_missing_keys=True)] if self.axes else []
        steps = [*orientation, *([spatial] if spatial else [])]
        self.grid = Compose(steps) if steps else None
        """From a scan's own grid to the network's, for ``monai.transforms.Invertd``; None where they are the same."""

    def settings(self) -> dict[str, Any]:
        """All arguments as plain values."""
        return {
            "image_size": self.image_size,
            "axes": self.axes,
            "spatial": None if self.spatial is None else definition_of(self.spatial),
            "clip_percentiles": None if self.clip_percentiles is None else list(self.clip_percentiles),
            "classes": self.classes,
            "channels": self.channels,
            "pictures": self.pictures,
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> VolumePreparation:
        """Make a preparation again.

        Args:
            settings: what :meth:`settings` returned.
        """
        spatial = settings["spatial"]
        return cls(**{**settings, "spatial": None if spatial is None else build(spatial)})

    def changed(self, **changes: Any) -> VolumePreparation:
        """Make the same preparation but for some arguments."""
        names = ("image_size", "axes", "spatial", "clip_percentiles", "classes", "channels", "pictures")
        return VolumePreparation(**{name: getattr(self, name) for name in names} | changes)

    def on_axes_of(self, scan: Scan) -> VolumePreparation:
        """Bring scans to the axes of one of them (:func:`scan_axes`), where no others are set."""
        return self if self.axes is not None else self.changed(axes=scan_axes(scan))

    def check(self, scans: Sequence[Scan], known_classes: Mapping[int, str] | None = None) -> None:
        """Check that scans are such as this prepares, and all of their files (:func:`check_scans`).

        Args:
            scans: the scans.
            known_classes: numbers that a label may hold; None for any.

        Raises:
            ValueError: where pictures are given for volumes or the reverse, or there are problems; all are listed.
        """
        self.check_kind(scans)
        check_scans(scans, known_classes, self.channels)

    def check_kind(self, scans: Sequence[Scan]) -> None:
        """Check by their names that scans are such as this prepares.

        Args:
            scans: the scans.

        Raises:
            ValueError: where pictures are given for volumes or the reverse.
        """
        other = [scan["name"] for scan in scans if self.pictures not in (None, holds_picture(scan))]
        if other:
            kinds = ("2D pictures", "volumes") if self.pictures else ("volumes", "2D pictures")
            raise ValueError(
                f"The model is of {kinds[0]}, but {len(other)} of {len(scans)} scans are {kinds[1]}: "
                f"{', '.join(other[:10])}. Leave them out, or train for them."
            )

    def transform(
        self,
        pseudo_labels: Callable[[Any], Any] | None = None,
        known_classes: Mapping[int, str] | None = None,
        class_numbers: Sequence[int] | None = None,
        class_names: Sequence[str] | None = None,
        acquired: Callable[[Any], Any] | None = None,
        grid: Callable[[Any], Any] | None = None,
    ) -> Compose:
        """Make the chain that reads and prepares a scan.

        Args:
            pseudo_labels: makes a label from the values of the scan, before they are normalized.
            known_classes: numbers that a label may hold; None for any.
            class_numbers: numbers that become 1, 2, ... in this order, all others background; None for all as they are.
            class_names: as for :class:`~monai_fewshot.data.LoadScand`.
            acquired: is given each scan as it was acquired, such as :class:`~monai_fewshot.data.AcquiredScans`.
            grid: does what :attr:`grid` does, which it may guard. Defaults to None: :attr:`grid` itself.
        """
        chain: list[Callable[[Any], Any]] = [LoadScand(class_names=class_names)]
        chain += [acquired] if acquired is not None else []
        chain += [grid or self.grid] if self.grid is not None else []
        chain.append(CheckScand(EpisodeKeys.IMAGE, classes=known_classes, num_channels=self.channels))
        if class_numbers is not None:
            chain += [
                LabelFilterd(EpisodeKeys.LABEL, class_numbers, allow_missing_keys=True),
                MapLabelValued(
                    EpisodeKeys.LABEL, class_numbers, range(1, 1 + len(class_numbers)), allow_missing_keys=True
                ),
            ]
        chain += [pseudo_labels] if pseudo_labels is not None else []
        by_channel = self.channels > 1
        if self.clip_percentiles is not None:
            chain.append(ClipIntensityPercentilesd(EpisodeKeys.IMAGE, *self.clip_percentiles, channel_wise=by_channel))
        return Compose([*chain, NormalizeIntensityd(EpisodeKeys.IMAGE, channel_wise=by_channel)])
