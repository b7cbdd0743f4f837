# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

sitk, has_sitk = optional_import("SimpleITK")

__all__ = ["RAS_TO_LPS", "ScanRegistration", "as_itk"]

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


class ScanRegistration:
    """Finds the affine transform that lays the annotated part of one scan on another scan, with SimpleITK.

    The transform T maximizes the mutual information (Mattes) of ``fixed(x)`` and ``moving(T(x))``, so that the scans
    need not agree in intensities, over the places x for which T(x) is within ``margin`` of what is annotated: patients
    differ, and what lays their chests on one another does not lay their hearts on one another. x and T(x) are in mm,
    which does justice to slices farther apart than pixels.

    The search has two beginnings: the start that is given, and the affine transform that lays the whole scans on one
    another. From each a similarity, then an affine transform of the annotated part is found by gradient descent, and
    the one with more mutual information is taken. Voxels are averaged along each axis by as much as brings them near
    the resolution.

    Based on: Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE Transactions on
    Medical Imaging 22(1), 2003, https://doi.org/10.1109/TMI.2003.809072, as SimpleITK has it.

    Deviation: affine transforms alone. Their B-splines, and demons, made labels fit worse in pairs of training scans:
    ``bundles/registration/docs/README.md`` has the figures.

    Args:
        resolution: in mm, at which scans are compared.
        margin: distance in mm from what is annotated within which scans are compared.
        iterations: most steps of regular-step gradient descent for each of the transforms; 0 leaves the start as it is.
        num_bins: of the joint histogram of intensities, along each side, 5 or more.
        num_threads: that compute; 0 for as many as SimpleITK takes.

    Raises:
        ValueError: where an argument is out of its range.
        OptionalImportError: where SimpleITK is not installed.

    Example:
        >>> ball = torch.linspace(-1, 1, 32)[:, None, None] ** 2 + torch.linspace(-1, 1, 32)[:, None] ** 2
        >>> ball = (ball + torch.linspace(-1, 1, 32) ** 2).sqrt()
        >>> scan, label = (as_itk(array, np.diag([2.0, 2, 2, 1])) for array in (ball, (ball < 0.5).to(torch.int16)))
        >>> ScanRegistration()(scan, scan, label).GetDimension()
        3
    """

    def __init__(
        self,
        resolution: float = 8.0,
        margin: float = 20.0,
        iterations: int = 100,
        num_bins: int = 32,
        num_threads: int = 1,
    ) -> None:
        if resolution <= 0 or min(margin, iterations, num_threads) < 0 or num_bins < 5:
            raise ValueError(
                "resolution must be above 0, margin, iterations and num_threads 0 or more, num_bins 5 or more, got "
                f"{resolution}, {margin}, {iterations}, {num_threads} and {num_bins}."
            )
        self.resolution = resolution
        self.margin = margin
        self.iterations = iterations
        self.num_bins = num_bins
        self.num_threads = num_threads

    def __call__(self, fixed: Any, moving: Any, label: Any, translation: Sequence[float] = (0.0, 0.0, 0.0)) -> Any:
        """Register two scans.

        Args:
            fixed: ``SimpleITK.Image`` in floating point, 3D.
            moving: the same.
            label: integer image on the grid of ``moving``, above 0 where something is annotated.
            translation: in mm, from points of ``fixed`` to those of ``moving``; where to start.

        Returns:
            ``SimpleITK.Transform`` from points of ``fixed`` to points of ``moving``.

        Raises:
            ValueError: where the scans do not overlap, at the start or further on.
        """
        start = sitk.TranslationTransform(3, [float(part) for part in translation])
        _check_overlap(fixed, moving, start)
        if not self.iterations:
            return start
        near = _surroundings(label, self.margin)
        fixed, moving = _shrink(fixed, self.resolution), _shrink(moving, self.resolution)
        try:
            whole = self._improve(start, sitk.AffineTransform(3), fixed, moving)
        except RuntimeError as error:
            raise _failure(error) from error
        return self._nearby([start, whole], fixed, moving, near)

    def _nearby(self, beginnings: Sequence[Any], fixed: Any, moving: Any, near: Any) -> Any:
        """Improve each beginning where something is annotated; return the one that is then most alike there."""
        found = []
        for beginning in beginnings:
            try:
                similar = self._improve(beginning, sitk.Similarity3DTransform(), fixed, moving, near)
                affine = self._improve(similar, sitk.AffineTransform(3), fixed, moving, near)
                found.append((self._unlikeness(affine, fixed, moving, near), affine))
            except RuntimeError as error:
                failure = _failure(error)
        if not found:
            raise failure
        return min(found, key=lambda item: item[0])[1]

    def _improve(self, found: Any, change: Any, fixed: Any, moving: Any, near: Any = None) -> Any:
        """Return ``found(change(x))``, with the change of its kind that makes the scans most alike."""
        change.SetCenter(_center(fixed))
        method = self._method(near)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-3,
            numberOfIterations=self.iterations,
            relaxationFactor=0.6,
            estimateLearningRate=method.Once,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetMovingInitialTransform(found)
        method.SetInitialTransform(change, inPlace=True)
        method.Execute(fixed, moving)
        return sitk.CompositeTransform([found, change])

    def _unlikeness(self, found: Any, fixed: Any, moving: Any, near: Any) -> float:
        method = self._method(near)
        method.SetInitialTransform(found)
        return float(method.MetricEvaluate(fixed, moving))

    def _method(self, near: Any) -> Any:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(self.num_bins)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(sitk.sitkLinear)
        if near is not None:
            method.SetMetricMovingMask(near)
        if self.num_threads:
            method.SetNumberOfThreads(self.num_threads)
        return method


def as_itk(volume: torch.Tensor, affine: np.ndarray) -> Any:
    """Hand a volume to SimpleITK.

    Args:
        volume: (H, W, D).
        affine: (4, 4) in mm, from array indices to right, anterior, superior.

    Returns:
        ``SimpleITK.Image``, of the same values and place in the scanner.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.cpu().numpy().transpose()))
    axes, origin = RAS_TO_LPS[:, None] * affine[:3, :3], RAS_TO_LPS * affine[:3, 3]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    return image


def _shrink(image: Any, resolution: float) -> Any:
    factors = np.clip(np.round(resolution / np.array(image.GetSpacing())), 1, image.GetSize())
    return sitk.BinShrink(image, [int(factor) for factor in factors])


def _center(image: Any) -> tuple[float, ...]:
    middle: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    return middle


def _surroundings(label: Any, margin: float) -> Any:
    distance = sitk.SignedMaurerDistanceMap(
        label > 0, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return distance <= margin


def _check_overlap(fixed: Any, moving: Any, start: Any) -> None:
    everywhere = sitk.Cast(moving * 0 + 1, sitk.sitkUInt8)
    if not sitk.GetArrayFromImage(sitk.Resample(everywhere, fixed, start, sitk.sitkNearestNeighbor, 0)).any():
        centers = [np.round(_center(image)).tolist() for image in (fixed, moving)]
        raise ValueError(
            f"The fields of view do not overlap: their centers lie at {centers[0]} and {centers[1]} mm (left, "
            "posterior, superior). Were they taken in different positions? Lay them on one another by their axes, "
            'placement "axes".'
        )


def _failure(error: RuntimeError) -> ValueError:
    reason = str(error).strip().splitlines()[-1]
    return ValueError(
        f"The scans cannot be registered: {reason} Do they show the same part of the body, with spacings in mm?"
    )
