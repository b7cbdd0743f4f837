# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.utils import convert_to_numpy

from monai_fewshot.data.dicom.series import DicomSeries
from monai_fewshot.data.dicom.series_reader import FRAME_OF_REFERENCE, THICKNESS

from .check_scan import AFFINE_TOLERANCE, corner_distance

__all__ = ["LabelGrid", "Region", "label_map", "onto_grid"]

logger = logging.getLogger(__name__)

OFF_GRID = 0.3
"""How far a voxel of an annotation may lie from that of the image, in voxels."""


class LabelGrid(NamedTuple):
    """The voxels on which a label is wanted.

    Args:
        shape: number of voxels along the three axes.
        affine: RAS affine (4, 4).
        frame_of_reference: FrameOfReferenceUID of the image, "" where it is not known.
        thickness: SliceThickness of the image in mm, None where it is not known.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    frame_of_reference: str
    thickness: float | None = None

    @classmethod
    def of(cls, reference: MetaTensor | DicomSeries) -> LabelGrid:
        """Take the grid of an image (C, H, W, D), or of a series that is not read."""
        if isinstance(reference, DicomSeries):
            return cls(reference.shape, reference.affine, reference.frame_of_reference, reference.slices[0].thickness)
        affine = convert_to_numpy(reference.affine).astype(float)
        meta = reference.meta
        return cls(tuple(reference.shape[1:]), affine, str(meta.get(FRAME_OF_REFERENCE, "")), meta.get(THICKNESS))

    @property
    def lps_to_index(self) -> np.ndarray:
        """Affine (4, 4) from LPS coordinates in mm to indices."""
        return np.linalg.inv(orientation_ras_lps(self.affine))

    def check_frame_of_reference(self, uid: str) -> None:
        """Refuse an annotation that belongs to other coordinates.

        Raises:
            ValueError: where both frames of reference are known and differ.
        """
        if uid and self.frame_of_reference and uid != self.frame_of_reference:
            raise ValueError(
                "is drawn in another frame of reference (FrameOfReferenceUID) than its image, so its place there is "
                "unknown; give the annotation of this very series."
            )

    def index_of(self, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Place other voxels on the grid.

        Args:
            affine: LPS affine (4, 4) of the other voxels.
            shape: their number along the three axes.

        Returns:
            Affine (4, 4) of whole numbers from their indices to those of the grid, which may lie outside of it.

        Raises:
            ValueError: where they are not voxels of the grid, or its continuation.
        """
        to_index = self.lps_to_index @ affine
        axes = np.abs(to_index[:3, :3]).argmax(axis=0)
        whole = np.eye(4)
        if sorted(axes) == [0, 1, 2]:
            whole[:3, :3] = np.eye(3)[:, axes] * np.sign(to_index[:3, :3])
        whole[:3, 3] = np.rint(to_index[:3, 3])
        corners = np.array(list(itertools.product(*((0, number - 1) for number in shape), (1,)))).T
        distance = np.abs((to_index - whole) @ corners).max()
        if distance > OFF_GRID:
            own, image = (np.linalg.norm(each[:3, :3], axis=0) for each in (affine, self.affine))
            raise ValueError(
                f"is not on the grid of its image: its voxels of {_listed(own)} mm lie up to {distance:.2g} voxels "
                f"beside those of the image, of {_listed(image)} mm. Make the image the source geometry of the "
                "segmentation (in 3D Slicer: Segment Editor, Specify geometry) and save it again."
            )
        return whole.astype(int)

    def flat(self, index: np.ndarray) -> np.ndarray:
        """Turn whole indices (3, n) into flat ones; those outside of the grid are left out."""
        inside = ((index >= 0) & (index < np.reshape(self.shape, (3, 1)))).all(axis=0)
        return np.ravel_multi_index(tuple(index[:, inside]), self.shape)


class Region(NamedTuple):
    """An annotated region: its number from 1, its name, and the flat indices of its voxels on a :class:`LabelGrid`."""

    number: int
    name: str
    voxels: np.ndarray


def label_map(regions: Sequence[Region], grid: LabelGrid) -> MetaTensor:
    """Put regions into one label map.

    A voxel that lies in several regions takes the smallest of them, as a lesion lies in an organ and an organ in the
    outline of the body.

    Args:
        regions: in any order.
        grid: on which they lie.

    Returns:
        (1, H, W, D), float32 as ``monai.transforms.LoadImage`` reads labels.
    """
    numbers = np.zeros(grid.shape, np.float32)
    names = {region.number: region.name for region in regions}
    shared: dict[str, int] = {}
    for region in sorted(regions, key=lambda region: -len(region.voxels)):
        below = numbers.flat[region.voxels]
        for number, count in zip(*np.unique(below[below > 0], return_counts=True), strict=True):
            shared[f"{names[int(number)]} and {region.name}"] = int(count)
        numbers.flat[region.voxels] = region.number
    if shared:
        logger.warning(
            "%d voxels lie in several regions, and take the smallest of them (%s)",
            sum(shared.values()),
            ", ".join(f"{pair}: {count}" for pair, count in shared.items()),
        )
    return MetaTensor(torch.from_numpy(numbers)[None], affine=torch.from_numpy(grid.affine))


def onto_grid(label: MetaTensor, grid: LabelGrid) -> MetaTensor:
    """Flip and permute the axes of a label so that it lies on a grid, where that is all they differ in.

    Args:
        label: (1, H, W, D).
        grid: of its image.

    Returns:
        The label on the grid; as it was where the two are not the same voxels.
    """
    if label.ndim != 4 or len(grid.shape) != 3:
        return label
    turn = np.linalg.inv(grid.affine) @ convert_to_numpy(label.affine).astype(float)
    axes = np.abs(turn[:3, :3]).argmax(axis=1)
    if sorted(axes) != [0, 1, 2] or tuple(label.shape[1 + axis] for axis in axes) != grid.shape:
        return label
    turned = label.as_tensor().permute(0, *(int(axis) + 1 for axis in axes))
    flips = [row for row, axis in enumerate(axes) if turn[row, axis] < 0]
    if not flips and list(axes) == [0, 1, 2]:
        return label
    exact = _permutation(axes, flips, grid.shape)
    if corner_distance(torch.from_numpy(grid.affine @ exact), label.affine, label.shape[1:]) > AFFINE_TOLERANCE:
        return label
    moved = MetaTensor(turned.flip([row + 1 for row in flips]).contiguous(), meta=label.meta)
    moved.affine = torch.from_numpy(grid.affine)
    return moved


def _listed(spacing: np.ndarray) -> str:
    return " x ".join(f"{length:.4g}" for length in spacing)


def _permutation(axes: np.ndarray, flips: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Affine from the indices of a flipped and permuted grid to those of the grid of ``shape``."""
    exact = np.eye(4)
    exact[:3, :3] = np.eye(3)[axes]
    for row in flips:
        exact[row, :3] *= -1
        exact[row, 3] = shape[row] - 1
    return exact
