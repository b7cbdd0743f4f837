# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from monai_fewshot.data.layouts.scan_files import is_picture
from monai_fewshot.utils import file_of, list_values

__all__ = ["AFFINE_TOLERANCE", "CheckScanD", "CheckScanDict", "CheckScand", "shape_problems"]

AFFINE_TOLERANCE = 0.1
HIGHEST_CLASS = 1 << 24
"""Up to which single precision, in which labels are read, tells one number from the next."""


class CheckScand(MapTransform):
    """Check a loaded scan, so that bad input stops a pipeline with a message that says what to do.

    It stands right after ``EnsureChannelFirstd``. Of an image it checks the number of channels and spatial axes, for
    NaN and infinite voxels and for a constant value; of a label that it is a map of integers in ``classes``, is not
    empty, and lies on the grid of the image. A label that is not there is not checked. All problems of a scan are
    reported at once.

    A single slice (C, H, W, 1) is a volume like any other. A 2D file, loaded as (C, H, W), becomes a volume of one
    slice (C, H, W, 1); nothing else is changed.

    Args:
        keys: keys of the images, each (C, H, W, D).
        label_key: key of the label, (1, H, W, D).
        classes: class numbers that a label may hold beside 0, e.g. the dictionary that
            :func:`monai_fewshot.data.load_class_names` returns. None or empty: any positive integers.
        num_channels: number of channels of an image; None for any.
        affine_tolerance: greatest distance in mm by which the affines of image and label may place a corner voxel
            apart; 0.1 mm is far more than rounding in file headers and far less than a voxel.
        allow_missing_keys: whether an absent image is passed over.

    Problems make a ValueError, one line each, which begins with the file, or the key where the file is not known.

    Example:
        >>> scan = {"image": torch.rand(1, 8, 8, 3), "label": torch.zeros(1, 8, 8, 3)}
        >>> CheckScand("image")(scan)
        Traceback (most recent call last):
        ...
        ValueError: label: is empty, no voxel is above 0; annotate at least one class, or leave the scan out.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: str = "label",
        classes: Collection[int] | None = None,
        num_channels: int | None = 1,
        affine_tolerance: float = AFFINE_TOLERANCE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.classes = classes
        self.num_channels = num_channels
        self.affine_tolerance = affine_tolerance

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check a scan.

        Args:
            data: the scan, with images and label as above.

        Returns:
            The scan, 2D files as volumes of one slice.

        Raises:
            ValueError: if the scan has problems; all are listed.
        """
        d = dict(data)
        images = list(self.key_iterator(d))
        for key in (*images, *([self.label_key] if self.label_key in d else [])):
            d[key] = _as_volume(d[key])
        problems = [f"{file_of(d[key], key)}: {problem}" for key, problem in self._problems(d, images)]
        if problems:
            raise ValueError("\n".join(problems))
        return d

    def _problems(self, d: Mapping[Hashable, Any], images: Sequence[Hashable]) -> list[tuple[Hashable, str]]:
        found = [(key, problem) for key in images for problem in _image_problems(d[key], self.num_channels)]
        if self.label_key in d:
            label = d[self.label_key]
            problems = _label_problems(label, self.classes)
            for key in (key for key in images if d[key].ndim == label.ndim):
                problems += _geometry_problems(d[key], label, file_of(d[key], key), self.affine_tolerance)
            found += [(self.label_key, problem) for problem in problems]
        return found


def _as_volume(volume: torch.Tensor) -> torch.Tensor:
    if volume.ndim != 3:
        return volume
    deep = volume.unsqueeze(-1)
    if isinstance(deep, MetaTensor):
        deep.affine = to_affine_nd(3, deep.affine)
    return deep


def _image_problems(image: torch.Tensor, num_channels: int | None) -> list[str]:
    voxels = convert_to_tensor(image, track_meta=False)
    problems = shape_problems(tuple(voxels.shape), num_channels, is_picture(Path(file_of(image, ""))))
    if not voxels.numel():
        return problems
    if isinstance(image, MetaTensor) and not _has_place(image.affine):
        problems.append(
            "does not tell where its voxels lie: their distances or directions are 0 or not finite. Convert the scan "
            "from its source again, or correct its header."
        )
    lowest, highest = voxels.aminmax()
    if not (lowest.isfinite() and highest.isfinite()):
        nan, infinite = int(voxels.isnan().sum()), int(voxels.isinf().sum())
        problems.append(
            f"holds {nan} NaN and {infinite} infinite values among {voxels.numel()} voxels; "
            "give them a finite value, e.g. the lowest of the scan."
        )
    elif lowest == highest:
        problems.append(f"is constant, every voxel is {lowest.item():g}; export the scan again, or leave it out.")
    return problems


def _has_place(affine: torch.Tensor) -> bool:
    return bool(affine.isfinite().all() and torch.linalg.det(affine.double()) != 0)


def _label_problems(label: torch.Tensor, classes: Collection[int] | None) -> list[str]:
    values = convert_to_tensor(label, track_meta=False)
    problems = shape_problems(tuple(values.shape), num_channels=1)
    known = _known_voxels(values, classes)
    odd = values[~known] if not known.all() else values[:0]
    broken = odd[odd != odd.round()] if odd.is_floating_point() else odd[:0]
    if broken.numel():
        listed = list_values(broken)
        return [*problems, f"holds values that are no integers: {listed}; a label map holds class numbers."]
    if odd.numel():
        expected = "0 and positive integers" if not classes else f"0 and {', '.join(map(str, classes))}"
        problems.append(
            f"holds {list_values(odd)}; expected {expected}. Correct the label, or the classes (labels in "
            "dataset.json)."
        )
    if values.numel() and values.max() > HIGHEST_CLASS:
        problems.append(
            f"holds class numbers up to {values.max().item():.0f}; they can be told apart up to {HIGHEST_CLASS}: give "
            "the classes lower numbers."
        )
    if not (values > 0).any():
        problems.append("is empty, no voxel is above 0; annotate at least one class, or leave the scan out.")
    return problems


def _known_voxels(values: torch.Tensor, classes: Collection[int] | None) -> torch.Tensor:
    """Where a label holds a class or background; a comparison each takes a fraction of the time of ``torch.isin``."""
    if not classes:
        return (values >= 0) & (values == values.round()) if values.is_floating_point() else values >= 0
    known = values == 0
    for number in classes:
        known |= values == number
    return known


def shape_problems(shape: tuple[int, ...], num_channels: int | None, of_picture: bool = False) -> list[str]:
    """Tell what is wrong with the shape of a loaded volume.

    Args:
        shape: (C, H, W, D).
        num_channels: that it must have; None for any.
        of_picture: whether it is a 2D picture.

    Returns:
        Problems, which do not name the file.
    """
    if len(shape) != 4:
        return [f"has {len(shape) - 1} axes beside the channels {shape}; expected a volume (C, H, W, D)."]
    if num_channels in (None, shape[0]):
        return []
    if of_picture:
        kind, expected, mode = ("color", "gray", "L") if shape[0] == 3 else ("gray", "color", "RGB")
        return [
            f"is a {kind} picture; expected a {expected} one, as the example is, or the model learned from. Convert "
            f'it, e.g. with PIL.Image.open(file).convert("{mode}"), or leave it out.'
        ]
    return [
        f"has {shape[0]} channels of {shape[1:]} voxels; expected {num_channels}. In a 4D file the channels lie along "
        "the last axis: save the one time point or contrast to be segmented as a 3D file. Turn RGB colors into gray "
        "values, and a one-hot label into a map of class numbers."
    ]


def _geometry_problems(image: torch.Tensor, label: torch.Tensor, image_source: str, tolerance: float) -> list[str]:
    remedy = "resample the label onto the image, e.g. with monai.transforms.ResampleToMatch."
    if image.shape[1:] != label.shape[1:]:
        sizes = f"{tuple(label.shape[1:])} voxels, but its image {image_source} {tuple(image.shape[1:])}"
        return [f"has {sizes}; {remedy}"]
    if not (isinstance(image, MetaTensor) and isinstance(label, MetaTensor)):
        return []
    distance = corner_distance(image.affine, label.affine, image.shape[1:])
    if distance <= tolerance:
        return []
    return [f"lies up to {distance:.3g} mm away from its image {image_source}, as their affines differ; {remedy}"]


def corner_distance(a: torch.Tensor, b: torch.Tensor, size: Sequence[int]) -> float:
    """Greatest distance in mm by which two affines place a corner voxel of a volume of ``size`` apart."""
    corners = torch.tensor(list(itertools.product(*((0, n - 1) for n in size))), dtype=torch.float64)
    shift = (to_affine_nd(len(size), a) - to_affine_nd(len(size), b)).to(corners)
    return (corners @ shift[:-1, :-1].T + shift[:-1, -1]).norm(dim=1).max().item()


CheckScanD = CheckScanDict = CheckScand
