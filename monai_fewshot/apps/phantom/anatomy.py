# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Where the tissues of a phantom patient are: ellipsoids in a smoothly deformed body frame."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline
from scipy.spatial.transform import Rotation

LABELS = {0: "background", 1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
TUBE = 1000.0


class Tissue(IntEnum):
    """What a voxel is made of: rows of the appearance tables."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    LUNG = 3
    BONE = 4
    MARROW = 5
    DISC = 6
    FLUID = 7
    ARTERY = 8
    VEIN = 9
    HEART = 10
    BOWEL = 11
    BOWEL_CONTENT = 12
    STOMACH = 13
    STOMACH_CONTENT = 14
    GAS = 15
    LIVER = 16
    LIVER_VESSEL = 17
    KIDNEY_CORTEX = 18
    KIDNEY_MEDULLA = 19
    SPLEEN = 20


class Ellipsoid(NamedTuple):
    """An ellipsoid; x to the patient's right, y to the front, z to the head, origin mid-body.

    Args:
        center: mm.
        axes: half-axes in mm before the rotation; `TUBE` makes a tube through the whole volume.
        angles: rotation about x, y and z in degrees.
    """

    center: ArrayLike
    axes: ArrayLike
    angles: ArrayLike = (0, 0, 0)


SHAPES = {
    "heart": {"heart": Ellipsoid((-12, 18, 96), (48, 42, 26))},
    "liver": {
        "right lobe": Ellipsoid((64, -2, 20), (62, 76, 62), (0, 12, 0)),
        "left lobe": Ellipsoid((10, 42, 40), (70, 34, 32), (0, -12, -12)),
        "liver hollow": Ellipsoid((-6, -14, -40), (46, 58, 60)),
        "gallbladder": Ellipsoid((44, 42, -18), (11, 13, 22)),
    },
    "spleen": {
        "spleen": Ellipsoid((-90, -32, 36), (36, 52, 46), (12, 8, -24)),
        "spleen hollow": Ellipsoid((-44, 0, 32), (28, 38, 60), (0, 0, -24)),
    },
    "stomach": {"stomach": Ellipsoid((-54, 28, 36), (40, 32, 42), (0, -20, 10))},
    "right kidney": {
        "right kidney": Ellipsoid((60, -34, -25), (26, 29, 41), (8, -10, 20)),
        "right sinus": Ellipsoid((45, -27, -25), (15, 8, 17)),
    },
    "left kidney": {
        "left kidney": Ellipsoid((-58, -36, -15), (26, 29, 41), (8, 10, -20)),
        "left sinus": Ellipsoid((-43, -29, -15), (15, 8, 17)),
    },
    "back": {
        "right back muscle": Ellipsoid((34, -80, 0), (27, 20, TUBE)),
        "left back muscle": Ellipsoid((-34, -80, 0), (27, 20, TUBE)),
        "right psoas": Ellipsoid((34, -50, -110), (17, 19, 108)),
        "left psoas": Ellipsoid((-34, -50, -110), (17, 19, 108)),
        "vertebra": Ellipsoid((0, -50, 0), (21, 17, TUBE)),
        "vertebral arch": Ellipsoid((0, -75, 0), (15, 13, TUBE)),
        "spinous process": Ellipsoid((0, -92, 0), (4, 13, TUBE)),
        "spinal canal": Ellipsoid((0, -74, 0), (9, 8, TUBE)),
    },
    "aorta": {"aorta": Ellipsoid((-8, -23, 0), (10, 10, TUBE))},
    "vena cava": {"vena cava": Ellipsoid((18, -24, 0), (13, 9, TUBE))},
}


class Patient(NamedTuple):
    """What varies between patients, on the voxel grid.

    Args:
        points: (3, H, W, D) position of every voxel in the frame of the mean patient, mm.
        radii: (H, W, D) normalized distance of every voxel by the name of a shape of `SHAPES`; below 1 is inside.
        body: (H, W, D) distance from the wall of the abdominal cavity, mm; negative is inside.
        skin: thickness of the fat under the skin, mm.
        domes: height of the right and of the left dome of the diaphragm, mm.
        spine: how far the vertebrae, 34 mm apart, are shifted along the spine, mm.
        noise: five smooth fields (H, W, D): two for liver vessels, two for bowel loops, one for the calices.
    """

    points: NDArray[np.float32]
    radii: dict[str, NDArray[np.float32]]
    body: NDArray[np.float32]
    skin: float
    domes: tuple[float, float]
    spine: float
    noise: list[NDArray[np.float32]]


def smooth_noise(
    rng: np.random.Generator, knots: tuple[int, int, int], size: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Normal values on a coarse grid that spans the volume, brought to `size` by cubic splines.

    The draws depend on `knots` alone: a finer `size` samples the same field more densely.
    """
    field = rng.standard_normal(knots)
    for axis, voxels in enumerate(size):
        centers = (np.arange(voxels) + 0.5) / voxels * (knots[axis] - 1)
        field = make_interp_spline(np.arange(knots[axis]), field, axis=axis)(centers)
    return field.astype(np.float32)


def _radius(points: NDArray[np.float32], shape: Ellipsoid) -> NDArray[np.float32]:
    to_unit = Rotation.from_euler("xyz", shape.angles, degrees=True).inv().as_matrix() / np.array(shape.axes)[:, None]
    offset = to_unit @ np.array(shape.center)
    unit = np.tensordot(to_unit.astype(np.float32), points, 1) - offset.astype(np.float32)[:, None, None, None]
    return np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 4)


def _varied(rng: np.random.Generator) -> dict[str, Ellipsoid]:
    """The shapes of one patient: a group shifts, turns and scales as a whole."""
    shapes = {}
    for group in SHAPES.values():
        shift, turn = rng.normal(0, 3, 3).clip(-6, 6), rng.normal(0, 5, 3).clip(-10, 10)
        scale = np.exp(rng.normal(0, 0.06, 3).clip(-0.12, 0.12))
        for name, (center, axes, angles) in group.items():
            straight = np.max(axes) == TUBE
            shapes[name] = Ellipsoid(
                np.add(center, shift / 2 if straight else shift),
                np.multiply(axes, scale),
                np.add(angles, 0 if straight else turn),
            )
    return shapes


def make_patient(rng: np.random.Generator, size: tuple[int, int, int], extent: NDArray[np.float64]) -> Patient:
    """Draw a patient: build, fat, shape and position of the organs, smooth deformation.

    Args:
        rng: source of randomness.
        size: voxels by axis.
        extent: field of view in mm by axis.
    """
    grid = np.meshgrid(
        *(((np.arange(n) + 0.5) / n - 0.5) * e for n, e in zip(size, extent, strict=True)), indexing="ij"
    )
    build = [1.06, 1.06, 1.02] + np.array([0.05, 0.06, 0.03]) * rng.normal(0, 1, 3).clip(-1.5, 1.5)
    shift = np.array([3.0, 3.0, 3.0]) * rng.normal(0, 1, 3).clip(-1.5, 1.5)
    warp = [a * smooth_noise(rng, (6, 6, 5), size) for a in (4.0, 4.0, 4.0)]
    warp[2] *= 1 - (2 * grid[2] / extent[2]) ** 2
    points = np.stack([(g - s) / b + w for g, s, b, w in zip(grid, shift, build, warp, strict=True)]).astype(np.float32)
    wall = (np.abs(points[0] / 113) ** 2.4 + np.abs(points[1] / 76) ** 2.4) ** np.float32(1 / 2.4)
    skin, domes = rng.uniform(8, 22), (rng.uniform(74, 81), rng.uniform(68, 77))
    return Patient(
        points,
        {name: _radius(points, shape) for name, shape in _varied(rng).items()},
        (wall - 1) * np.hypot(points[0], points[1]) / wall.clip(0.1),
        skin,
        domes,
        rng.uniform(0, 34),
        [smooth_noise(rng, knots, size) for knots in 2 * [(14, 14, 10)] + 2 * [(18, 18, 12)] + [(40, 40, 20)]],
    )


def _diaphragm(patient: Patient) -> NDArray[np.float32]:
    """Height above the diaphragm in mm: two domes, falling off to the sides and the back."""
    x, y, z = patient.points
    domes = [
        height - 36 * (((x - side) / 68) ** 2 + ((y - 8) / 72) ** 2) ** 2
        for side, height in zip((58, -58), patient.domes, strict=True)
    ]
    return z - np.maximum(*domes)


def _paint_trunk(tissue: NDArray[np.uint8], patient: Patient, above: NDArray[np.float32]) -> None:
    """Fat, body wall, ribs, lungs, heart."""
    x, y, z = patient.points
    tissue[patient.body < 13 + patient.skin] = Tissue.FAT
    tissue[np.abs(patient.body - 6.5) < 6.5] = Tissue.MUSCLE
    slope = np.cos((z + 0.5 * np.abs(x) + 0.9 * y) * np.float32(2 * np.pi / 34))
    tissue[(np.abs(patient.body - 7) < 4) & (slope > 0.55) & (z > np.maximum(-45, 0.9 * y - 20))] = Tissue.BONE
    lung = (patient.body < -1) & (above > 0)
    tissue[lung] = Tissue.LUNG
    tissue[lung & (patient.radii["heart"] < 1)] = Tissue.HEART


def _paint_bowel(tissue: NDArray[np.uint8], patient: Patient, below: NDArray[np.bool_]) -> None:
    """Bowel loops, their content and stomach."""
    _, y, z = patient.points
    loops, content = patient.noise[2:4]
    room = below & (z < 34)
    tissue[room & (loops > -0.35 + (-20 - y).clip(0) / 12)] = Tissue.BOWEL
    tissue[room & (loops > 0.1 + (-20 - y).clip(0) / 12) & (content > 0)] = Tissue.BOWEL_CONTENT
    tissue[room & (loops > 0.35) & (content < -0.7) & (y > 25)] = Tissue.GAS
    stomach = patient.radii["stomach"]
    tissue[below & (stomach < 1.06)] = Tissue.FAT
    tissue[below & (stomach < 1)] = Tissue.STOMACH
    tissue[below & (stomach < 0.86)] = Tissue.STOMACH_CONTENT
    tissue[below & (stomach < 0.86) & (y > 45)] = Tissue.GAS


def _paint_organs(
    tissue: NDArray[np.uint8], label: NDArray[np.uint8], patient: Patient, below: NDArray[np.bool_]
) -> None:
    """Liver, gallbladder, spleen and kidneys, each in a thin coat of fat."""
    radii, (vessel_a, vessel_b, _, _, calices) = patient.radii, patient.noise
    liver = np.where(radii["liver hollow"] > 1, np.minimum(radii["right lobe"], radii["left lobe"]), 9)
    spleen = np.where(radii["spleen hollow"] > 1, radii["spleen"], 9)
    organs = {1: (liver, 1.05, Tissue.LIVER), 4: (spleen, 1.08, Tissue.SPLEEN)}
    for side, number in {"right": 2, "left": 3}.items():
        organs[number] = (radii[f"{side} kidney"], 1.13, Tissue.KIDNEY_CORTEX)
    for number, (radius, coat, kind) in organs.items():
        around, inside = below & (radius < coat), below & (radius < 1)
        tissue[around], label[around] = Tissue.FAT, 0
        tissue[inside], label[inside] = kind, number
    tissue[(label == 1) & (np.hypot(vessel_a, vessel_b) < 0.2)] = Tissue.LIVER_VESSEL
    for side, number in {"right": 2, "left": 3}.items():
        kidney, sinus = label == number, radii[f"{side} sinus"] < 1
        tissue[kidney & (radii[f"{side} kidney"] < 0.74) & (calices > -0.45)] = Tissue.KIDNEY_MEDULLA
        tissue[kidney & sinus], label[kidney & sinus] = Tissue.FAT, 0
    gallbladder = below & (radii["gallbladder"] < 1)
    tissue[gallbladder], label[gallbladder] = Tissue.FLUID, 0


def _paint_back(tissue: NDArray[np.uint8], label: NDArray[np.uint8], patient: Patient) -> None:
    """Muscles of the back, spine, aorta and vena cava."""
    radii, z = patient.radii, patient.points[2]
    disc = np.abs((z + patient.spine) % 34 - 17) < 4
    kinds = [
        (np.minimum(radii["right back muscle"], radii["left back muscle"]), Tissue.MUSCLE),
        (np.minimum(radii["right psoas"], radii["left psoas"]), Tissue.MUSCLE),
        (np.minimum(radii["vertebral arch"], radii["spinous process"]), Tissue.BONE),
        (radii["vertebra"], Tissue.BONE),
        (np.where(disc, 9, radii["vertebra"] / 0.86), Tissue.MARROW),
        (np.where(disc, radii["vertebra"], 9), Tissue.DISC),
        (radii["spinal canal"], Tissue.FLUID),
        (radii["vena cava"], Tissue.VEIN),
        (radii["aorta"], Tissue.ARTERY),
    ]
    trunk = patient.body < 13
    for radius, kind in kinds:
        inside = trunk & (radius < 1)
        tissue[inside], label[inside] = kind, 0


def paint(patient: Patient) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Tissue and label maps of a patient.

    Returns:
        (H, W, D) values of `Tissue` and (H, W, D) values of `LABELS`, uint8 both.
    """
    tissue = np.zeros(patient.body.shape, np.uint8)
    label = np.zeros_like(tissue)
    above = _diaphragm(patient)
    below = (patient.body < -3) & (above < -4)
    _paint_trunk(tissue, patient, above)
    _paint_bowel(tissue, patient, below)
    _paint_organs(tissue, label, patient, below)
    _paint_back(tissue, label, patient)
    return tissue, label
