# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.transforms import ScaleIntensityRangePercentiles

from monai_fewshot.metrics import ScanScore
from monai_fewshot.utils import check_zip, write_atomically

from .overlay import orient_slice

__all__ = ["SliceCase", "capture_case", "read_cases", "select_cases", "write_cases"]

ARRAYS = ("image", "label", "predictions", "label_pixels", "predicted_pixels")


@dataclass(frozen=True, eq=False)
class SliceCase:
    """What a report shows of one class of one scan, without keeping its volumes.

    Attributes:
        fold: cross-validation fold.
        scan: name of the scan.
        class_name: the class.
        protocols: names of the protocols it was segmented under.
        slice_index: the slice with most pixels of the class, counted from 0.
        pixel_aspect: height of a pixel over its width.
        image: (rows, columns) uint8, turned as radiologists look at it; (rows, columns, 3) for colors.
        label: (rows, columns) bool.
        predictions: (protocols, rows, columns) bool.
        label_pixels: (D,) pixels of the class in every slice.
        predicted_pixels: (protocols, D) pixels predicted in every slice.
    """

    fold: int
    scan: str
    class_name: str
    protocols: tuple[str, ...]
    slice_index: int
    pixel_aspect: float
    image: np.ndarray
    label: np.ndarray
    predictions: np.ndarray
    label_pixels: np.ndarray
    predicted_pixels: np.ndarray


def capture_case(
    fold: int,
    scan: str,
    class_name: str,
    image: np.ndarray,
    label: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    affine: np.ndarray,
) -> SliceCase | None:
    """Keep the slice that holds most of a class.

    Args:
        fold: cross-validation fold.
        scan: name of the scan.
        class_name: the class.
        image: (H, W, D), or (H, W, D, 3) for colors, of any range; the darkest and brightest 0.5 % of each channel of
            the slice are clipped.
        label: (H, W, D) bool, the class's ground truth.
        predictions: (H, W, D) bool, by protocol.
        affine: (4, 4) from voxels to RAS millimeters, to turn the picture.

    Returns:
        The case, or None where the scan does not hold the class.
    """
    if not label.any():
        return None
    label_pixels = label.sum((0, 1))
    index = int(label_pixels.argmax())
    volumes = np.stack([np.asarray(predicted, dtype=bool) for predicted in predictions.values()])
    window = ScaleIntensityRangePercentiles(0.5, 99.5, 0, 255, clip=True, channel_wise=True, dtype=np.uint8)
    channels = np.asarray(window(np.atleast_3d(image[:, :, index]).transpose(2, 0, 1)))
    slices = (channels, label[..., index], volumes[..., index])
    turned, aspects = zip(*(orient_slice(array, affine) for array in slices), strict=True)
    colors, truth, predicted = (array.copy() for array in turned)
    picture = (colors[0] if len(colors) == 1 else colors.transpose(1, 2, 0)).copy()
    return SliceCase(
        fold=fold,
        scan=scan,
        class_name=class_name,
        protocols=tuple(predictions),
        slice_index=index,
        pixel_aspect=aspects[0],
        image=picture,
        label=truth,
        predictions=predicted,
        label_pixels=label_pixels,
        predicted_pixels=volumes.sum((1, 2)),
    )


def select_cases(
    scores: Iterable[ScanScore], cases: Iterable[SliceCase], protocol: str
) -> dict[str, dict[str, SliceCase]]:
    """Choose the best, the median and the worst case of every class by Dice.

    Args:
        scores: of the same scans; those without a case, and undefined ones, are passed over.
        cases: to choose from.
        protocol: whose Dice counts.

    Returns:
        Cases by class name, then by ``best``, ``median`` (the lower one of an even number) and ``worst``. A class
        with two cases has no median, a class with one has only a best case.
    """
    by_key = {(case.fold, case.scan, case.class_name): case for case in cases}
    defined = [score for score in scores if score.protocol == protocol and not math.isnan(score.dice)]
    ranked: dict[str, list[SliceCase]] = {}
    for score in sorted(defined, key=lambda score: score.dice, reverse=True):
        case = by_key.get((score.fold, score.scan, score.class_name))
        if case is not None:
            ranked.setdefault(score.class_name, []).append(case)
    return {name: _ranks(descending) for name, descending in ranked.items()}


def _ranks(descending: Sequence[SliceCase]) -> dict[str, SliceCase]:
    number = len(descending)
    places = {"best": 0, "median": number // 2, "worst": number - 1}
    kept = {1: ("best",), 2: ("best", "worst")}.get(number, tuple(places))
    return {rank: descending[places[rank]] for rank in kept}


def write_cases(cases: Iterable[SliceCase], path: str | os.PathLike[str]) -> Path:
    """Write cases to one compressed file, so that a report can be made of folds evaluated one by one.

    Args:
        cases: what to write.
        path: a ``.npz`` file.

    Returns:
        The path.
    """
    cases = list(cases)
    facts = [{key: value for key, value in vars(case).items() if key not in ARRAYS} for case in cases]
    arrays = {f"{number}/{key}": getattr(case, key) for number, case in enumerate(cases) for key in ARRAYS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.array(json.dumps(facts)), **arrays)
    return write_atomically(path, buffer.getvalue())


def read_cases(path: str | os.PathLike[str]) -> list[SliceCase]:
    """Read what :func:`write_cases` wrote.

    Args:
        path: the ``.npz`` file.

    Returns:
        The cases.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There are no cases at {path}. Name the cases file of an evaluation.")
    try:
        check_zip(path)
    except Exception as error:  # whatever damage makes zipfile raise
        raise ValueError(f"{path} is damaged ({error}): evaluate again.") from error
    with np.load(path, allow_pickle=False) as stored:
        return [
            SliceCase(
                **{**facts, "protocols": tuple(facts["protocols"])},
                **{key: stored[f"{number}/{key}"] for key in ARRAYS},
            )
            for number, facts in enumerate(json.loads(str(stored["facts"])))
        ]
