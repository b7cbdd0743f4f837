# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from scipy import ndimage

from monai_fewshot.metrics import (
    MEASUREMENT_TABLE,
    Measurement,
    largest_axial_diameter,
    measure,
)

NAMES = {1: "liver", 2: "spleen", 3: "stomach"}


def _rotation(degrees):
    x, y, z = np.deg2rad(degrees)
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_z) @ about_y @ about_x


def _affine(spacing=(0.7, 0.9, 2.5), degrees=(0, 0, 0), permutation=(0, 1, 2), flips=(1, 1, 1)):
    affine = np.eye(4)
    directions = (_rotation(degrees) * flips)[:, permutation]
    affine[:3, :3] = directions * np.array(spacing)[list(permutation)]
    affine[:3, 3] = (-40, 20, 5)
    return affine


def _ellipsoid(radii, affine, shape):
    """Voxels whose center lies in an ellipsoid along the patient's axes, in the middle of the grid."""
    center = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T - center
    return ((points / radii) ** 2).sum(-1) <= 1


def _plain_diameter(mask, affine, axis):
    farthest = math.nan
    for index in range(mask.shape[axis]):
        plane = np.zeros_like(mask)
        where = (slice(None),) * axis + (index,)
        plane[where] = mask[where]
        points = [affine[:3, :3] @ voxel for voxel in np.argwhere(plane)]
        pairs = itertools.combinations_with_replacement(points, 2)
        farthest = max(
            [farthest, *(float(np.linalg.norm(a - b)) for a, b in pairs)], key=lambda v: (not math.isnan(v), v)
        )
    return farthest


@pytest.mark.parametrize("permutation", itertools.permutations(range(3)))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_an_ellipsoid_whatever_the_order_of_axes(permutation, flips):
    radii, spacing = (14.0, 9.0, 20.0), (0.7, 0.9, 2.5)
    affine = _affine(spacing, permutation=permutation, flips=flips)
    shape = tuple(int(np.ceil(2 * radii[axis] / spacing[axis])) + 4 for axis in permutation)
    mask = _ellipsoid(radii, affine, shape)
    row = measure("scan", mask * 5.0, mask.astype(np.uint8), {1: "a"}, affine)[0]
    assert row.volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(radii) / 1000, rel=0.01)
    assert 2 * 14.0 - 0.9 <= row.axial_diameter_mm <= 2 * 14.0
    assert (row.mean, row.p05, row.p95) == (5.0, 5.0, 5.0)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -15, 30), (5, 40, -80)])
@pytest.mark.parametrize("seed", range(3))
def test_the_diameter_is_that_of_a_plain_loop(degrees, seed):
    random = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(random.normal(size=(9, 8, 7)), 1) > 0.12
    permutation = tuple(random.permutation(3))
    affine = _affine(degrees=degrees, permutation=permutation)
    axis = [code in "SI" for code in nibabel.aff2axcodes(affine)].index(True)
    found = largest_axial_diameter(mask, affine)
    assert found == pytest.approx(_plain_diameter(mask, affine, axis), rel=1e-12)


@pytest.mark.parametrize("voxels", [[(1, 1)], [(1, 1), (4, 5)], [(0, 3), (1, 3), (7, 3)], [(2, 2), (3, 3), (6, 6)], []])
def test_points_on_a_line(voxels):
    mask = np.zeros((8, 8, 3), bool)
    for row, column in voxels:
        mask[row, column, 1] = True
    affine = _affine()
    np.testing.assert_allclose(largest_axial_diameter(mask, affine), _plain_diameter(mask, affine, 2), rtol=1e-12)


def test_simpleitk_measures_the_same():
    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(24, 20, 10)), 2)
    label = np.digitize(smooth, [0.02, 0.05]).astype(np.uint8)
    image = random.normal(100, 30, label.shape).astype(np.float32)
    spacing = (0.7, 0.9, 2.5)
    itk_label, itk_image = (SimpleITK.GetImageFromArray(array.transpose(2, 1, 0)) for array in (label, image))
    itk_label.SetSpacing(spacing)
    itk_image.SetSpacing(spacing)
    shape, intensity = SimpleITK.LabelShapeStatisticsImageFilter(), SimpleITK.LabelStatisticsImageFilter()
    shape.Execute(itk_label)
    intensity.Execute(itk_image, itk_label)
    for row in measure("scan", image, label, {1: "a", 2: "b"}, np.diag([*spacing, 1])):
        assert row.voxels == shape.GetNumberOfPixels(row.label)
        assert row.volume_ml == pytest.approx(shape.GetPhysicalSize(row.label) / 1000)
        assert row.mean == pytest.approx(intensity.GetMean(row.label))
        assert row.axial_diameter_mm == pytest.approx(_feret(itk_label, row.label))


def _feret(label, number):
    """Largest Feret diameter of a class over the slices, each all of the class as one object."""
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.ComputeFeretDiameterOn()
    found = []
    for index in range(label.GetDepth()):
        plane = label[:, :, index]
        shape.Execute(plane)
        if shape.HasLabel(number):
            found.append(shape.GetFeretDiameter(number))
    return max(found)


def test_classes_that_are_not_found_have_a_row():
    label = torch.zeros(6, 6, 4, dtype=torch.int32)
    label[2:4, 2:5, 1] = 2
    image = torch.arange(6 * 6 * 4, dtype=torch.float32).reshape(6, 6, 4)
    rows = measure("scan", image, label, NAMES, torch.diag(torch.tensor([1.0, 1, 2, 1])))
    assert [(row.label, row.name, row.voxels, row.volume_ml) for row in rows] == [
        (1, "liver", 0, 0.0),
        (2, "spleen", 6, 0.012),
        (3, "stomach", 0, 0.0),
    ]
    assert math.isnan(rows[0].mean)
    assert math.isnan(rows[0].axial_diameter_mm)
    inside = image[label == 2].numpy()
    for column, percentile in (("p05", 5), ("p25", 25), ("p50", 50), ("p75", 75), ("p95", 95)):
        assert getattr(rows[1], column) == pytest.approx(np.percentile(inside, percentile))


def test_sizes_must_agree():
    with pytest.raises(ValueError, match=r"Scan a: the image has \(2, 2, 2\) voxels and the label map \(2, 2, 3\)"):
        measure("a", np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), NAMES, np.eye(4))


def test_the_table_comes_back(tmp_path):
    rows = [
        Measurement("b", 1, 'liver, "left"', 3, 1 / 3, 2.5, *[0.1] * 6),
        Measurement("a", 2, "spleen", 0, 0.0, *[math.nan] * 7),
        Measurement("a", 1, "liver", 3, 1e-9, 0.0, -1.0, *[1e6] * 5),
    ]
    path = MEASUREMENT_TABLE.write(tmp_path / "new" / "measurements.csv", rows)
    assert path.read_text().splitlines()[0] == (
        "scan,label,name,voxels,volume_ml,axial_diameter_mm,mean,p05,p25,p50,p75,p95,volume_low_ml,volume_high_ml"
    )
    assert str(MEASUREMENT_TABLE.read(path)) == str([rows[2], rows[1], rows[0]])
    assert MEASUREMENT_TABLE.read(tmp_path / "none.csv") == []
    path.write_text("scan,dice\na,0.5\n")
    with pytest.raises(ValueError, match=r"measurements\.csv does not hold measurements \(KeyError: 'label'\)"):
        MEASUREMENT_TABLE.read(path)
