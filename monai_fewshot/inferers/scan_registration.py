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
_SPLINE_ORDER = 3


class ScanRegistration:
    """Finds the affine, then the deformable transform that lays one scan on another, with SimpleITK.

    The transform T maximizes the mutual information (Mattes) of ``fixed(x)`` and ``moving(T(x))``, so that the scans
    need not agree in intensities. x and T(x) are in mm, which does justice to slices farther apart than pixels. T is
    ``affine(deformation(x))``, the deformation a cubic B-spline; both are found on coarse images first, then finer
    ones, whose pixels are averaged along each axis by as much as brings them near the level's resolution. The
    deformation is sampled at the finest level, which makes it fast to apply.

    Based on: Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE Transactions on
    Medical Imaging 22(1), 2003, https://doi.org/10.1109/TMI.2003.809072, as SimpleITK has it.

    The same scans and arguments give the same transform, but for the last digits.

    Args:
        levels: resolution in mm of each level, coarse to fine.
        affine_iterations: most steps of regular-step gradient descent at each level; 0 for no affine transform.
        deformable_iterations: most steps of L-BFGS-B at each level; 0 for no deformation.
        mesh: distance in mm between the points that move the B-spline.
        num_bins: of the joint histogram of intensities, along each side, 5 or more.
        sampling: share of the voxels that the mutual information is computed from, above 0 and up to 1.
        seed: of the choice of these voxels.
        num_threads: that compute; 0 for as many as SimpleITK takes.

    Raises:
        ValueError: where an argument is out of its range.
        OptionalImportError: where SimpleITK is not installed.

    Example:
        >>> registration = ScanRegistration(levels=[8], deformable_iterations=0)
        >>> ball = torch.linspace(-1, 1, 32)[:, None, None] ** 2 + torch.linspace(-1, 1, 32)[:, None] ** 2
        >>> scan = as_itk((ball + torch.linspace(-1, 1, 32) ** 2).sqrt(), np.diag([2.0, 2, 2, 1]))
        >>> registration(scan, scan).GetDimension()
        3
    """

    def __init__(
        self,
        levels: Sequence[float] = (8.0, 4.0),
        affine_iterations: int = 100,
        deformable_iterations: int = 15,
        mesh: float = 60.0,
        num_bins: int = 32,
        sampling: float = 0.1,
        seed: int = 0,
        num_threads: int = 1,
    ) -> None:
        if not levels or min(levels) <= 0 or mesh <= 0 or not 0 < sampling <= 1 or num_bins < 5:
            raise ValueError(
                "levels and mesh must be above 0, sampling above 0 and up to 1, num_bins 5 or more, got "
                f"{list(levels)}, {mesh}, {sampling} and {num_bins}."
            )
        if min(affine_iterations, deformable_iterations, num_threads) < 0:
            raise ValueError(
                "affine_iterations, deformable_iterations and num_threads must be 0 or more, got "
                f"{affine_iterations}, {deformable_iterations} and {num_threads}."
            )
        self.levels = tuple(levels)
        self.affine_iterations = affine_iterations
        self.deformable_iterations = deformable_iterations
        self.mesh = mesh
        self.num_bins = num_bins
        self.sampling = sampling
        self.seed = seed
        self.num_threads = num_threads

    def __call__(self, fixed: Any, moving: Any, translation: Sequence[float] = (0.0, 0.0, 0.0)) -> Any:
        """Register two scans.

        Args:
            fixed: ``SimpleITK.Image`` in floating point, 3D.
            moving: the same.
            translation: in mm, from points of ``fixed`` to those of ``moving``; where to start.

        Returns:
            ``SimpleITK.Transform`` from points of ``fixed`` to points of ``moving``.

        Raises:
            ValueError: where the scans do not overlap, at the start or further on.
        """
        _check_overlap(fixed, moving, translation)
        pyramid = [(_shrink(fixed, level), _shrink(moving, level)) for level in self.levels]
        affine = sitk.AffineTransform(3)
        affine.SetCenter(_center(fixed))
        affine.SetTranslation([float(part) for part in translation])
        try:
            return self._deform(pyramid, self._move(pyramid, affine))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"The scans cannot be registered: {reason} Do they show the same part of the body, with spacings in mm?"
            ) from error

    def _move(self, pyramid: Sequence[tuple[Any, Any]], affine: Any) -> Any:
        for fixed, moving in pyramid if self.affine_iterations else []:
            method = self._method()
            method.SetOptimizerAsRegularStepGradientDescent(
                learningRate=1.0,
                minStep=1e-3,
                numberOfIterations=self.affine_iterations,
                relaxationFactor=0.6,
                estimateLearningRate=method.Once,
            )
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetInitialTransform(affine, inPlace=True)
            method.Execute(fixed, moving)
        return affine

    def _deform(self, pyramid: Sequence[tuple[Any, Any]], affine: Any) -> Any:
        if not self.deformable_iterations:
            return affine
        finest = pyramid[-1][0]
        extent = np.array(finest.GetSize()) * finest.GetSpacing()
        cells = np.maximum(1, np.round(extent / self.mesh)).astype(int).tolist()
        spline = sitk.BSplineTransformInitializer(finest, cells, _SPLINE_ORDER)
        for fixed, moving in pyramid:
            method = self._method()
            method.SetOptimizerAsLBFGSB(numberOfIterations=self.deformable_iterations)
            method.SetMovingInitialTransform(affine)
            method.SetInitialTransform(spline, inPlace=True)
            method.Execute(fixed, moving)
        grid = finest.GetSize(), finest.GetOrigin(), finest.GetSpacing(), finest.GetDirection()
        field = sitk.TransformToDisplacementField(spline, sitk.sitkVectorFloat64, *grid)
        return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)])

    def _method(self) -> Any:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(self.num_bins)
        method.SetMetricSamplingStrategy(method.RANDOM if self.sampling < 1 else method.NONE)
        method.SetMetricSamplingPercentage(self.sampling, self.seed + 1)
        method.SetInterpolator(sitk.sitkLinear)
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


def _check_overlap(fixed: Any, moving: Any, translation: Sequence[float]) -> None:
    start = sitk.TranslationTransform(3, [float(part) for part in translation])
    everywhere = sitk.Cast(moving * 0 + 1, sitk.sitkUInt8)
    if not sitk.GetArrayFromImage(sitk.Resample(everywhere, fixed, start, sitk.sitkNearestNeighbor, 0)).any():
        centers = [np.round(_center(image)).tolist() for image in (fixed, moving)]
        raise ValueError(
            f"The fields of view do not overlap: their centers lie at {centers[0]} and {centers[1]} mm (left, "
            "posterior, superior). Were they taken in different positions? Lay them on one another by their axes, "
            'placement "axes".'
        )
