# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Registration by this package and by other libraries, on the same pairs of scans, with the time each takes.

    python benchmarks/registration_libraries.py --dataset_dir CHAOS --folds 0 1 --queries 1

The annotated scan of a fold is registered to each query scan of the fold, and its labels are propagated. All rows have
the same preparation of scans, the same start (the axes of the scans are parallel, their middles coincide, and along the
slice axis they lie where slices look most alike) and the same scoring: Dice over whole volumes, as many components of
each class as the annotated scan has. Only this package is told where the annotated classes lie. Rows "after our affine"
begin with its affine transform, and so compare deformations alone.

    pip install convexadam==0.2.0 antspyx==0.6.3 itk-elastix==0.25.4

A library that is not installed is skipped. Each runs on one thread and with its default settings. ConvexAdam works in
voxels, so its scans are resampled to 2 mm first. Seconds are the processor's: other processes hardly lengthen them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_fewshot.data import VolumePreparation
from monai_fewshot.inferers import RegistrationInferer, ScanRegistration
from monai_fewshot.metrics import ScoreSummary, summarize
from monai_fewshot.utils import later_import
from monai_fewshot.workflows import GivenModel, VolumeEvaluation

ants, has_ants = later_import("ants")
convex_adam, has_convex_adam = later_import("convexAdam.convex_adam_MIND")
elastix, has_elastix = later_import("itk.ElastixPython")
itk, _ = later_import("itk")
sitk, _ = later_import("SimpleITK")

ISOTROPIC = 2.0
"""Voxel size in mm at which ConvexAdam works."""
ONE_THREAD = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"}

Deform = Callable[[Any, Any], Any]
"""Finds the transform from points of a fixed to points of a moving image, which overlap."""


class TimedRegistration(ScanRegistration):
    """Registers by any function, and notes the processor seconds of each pair."""

    def __init__(self, register: Callable[..., Any]) -> None:
        super().__init__()
        self.register = register
        self.seconds: list[float] = []

    def __call__(self, fixed: Any, moving: Any, label: Any, translation: Sequence[float] = (0.0, 0.0, 0.0)) -> Any:
        """Register two scans."""
        begin = time.process_time()
        transform = self.register(fixed, moving, label, translation)
        self.seconds.append(time.process_time() - begin)
        return transform


def from_start(deform: Deform, fixed: Any, moving: Any, label: Any, translation: Sequence[float]) -> Any:
    """Register from the common start; the label is not looked at."""
    moved = sitk.Image(moving)
    moved.SetOrigin([place - part for place, part in zip(moving.GetOrigin(), translation, strict=True)])
    return sitk.CompositeTransform([sitk.TranslationTransform(3, list(translation)), deform(fixed, moved)])


def after_our_affine(deform: Deform, fixed: Any, moving: Any, label: Any, translation: Sequence[float]) -> Any:
    """Deform what this package's affine transform gives."""
    affine = ScanRegistration(deformation_levels=())(fixed, moving, label, translation)
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    moved = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, lowest)
    return sitk.CompositeTransform([affine, deform(fixed, moved)])


def with_ants(kind: str, fixed: Any, moving: Any) -> Any:
    """Register by ANTs, with one of its types of transform."""
    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            ants.from_sitk(fixed),
            ants.from_sitk(moving),
            kind,
            initial_transform="Identity",
            outprefix=f"{folder}/",
            random_seed=0,
        )
        parts = []
        for path in reversed(found["fwdtransforms"]):
            if path.endswith(".mat"):
                parts.append(sitk.ReadTransform(path))
            else:
                parts.append(sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64)))
    return sitk.CompositeTransform(parts)


def with_elastix(fixed: Any, moving: Any) -> Any:
    """Register by elastix, with its default parameter maps."""
    settings = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        settings.AddParameterMap(settings.GetDefaultParameterMap(kind))
    _, found = itk.elastix_registration_method(
        _to_itk(fixed), _to_itk(moving), parameter_object=settings, number_of_threads=1, log_to_console=False
    )
    with tempfile.TemporaryDirectory() as folder:
        field = itk.transformix_deformation_field(_to_itk(moving), found, output_directory=folder)
    return _field_transform(itk.array_from_image(field), fixed)


def with_convex_adam(fixed: Any, moving: Any) -> Any:
    """Register by ConvexAdam."""
    size = np.ceil(np.array(fixed.GetSize()) * fixed.GetSpacing() / ISOTROPIC).astype(int).tolist()
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing([ISOTROPIC] * 3)
    grid.SetDirection(fixed.GetDirection())
    grid.SetOrigin(fixed.GetOrigin())
    still, carried = (_array(sitk.Resample(image, grid)) for image in (fixed, moving))
    with torch.enable_grad():
        found = convex_adam.convex_adam_pt(still, carried, dtype=torch.float32, device=torch.device("cpu"))
    in_mm = found * ISOTROPIC @ np.array(fixed.GetDirection()).reshape(3, 3).T
    return _field_transform(in_mm.transpose(2, 1, 0, 3), grid)


def _array(image: Any) -> np.ndarray:
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose())


def _to_itk(image: Any) -> Any:
    converted = itk.image_from_array(sitk.GetArrayFromImage(image).astype(np.float32))
    converted.SetSpacing(image.GetSpacing())
    converted.SetOrigin(image.GetOrigin())
    converted.SetDirection(np.array(image.GetDirection()).reshape(3, 3))
    return converted


def _field_transform(field: np.ndarray, grid: Any) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(field, np.float64), isVector=True)
    image.CopyInformation(grid)
    return sitk.DisplacementFieldTransform(image)


def registrations() -> dict[str, Callable[..., Any]]:
    """What can be compared here, by name."""
    found: dict[str, Callable[..., Any]] = {
        "this package": ScanRegistration(),
        "this package, affine alone": ScanRegistration(deformation_levels=()),
    }
    if has_convex_adam:
        found["ConvexAdam after our affine"] = partial(after_our_affine, with_convex_adam)
    if has_ants:
        found["ANTs SyN after our affine"] = partial(after_our_affine, partial(with_ants, "SyNOnly"))
        found["ANTs affine and SyN"] = partial(from_start, partial(with_ants, "SyN"))
    if has_elastix:
        found["elastix affine and B-splines"] = partial(from_start, with_elastix)
    return found


def measure(arguments: argparse.Namespace, register: Callable[..., Any]) -> tuple[list[ScoreSummary], float]:
    """Return the Dice of each class and their mean, and the median of the processor seconds a pair."""
    timed = TimedRegistration(register)
    model = GivenModel(torch.nn.Identity(), VolumePreparation(clip_percentiles=[0.5, 99.5]), "cpu")
    inferer = partial(RegistrationInferer, "whole_volume", registration=timed)
    with tempfile.TemporaryDirectory() as folder:
        evaluation = VolumeEvaluation(arguments.dataset_dir, model, inferer, folder, "Registration", arguments.folds)
        evaluation.folds = [replace(fold, query=fold.query[: arguments.queries]) for fold in evaluation.folds]
        scores = evaluation.run()
    return [row for row in summarize(scores) if row.fold is None], statistics.median(timed.seconds)


def line(columns: Sequence[str]) -> str:
    """Join the columns of a table."""
    return f"| {' | '.join(columns)} |"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True, help="in the Decathlon layout")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--queries", type=int, help="the first so many of each fold; default: all")
    arguments = parser.parse_args(words)
    os.environ.update(ONE_THREAD)
    torch.set_num_threads(1)
    missing = {"convexadam": has_convex_adam, "antspyx": has_ants, "itk-elastix": has_elastix}
    for name in (name for name, installed in missing.items() if not installed):
        print(f"{name} is not installed and is skipped: pip install {name}", file=sys.stderr)
    first = 0.0
    for name, register in registrations().items():
        rows, seconds = measure(arguments, register)
        if not first:
            first = seconds
            print(
                line([arguments.dataset_dir.name, *(row.class_name for row in rows), "worst scan", "seconds", "ratio"])
            )
            print(line(["---"] * (len(rows) + 4)))
        worst = f"{100 * rows[-1].worst_dice:.1f} ({rows[-1].worst_scan})"
        dice = [f"{100 * row.dice:.1f}" for row in rows]
        print(line([name, *dice, worst, f"{seconds:.0f}", f"{seconds / first:.1f}"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
