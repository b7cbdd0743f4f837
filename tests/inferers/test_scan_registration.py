# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Scans are functions of places in mm, so that a transform can be applied to them without any interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from itk_geometry import itk_image

from monai_fewshot.inferers.scan_registration import ScanRegistration, as_itk

SHAPE, SPACING = (44, 40, 14), np.array([2.0, 2.0, 6.0])
OBLIQUE = np.array([[-1.4, 0.1, 0.3, 40], [0.1, 1.6, -0.2, -30], [0.05, 0.06, 7.5, 12], [0, 0, 0, 1]])
AFFINE = np.array([[1.06, 0.05, 0.02], [-0.06, 0.95, 0.0], [0.02, 0.03, 1.05]])
SHIFT = np.array([5.0, -4.0, 7.0])


def anatomy(points):
    """Intensity at places (..., 3) in mm: a body with organs of several sizes."""
    random = np.random.default_rng(3)
    value = 1.0 / (1 + np.exp(((points / [38, 34, 36]) ** 2).sum(-1) * 8 - 8))
    for _ in range(14):
        center, radii = random.uniform((-26, -24, -28), (26, 24, 28)), random.uniform(5, 11, 3)
        value = value + random.uniform(-0.6, 1.2) * np.exp(-(((points - center) / radii) ** 2).sum(-1))
    return value


def scan(transform=lambda points: points, shape=SHAPE, spacing=SPACING, contrast=lambda value: value):
    grid = np.stack(np.indices(shape), -1) - (np.array(shape) - 1) / 2
    image = SimpleITK.GetImageFromArray(contrast(anatomy(transform(grid * spacing))).T.astype(np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((-(np.array(shape) - 1) / 2 * spacing).tolist())
    return image


def affine(points):
    return points @ AFFINE.T + SHIFT


def deformation(points):
    x, y, z = np.moveaxis(points, -1, 0)
    moved = [5 * np.sin(y / 22), 5 * np.cos(x / 25) - 3, 3 * np.sin(x / 30 + y / 30)]
    return points + np.stack(moved, -1) + 0 * z[..., None]


def errors(found, transform):
    """Distances in mm inside the body."""
    points = np.random.default_rng(0).uniform((-24, -22, -26), (24, 22, 26), (200, 3))
    moved = np.array([found.TransformPoint(point.tolist()) for point in points])
    return np.linalg.norm(moved - transform(points), axis=1)


def inverted(value):
    return 900 - 400 * value + 60 * value**2


class TestRecovery:
    def test_an_affine_transform_across_contrasts_and_grids(self):
        moving = scan(shape=(52, 60, 18), spacing=np.array([1.8, 1.5, 5.0]), contrast=inverted)
        found = ScanRegistration([6, 3], deformable_iterations=0, sampling=0.5)(scan(affine), moving)
        assert errors(SimpleITK.Transform(3, SimpleITK.sitkIdentity), affine).mean() > 9
        assert errors(found, affine).max() < 2.0

    def test_a_deformation_to_within_a_voxel(self):
        fixed, moving = scan(deformation), scan(contrast=inverted)
        options = {"levels": [6, 3], "mesh": 30, "sampling": 0.3}
        rigid = ScanRegistration(deformable_iterations=0, **options)(fixed, moving)
        found = ScanRegistration(deformable_iterations=12, **options)(fixed, moving)
        assert errors(found, deformation).mean() < 0.8 * errors(rigid, deformation).mean()
        assert errors(found, deformation).mean() < 1.2

    def test_the_start_is_taken_over(self):
        found = ScanRegistration(affine_iterations=0, deformable_iterations=0)(scan(), scan(), (3, -2, 6))
        assert found.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx((4, 0, 9))

    def test_the_same_seed_gives_the_same_transform(self):
        options = {"levels": [6], "affine_iterations": 10, "deformable_iterations": 2, "sampling": 0.2}
        one, same, other = (ScanRegistration(seed=seed, **options)(scan(affine), scan()) for seed in (4, 4, 5))
        point = (10.0, -12.0, 6.0)
        assert one.TransformPoint(point) == pytest.approx(same.TransformPoint(point), abs=1e-6)
        assert one.TransformPoint(point) != pytest.approx(other.TransformPoint(point), abs=1e-3)


def test_a_volume_lies_in_simpleitk_where_it_lies_in_the_scanner():
    volume = torch.rand(5, 6, 4)
    made, expected = as_itk(volume, OBLIQUE), itk_image(volume.numpy(), OBLIQUE)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(made), SimpleITK.GetArrayFromImage(expected))
    index = (3, 1, 2)
    assert made.GetPixel(index) == pytest.approx(float(volume[index]))
    place = OBLIQUE @ [*index, 1]
    assert made.TransformIndexToPhysicalPoint(index) == pytest.approx((-place[0], -place[1], place[2]))
    assert made.TransformIndexToPhysicalPoint(index) == pytest.approx(expected.TransformIndexToPhysicalPoint(index))


class TestRefusals:
    def test_fields_of_view_apart(self):
        moving = scan()
        moving.SetOrigin([400 - 43.0, -39, -39])
        with pytest.raises(ValueError, match=r"do not overlap: their centers lie at .*0.0\] and .*\[400.0, .*axes"):
            ScanRegistration()(scan(), moving)

    def test_scans_that_are_lost_on_the_way(self):
        with pytest.raises(ValueError, match=r"cannot be registered: .*same part of the body, with spacings in mm"):
            ScanRegistration(levels=[4])(scan(), scan(), (84.0, 76.0, 80.0))

    @pytest.mark.parametrize(
        "options", [{"levels": []}, {"levels": [0]}, {"mesh": 0}, {"sampling": 0}, {"num_bins": 4}]
    )
    def test_arguments_out_of_range(self, options):
        with pytest.raises(ValueError, match=r"levels and mesh must be above 0"):
            ScanRegistration(**options)

    def test_negative_numbers(self):
        with pytest.raises(ValueError, match="must be 0 or more, got -1, 15 and 1"):
            ScanRegistration(affine_iterations=-1)
