# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
import torch
from itk_geometry import itk_image
from monai.utils import OptionalImportError
from moved_patients import SPACING, image_at, label_at, moved, other_contrast, places

from monai_fewshot.inferers.scan_registration import ScanRegistration, as_itk

OBLIQUE = np.array([[-1.4, 0.1, 0.3, 40], [0.1, 1.6, -0.2, -30], [0.05, 0.06, 7.5, 12], [0, 0, 0, 1]])
FINER = {"shape": (62, 70, 22), "spacing": np.array([1.8, 1.5, 5.0])}


def centered(array, spacing=SPACING):
    """An image whose middle is at 0 and whose axes are those of space."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((-(np.array(array.shape) - 1) / 2 * spacing).tolist())
    return image


def scan(transform=lambda points: points, contrast=lambda value: value, **grid):
    return centered(contrast(image_at(transform(places(**grid)))), grid.get("spacing", SPACING))


def atlas(**grid):
    return centered(label_at(places(**grid)), grid.get("spacing", SPACING))


def bent(points):
    """Waves of 6 and 5 mm, 90 mm long."""
    x, y, _ = np.moveaxis(points, -1, 0)
    return points + np.stack([6 * np.sin(y / 14), 5 * np.cos(x / 14), 0 * x], axis=-1)


def sheared(points):
    """In the plane alone."""
    return points @ np.array([[1.05, 0.06, 0.0], [0.0, 0.96, 0.0], [0.0, 0.0, 1.0]]).T + np.array([7.0, -6.0, 0.0])


def errors(found, transform, **grid):
    """Distances in mm from where the annotated points of the fixed scan belong."""
    points = places(**grid)[label_at(transform(places(**grid))) > 0]
    reached = np.array([found.TransformPoint(point.tolist()) for point in points])
    return np.linalg.norm(reached - transform(points), axis=1)


class TestRecovery:
    def test_an_affine_transform_across_contrasts_and_grids_to_a_pixel(self):
        moving = scan(contrast=other_contrast, **FINER)
        found = ScanRegistration()(scan(moved), moving, atlas(**FINER))
        assert errors(SimpleITK.Transform(3, SimpleITK.sitkIdentity), moved).min() > SPACING.max()
        assert errors(found, moved).max() < SPACING.min()

    def test_what_is_annotated_is_laid_on_its_like_although_the_body_around_it_moves_elsewhere(self):
        """The organs stay, the body beyond 20 mm from them goes by 12 mm: halfway is 6 mm off."""

        def torn(points):
            distance = SimpleITK.SignedMaurerDistanceMap(atlas() > 0, False, False, True)
            beyond = SimpleITK.GetArrayFromImage(distance).T > 20
            return points + beyond[..., None] * np.array([12.0, 0.0, 0.0])

        fixed = centered(image_at(torn(places())))
        near = ScanRegistration(margin=10, deformation_levels=())(fixed, scan(), atlas())
        everywhere = ScanRegistration(margin=1000, deformation_levels=())(fixed, scan(), atlas())
        assert errors(near, lambda points: points).max() < SPACING.min()
        assert errors(everywhere, lambda points: points).max() > SPACING.min()

    def test_a_deformation_better_than_the_best_of_affine_transforms_can(self):
        points = places()[label_at(bent(places())) > 0]
        columns = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        best_affine = columns @ np.linalg.lstsq(columns, bent(points), rcond=None)[0]
        least = np.linalg.norm(best_affine - bent(points), axis=1).mean()
        found = ScanRegistration()(scan(bent), scan(), atlas())
        assert errors(found, bent).mean() < least

    def test_scans_of_different_contrast_are_not_deformed(self):
        """Demons look for equal intensities, which lowers the mutual information of these."""
        pair, point = (scan(moved), scan(contrast=other_contrast), atlas()), (10.0, -12.0, 6.0)
        affine, default = ScanRegistration(deformation_levels=())(*pair), ScanRegistration()(*pair)
        assert default.TransformPoint(point) == pytest.approx(affine.TransformPoint(point), abs=1e-6)

    def test_few_thin_slices_are_not_averaged_away(self):
        """Six slices of 3 mm, at 8 mm, would be two."""
        thin = {"shape": (56, 52, 6), "spacing": np.array([2.0, 2.0, 3.0])}
        found = ScanRegistration()(scan(sheared, **thin), scan(**thin), atlas(**thin))
        assert errors(found, sheared, **thin).max() < SPACING.min()

    def test_the_start_is_taken_over(self):
        found = ScanRegistration(iterations=0)(scan(), scan(), atlas(), (3, -2, 6))
        assert found.TransformPoint((1.0, 2.0, 3.0)) == pytest.approx((4, 0, 9))

    def test_one_thread_always_finds_the_same_transform_and_leaves_others_their_threads(self):
        threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
        registration, point = ScanRegistration(iterations=5), (10.0, -12.0, 6.0)
        one, same = (registration(scan(moved), scan(), atlas()).TransformPoint(point) for _ in range(2))
        assert one == same
        assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads


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
        moving.SetOrigin(np.add(moving.GetOrigin(), (400, 0, 0)).tolist())
        with pytest.raises(ValueError, match=r"do not overlap: their centers lie at .*0.0\] and .*\[400.0, .*axes"):
            ScanRegistration()(scan(), moving, atlas())

    def test_images(self):
        slices = {"shape": (56, 52, 3)}
        with pytest.raises(ValueError, match=r"4 voxels or more along each axis .*, got \(56, 52, 3\) and"):
            ScanRegistration()(scan(**slices), scan(**slices), atlas(**slices))

    def test_scans_that_are_lost_on_the_way(self):
        extent = np.array(scan().GetSize()) * SPACING
        with pytest.raises(ValueError, match=r"cannot be registered: .*same part of the body, with spacings in mm"):
            ScanRegistration()(scan(), scan(), atlas(), (extent - SPACING).tolist())

    @pytest.mark.parametrize(
        "options", [{"resolution": 0}, {"deformation_levels": [8, 0]}, {"smoothing": 0}, {"num_bins": 4}]
    )
    def test_arguments_out_of_range(self, options):
        with pytest.raises(ValueError, match=r"smoothing must be above 0, num_bins 5 or more, got"):
            ScanRegistration(**options)

    @pytest.mark.parametrize("option", ["margin", "iterations", "deformation_iterations", "num_threads"])
    def test_negative_numbers(self, option):
        with pytest.raises(ValueError, match=r"num_threads must be 0 or more, got .*-1"):
            ScanRegistration(**{option: -1})

    def test_without_simpleitk_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setattr("monai_fewshot.inferers.scan_registration.has_sitk", False)
        with pytest.raises(OptionalImportError, match=r"pip install 'monai_fewshot\[registration\]'"):
            ScanRegistration()
