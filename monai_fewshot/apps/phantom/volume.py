# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .anatomy import make_patient, paint
from .appearance import LOOKS, render

__all__ = ["check_phantom_arguments", "make_phantom_volume"]

FIELD_OF_VIEW = (320.0, 320.0, 192.0)
SMALLEST_SIZE = (32, 32, 8)


def check_phantom_arguments(seed: int, size: Sequence[int], modality: str) -> tuple[int, int, int]:
    """Check what all volumes of a data set share.

    Returns:
        The size.

    Raises:
        ValueError: if the seed is negative, the size is not three whole numbers of at least (32, 32, 8), or there is no
            such modality.
    """
    if modality not in LOOKS:
        raise ValueError(f"modality is {modality!r}; choose {' or '.join(map(repr, LOOKS))}.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give 0 or a positive whole number.")
    if len(size) != 3 or any(int(n) != n or n < least for n, least in zip(size, SMALLEST_SIZE, strict=True)):
        raise ValueError(
            f"size is {tuple(size)}; give three whole numbers of voxels, at least {SMALLEST_SIZE}, "
            "or the kidneys are lost between the voxels."
        )
    return int(size[0]), int(size[1]), int(size[2])


def make_phantom_volume(
    index: int, seed: int = 0, size: Sequence[int] = (128, 128, 32), modality: str = "mr"
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.float64]]:
    """Make an abdominal scan of a patient who does not exist, with the organs of the few-shot benchmarks labelled.

    Patient ``index`` has the same anatomy in both modalities and, but for the noise, in every size: the field of view
    is 320 x 320 x 192 mm, give or take 3 %, and `size` divides it into voxels. Organs share their intensities with one
    another, with muscle, heart and bowel, and change them from patient to patient.

    Args:
        index: number of the patient, from 0.
        seed: number of the population the patient is drawn from, from 0.
        size: voxels by axis, at least (32, 32, 8).
        modality: "mr" (as a fat-suppressed T2 sequence, about 0 to 1000, with bias field and Rician noise) or "ct"
            (Hounsfield units, contrast agent of varying phase).

    Returns:
        Image (H, W, D) int16; label (H, W, D) uint8, 0 background, 1 liver, 2 right kidney, 3 left kidney, 4 spleen;
        affine (4, 4) in mm, axes RAS.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> image, label, affine = make_phantom_volume(0, size=(64, 64, 16))
        >>> image.shape, np.unique(label).tolist()
        ((64, 64, 16), [0, 1, 2, 3, 4])
    """
    voxels = check_phantom_arguments(seed, size, modality)
    if index < 0:
        raise ValueError(f"index is {index}; patients count from 0.")
    streams = np.random.SeedSequence(seed, spawn_key=(index,)).spawn(3)
    scanner, anatomy, appearance = (np.random.default_rng(stream) for stream in streams)
    extent = np.array(FIELD_OF_VIEW) * (1 + 0.03 * scanner.uniform(-1, 1, 3))
    spacing = (extent / voxels).round(3)
    origin = (spacing - spacing * voxels) / 2 + scanner.uniform(-30, 30, 3).round(1)
    tissue, label = paint(make_patient(anatomy, voxels, spacing * voxels))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return render(appearance, tissue, spacing, modality), label, affine
