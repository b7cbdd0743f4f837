# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""How the tissues of a phantom patient look: CT in Hounsfield units, MR like a fat-suppressed T2 sequence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .anatomy import Tissue, smooth_noise


class Look(NamedTuple):
    """Intensities of a tissue, in HU (CT) or arbitrary units (MR).

    Args:
        mean: of the mean patient.
        spread: standard deviation between patients.
        fine: standard deviation of the texture of 2 mm.
        coarse: standard deviation of the texture of 7 mm.
        enhancement: CT only, HU that a full dose of contrast agent adds; a patient has between 30 and 100 % of it.
    """

    mean: float
    spread: float
    fine: float
    coarse: float
    enhancement: float = 0


LOOKS: dict[str, dict[Tissue, Look]] = {
    "mr": {
        Tissue.AIR: Look(0, 0, 0, 0),
        Tissue.FAT: Look(120, 20, 10, 20),
        Tissue.MUSCLE: Look(270, 20, 30, 35),
        Tissue.LUNG: Look(35, 8, 8, 5),
        Tissue.BONE: Look(90, 15, 15, 10),
        Tissue.MARROW: Look(300, 40, 15, 30),
        Tissue.DISC: Look(400, 60, 10, 20),
        Tissue.FLUID: Look(800, 40, 5, 5),
        Tissue.ARTERY: Look(90, 30, 10, 10),
        Tissue.VEIN: Look(430, 60, 15, 15),
        Tissue.HEART: Look(330, 40, 30, 60),
        Tissue.BOWEL: Look(300, 30, 40, 50),
        Tissue.BOWEL_CONTENT: Look(450, 50, 40, 100),
        Tissue.STOMACH: Look(330, 40, 20, 20),
        Tissue.STOMACH_CONTENT: Look(430, 80, 20, 70),
        Tissue.GAS: Look(20, 5, 0, 0),
        Tissue.LIVER: Look(320, 25, 16, 20),
        Tissue.LIVER_VESSEL: Look(460, 50, 10, 10),
        Tissue.KIDNEY_CORTEX: Look(600, 40, 25, 25),
        Tissue.KIDNEY_MEDULLA: Look(700, 50, 25, 25),
        Tissue.SPLEEN: Look(460, 30, 15, 25),
    },
    "ct": {
        Tissue.AIR: Look(-1000, 0, 0, 0),
        Tissue.FAT: Look(-100, 6, 8, 10),
        Tissue.MUSCLE: Look(58, 5, 16, 12, 20),
        Tissue.LUNG: Look(-820, 25, 40, 30),
        Tissue.BONE: Look(480, 60, 60, 60),
        Tissue.MARROW: Look(170, 35, 30, 25),
        Tissue.DISC: Look(80, 8, 10, 8),
        Tissue.FLUID: Look(12, 4, 3, 3),
        Tissue.ARTERY: Look(42, 3, 4, 3, 130),
        Tissue.VEIN: Look(40, 3, 4, 8, 110),
        Tissue.HEART: Look(42, 4, 8, 20, 90),
        Tissue.BOWEL: Look(38, 8, 18, 22, 60),
        Tissue.BOWEL_CONTENT: Look(70, 35, 30, 60),
        Tissue.STOMACH: Look(40, 5, 8, 8, 50),
        Tissue.STOMACH_CONTENT: Look(55, 30, 12, 35),
        Tissue.GAS: Look(-900, 30, 5, 0),
        Tissue.LIVER: Look(56, 6, 7, 10, 50),
        Tissue.LIVER_VESSEL: Look(45, 4, 4, 4, 110),
        Tissue.KIDNEY_CORTEX: Look(36, 4, 8, 8, 130),
        Tissue.KIDNEY_MEDULLA: Look(30, 4, 8, 8, 75),
        Tissue.SPLEEN: Look(48, 5, 7, 16, 75),
    },
}


def _texture(rng: np.random.Generator, scale: float, spacing: NDArray[np.float64], size: tuple[int, ...]) -> NDArray:
    """Noise of zero mean and unit variance with a correlation length of `scale` mm."""
    noise = gaussian_filter(rng.standard_normal(size, np.float32), scale / spacing, truncate=3)
    return noise / noise.std()


def _interiors(
    rng: np.random.Generator, tissue: NDArray[np.uint8], spacing: NDArray[np.float64], modality: str
) -> NDArray[np.float32]:
    """Mean of the tissue in this patient and texture."""
    looks = np.array([LOOKS[modality][kind] for kind in Tissue], np.float32)
    mean, spread, fine, coarse, enhancement = looks.T
    mean = mean + spread * rng.normal(0, 1, len(mean)).clip(-2, 2) + enhancement * rng.uniform(0.3, 1)
    image = mean.astype(np.float32)[tissue]
    image += fine[tissue] * _texture(rng, 2, spacing, tissue.shape)
    image += coarse[tissue] * _texture(rng, 7, spacing, tissue.shape)
    return image


def render(
    rng: np.random.Generator, tissue: NDArray[np.uint8], spacing: NDArray[np.float64], modality: str
) -> NDArray[np.int16]:
    """Image of a tissue map: texture, bias field (MR), partial volume, noise.

    MR: `|s * bias + n|`, `n` complex normal noise, so that air is Rayleigh distributed. CT: HU plus normal noise.

    Args:
        rng: source of randomness.
        tissue: (H, W, D) values of `Tissue`.
        spacing: mm by axis.
        modality: "mr" or "ct".

    Returns:
        (H, W, D) int16.
    """
    image = _interiors(rng, tissue, spacing, modality)
    if modality == "mr":
        contrast = rng.uniform(0.9, 1.1)
        bias = 0.16 * smooth_noise(rng, (4, 4, 4), tissue.shape)
        image = 600 * (image.clip(0) / 600) ** contrast * np.exp(bias)
    image = gaussian_filter(image, (0.6, 0.6, 0.4), truncate=3)
    noise = rng.standard_normal((2, *tissue.shape), np.float32)
    if modality == "mr":
        noisy = np.hypot(image + 14 * noise[0], 14 * noise[1])
    else:
        noisy = (image + 14 * noise[0]).clip(-1024, 3071)
    return np.rint(noisy).astype(np.int16)
