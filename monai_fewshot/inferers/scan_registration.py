# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.utils import OptionalImportError

from monai_fewshot.utils import later_import

sitk, has_sitk = later_import("SimpleITK")

__all__ = ["RAS_TO_LPS", "ScanRegistration", "as_itk"]

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_HISTOGRAM_LEVELS, _MATCH_POINTS = 128, 10
_LEAST_VOXELS = 4


class _Pair(NamedTuple):
    """Two scans, and where in the moving one they are compared; everywhere for None."""

    fixed: Any
    moving: Any
    near: Any = None


class ScanRegistration:
    """Finds the transform that lays the annotated part of one scan on another scan, affine, then deformable.

    Patients differ, and what lays their bodies on one another does not lay their hearts on one another: scans are
    compared over the places x for which T(x) is within ``margin`` of what is annotated. There T, from places of the
    fixed scan to places of the moving one, in mm, maximizes the mutual information (Mattes) of ``fixed(x)`` and
    ``moving(T(x))``, for which the scans need not agree in intensities. Voxels are averaged along each axis by as much
    as brings them near a resolution in mm, which does justice to slices farther apart than pixels.

    - The search has two beginnings: the start that is given, and the affine transform that lays the whole scans on one
      another. From each a similarity, then an affine transform is found by gradient descent.
    - That of the two with more mutual information is deformed by demons, once intensities have been matched by their
      histograms. Where this adds no mutual information, as between scans of different contrasts, it is left out.

    Based on: Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE Transactions on
    Medical Imaging 22(1), 2003, https://doi.org/10.1109/TMI.2003.809072; Vercauteren et al., "Insight
    into efficient image registration techniques and the demons algorithm", IPMI 2007; as
    SimpleITK has them.

    Args:
        resolution: in mm, at which scans are compared.
        margin: distance in mm from what is annotated within which scans are compared.
        iterations: most steps of regular-step gradient descent for each of the transforms; 0 leaves the start as it is.
        num_bins: of the joint histogram of intensities, along each side, 5 or more.
        deformation_levels: resolution in mm of each level of the demons, coarse to fine; none for affine transforms.
        deformation_iterations: of the demons at each level.
        smoothing: standard deviation in voxels of the Gaussian that smooths the displacements after each iteration.
        num_threads: that search for a transform; 0 for as many as SimpleITK takes. One always finds the same transform;
            several round differently from run to run, which moves it a little.

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
        deformation_levels: Sequence[float] = (8.0, 4.0),
        deformation_iterations: int = 60,
        smoothing: float = 1.0,
        num_threads: int = 1,
    ) -> None:
        if not has_sitk:
            raise OptionalImportError(
                "registration needs SimpleITK, which is not installed: pip install 'monai_fewshot[registration]'"
            )
        if min(resolution, smoothing, *deformation_levels) <= 0 or num_bins < 5:
            raise ValueError(
                "resolution, deformation_levels and smoothing must be above 0, num_bins 5 or more, got "
                f"{resolution}, {list(deformation_levels)}, {smoothing} and {num_bins}."
            )
        if min(margin, iterations, deformation_iterations, num_threads) < 0:
            raise ValueError(
                "margin, iterations, deformation_iterations and num_threads must be 0 or more, got "
                f"{margin}, {iterations}, {deformation_iterations} and {num_threads}."
            )
        self.resolution = resolution
        self.margin = margin
        self.iterations = iterations
        self.num_bins = num_bins
        self.deformation_levels = tuple(deformation_levels)
        self.deformation_iterations = deformation_iterations
        self.smoothing = smoothing
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
            ValueError: where a scan has fewer than 4 voxels along an axis, or the scans do not overlap, at the start or
                further on.
        """
        start = sitk.TranslationTransform(3, [float(part) for part in translation])
        _check_overlap(fixed, moving, start)
        if not self.iterations:
            return start
        _check_size(fixed, moving)
        whole = _Pair(_shrink(fixed, self.resolution), _shrink(moving, self.resolution))
        pair = whole._replace(near=_surroundings(label, self.margin))
        try:
            with _threads(self.num_threads):
                beginnings = [start, self._improve(start, sitk.AffineTransform(3), whole)]
                return self._deform(self._nearby(beginnings, pair), fixed, moving, pair)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"The scans cannot be registered: {reason} Do they show the same part of the body, with spacings in mm?"
            ) from error

    def _nearby(self, beginnings: Sequence[Any], pair: _Pair) -> Any:
        """Improve each beginning where the scans are compared; return the one that is then most alike there."""
        found, failures = [], []
        for beginning in beginnings:
            try:
                similar = self._improve(beginning, sitk.Similarity3DTransform(), pair)
                found.append(self._improve(similar, sitk.AffineTransform(3), pair))
            except RuntimeError as error:
                failures.append(error)
        if not found:
            raise failures[0]
        return max(found, key=lambda transform: self._likeness(transform, pair))

    def _improve(self, found: Any, change: Any, pair: _Pair) -> Any:
        """Return ``found(change(x))``, with the change of its kind that makes the scans most alike."""
        change.SetCenter(_center(pair.fixed))
        method = self._method(found, change, pair.near)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-3,
            numberOfIterations=self.iterations,
            relaxationFactor=0.6,
            estimateLearningRate=method.Once,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.Execute(pair.fixed, pair.moving)
        return sitk.CompositeTransform([found, change])

    def _deform(self, affine: Any, fixed: Any, moving: Any, pair: _Pair) -> Any:
        """Return ``affine(x + displacement(x))`` where this is more alike than ``affine(x)``, which it is otherwise."""
        field = None
        for level in self.deformation_levels:
            still, carried = _shrink(fixed, level), _shrink(moving, level)
            lowest = float(sitk.GetArrayViewFromImage(carried).min())
            carried = sitk.Resample(carried, still, affine, sitk.sitkLinear, lowest)
            carried = sitk.HistogramMatching(carried, still, _HISTOGRAM_LEVELS, _MATCH_POINTS)
            begun: list[Any] = [] if field is None else [sitk.Resample(field, still)]
            field = self._demons().Execute(still, carried, *begun)
        if field is None:
            return affine
        deformed = sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)])
        return max((affine, deformed), key=lambda transform: self._likeness(transform, pair))

    def _demons(self) -> Any:
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(self.deformation_iterations)
        demons.SetStandardDeviations(self.smoothing)
        return demons

    def _likeness(self, found: Any, pair: _Pair) -> float:
        method = self._method(found, sitk.TranslationTransform(3), pair.near)
        return -float(method.MetricEvaluate(pair.fixed, pair.moving))

    def _method(self, found: Any, change: Any, near: Any) -> Any:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(self.num_bins)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMovingInitialTransform(found)
        method.SetInitialTransform(change, inPlace=True)
        if near is not None:
            method.SetMetricMovingMask(near)
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


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Limit the threads of all that SimpleITK does; with a limit on the registration alone, sums still differed."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number or before)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _shrink(image: Any, resolution: float) -> Any:
    most = np.array(image.GetSize()) // _LEAST_VOXELS
    factors = np.clip(np.round(resolution / np.array(image.GetSpacing())), 1, most)
    return sitk.BinShrink(image, [int(factor) for factor in factors])


def _center(image: Any) -> tuple[float, ...]:
    middle: tuple[float, ...] = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    return middle


def _surroundings(label: Any, margin: float) -> Any:
    distance = sitk.SignedMaurerDistanceMap(
        label > 0, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
    )
    return distance <= margin


def _check_size(fixed: Any, moving: Any) -> None:
    sizes = fixed.GetSize(), moving.GetSize()
    if min(map(min, sizes)) < _LEAST_VOXELS:
        raise ValueError(
            f"Scans have {_LEAST_VOXELS} voxels or more along each axis where they are registered, got {sizes[0]} and "
            f"{sizes[1]}. For images take a method that segments slices."
        )


def _check_overlap(fixed: Any, moving: Any, start: Any) -> None:
    everywhere = sitk.Cast(moving * 0 + 1, sitk.sitkUInt8)
    if not sitk.GetArrayFromImage(sitk.Resample(everywhere, fixed, start, sitk.sitkNearestNeighbor, 0)).any():
        centers = [np.round(_center(image)).tolist() for image in (fixed, moving)]
        raise ValueError(
            f"The fields of view do not overlap: their centers lie at {centers[0]} and {centers[1]} mm (left, "
            "posterior, superior). Were they taken in different positions? Lay them on one another by their axes, "
            'placement "axes".'
        )
