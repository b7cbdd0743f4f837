# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

from monai.transforms import (
    ClipIntensityPercentilesd,
    Compose,
    Orientationd,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialCropd,
    Transform,
)

from monai_fewshot.utils import EpisodeKeys

from .resize_in_plane import ResizeInPlaned

__all__ = ["CARDIAC_SPACING", "ct_preparation", "mr_preparation"]

ABDOMINAL_SPACING = (1.25, 1.25, 7.7)
CARDIAC_SPACING = (1.25, 1.25, 7.99)
"""Spacing in mm of the cardiac MR benchmark, for :func:`mr_preparation`."""

RAS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))


def mr_preparation(
    spacing: Sequence[float] | None = ABDOMINAL_SPACING,
    size: Sequence[int] | None = (256, 256),
    clip_percent: float = 0.5,
    orientation: str | None = None,
    image_key: str = EpisodeKeys.IMAGE,
    label_key: str = EpisodeKeys.LABEL,
) -> Compose:
    """Make the preparation of MR scans of the few-shot benchmarks: clip, resample, crop.

    The brightest voxels of the volume are set to the value that the others stay below, the volume is resampled to one
    spacing, images linearly, labels to the nearest voxel, and slices are cropped or padded with 0 around their center.
    The first voxel's center stays where it is, and so do the directions of the axes. Values are not normalized, which
    the networks do by volume.

    The chain takes a scan as ``monai.transforms.LoadImaged(ensure_channel_first=True)`` gives it; a scan without a
    label will do, so it serves at inference too. ``monai.transforms.Invertd`` brings what was made of the prepared
    scan back onto the scan's own grid.

    Based on: C. Ouyang et al., Self-supervision with superpixels, ECCV 2020, section 4.1 and its code,
    https://github.com/cheng-01037/Self-supervised-Fewshot-Medical-Image-Segmentation.
    Deviation: the original makes ``int(n * old / new + 1)`` slices, rows and columns, the last of which mostly lies
    outside of the scan and is black; here there are ``round((n - 1) * old / new + 1)``. The original resamples labels
    class by class, linearly, with a threshold at 1/2; here each voxel takes the nearest, which needs the memory of one
    class, leaves no gaps between classes, and differs at corners of a class only.

    Args:
        spacing: of rows, columns and slices in mm; (1.25, 1.25, 7.7) for abdominal scans, the default,
            :data:`CARDIAC_SPACING` for cardiac ones. 0 keeps that of an axis, None all.
        size: (H, W) of the slices in pixels, of the array's first two axes. None keeps what there is.
        clip_percent: how many percent of the volume's voxels are clipped, the brightest. 0 clips none. Defaults to 0.5.
        orientation: axis codes such as "LAS", so that all scans of a set lie the same way; the axial scans for which it
            is meant are only flipped. Defaults to None: axes stay, as they must where the slices are oblique.
        image_key: of the image (C, H, W, D).
        label_key: of the label (1, H, W, D), which may be absent.

    Returns:
        The chain, from dictionary to dictionary; the slice axis is the last.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> scan = {"image": MetaTensor(torch.rand(1, 300, 240, 7))}
        >>> mr_preparation(spacing=(2, 2, 1), size=(128, 128))(scan)["image"].shape
        torch.Size([1, 128, 128, 7])
    """
    if not 0 <= clip_percent < 100:
        raise ValueError(f"clip_percent is {clip_percent}; give 0 (clip nothing) to less than 100.")
    keys = (image_key, label_key)
    chain = _orient(keys, orientation)
    if clip_percent:
        chain.append(ClipIntensityPercentilesd(image_key, lower=None, upper=100 - clip_percent))
    if spacing is not None:
        if len(spacing) != 3 or min(spacing) < 0:
            raise ValueError(f"spacing is {tuple(spacing)}; give three numbers of mm, 0 to keep that of an axis.")
        chain.append(Spacingd(keys, spacing, mode=("bilinear", "nearest"), allow_missing_keys=True))
    if size is not None:
        chain.append(ResizeWithPadOrCropd(keys, (*_checked_size(size), -1), allow_missing_keys=True))
    return Compose(chain)


def ct_preparation(
    window: Sequence[float] = (-125, 275),
    values: Sequence[float] = (0, 255),
    border: int = 32,
    size: Sequence[int] | None = (256, 256),
    orientation: str | None = None,
    image_key: str = EpisodeKeys.IMAGE,
    label_key: str = EpisodeKeys.LABEL,
) -> Compose:
    """Make the preparation of CT scans of the few-shot benchmarks: window, crop, resize in plane.

    Hounsfield units are clipped to a window and scaled, a border is cut off the slices, where there is air, and the
    rest is resized, images linearly, labels to the nearest pixel. The slices keep their distance. The chain is used and
    inverted as that of :func:`mr_preparation` is.

    Based on: as :func:`mr_preparation`.
    Deviation: the original's slices have 257 x 257 pixels, the last row and column of which lie outside of the scan and
    are black; its pixels stand on corners, these on centers. It scales from the lowest to the highest value there is,
    which are those of the window in any abdominal scan. Labels: as :func:`mr_preparation`.

    Args:
        window: lowest and highest Hounsfield unit.
        values: what these become.
        border: pixels to cut off at each of the four sides of a slice; meant for slices of 512 x 512. Defaults to 32.
        size: (H, W) of the slices in pixels, of the array's first two axes. None keeps what there is after cropping.
        orientation: as for :func:`mr_preparation`.
        image_key: of the image (C, H, W, D).
        label_key: of the label (1, H, W, D), which may be absent.

    Returns:
        The chain, from dictionary to dictionary; the slice axis is the last.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> scan = {"image": MetaTensor(torch.full((1, 512, 512, 2), 75.0))}
        >>> prepared = ct_preparation()(scan)["image"]
        >>> prepared.shape, prepared.mean().item()
        (torch.Size([1, 256, 256, 2]), 127.5)
    """
    low, high = window
    if not low < high:
        raise ValueError(f"window is {tuple(window)}; give the lower Hounsfield unit first, then the higher one.")
    if border < 0:
        raise ValueError(f"border is {border}; give the pixels to cut off, from 0.")
    keys = (image_key, label_key)
    chain = _orient(keys, orientation)
    if border:
        inside = slice(border, -border)
        chain.append(SpatialCropd(keys, roi_slices=(inside, inside, slice(None)), allow_missing_keys=True))
    chain.append(ScaleIntensityRanged(image_key, low, high, values[0], values[1], clip=True))
    if size is not None:
        modes = ("trilinear", "nearest-exact")
        chain.append(ResizeInPlaned(keys, _checked_size(size), mode=modes, allow_missing_keys=True))
    return Compose(chain)


def _orient(keys: Sequence[str], orientation: str | None) -> list[Transform]:
    if orientation is None:
        return []
    if sorted(orientation.translate(str.maketrans("RPI", "LAS"))) != ["A", "L", "S"]:
        raise ValueError(f'orientation is "{orientation}"; give one of L or R, A or P, S or I for each axis, as "LAS".')
    return [Orientationd(keys, orientation, labels=RAS_LABELS, allow_missing_keys=True)]


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {tuple(size)}; give two numbers of pixels, such as (256, 256).")
    return size[0], size[1]
