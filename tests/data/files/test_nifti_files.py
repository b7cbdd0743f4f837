# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK
from itk_geometry import itk_affine
from scipy.spatial.transform import Rotation

from monai_fewshot.data.files.nifti_files import NiftiHeaderError, nifti_mask
from monai_fewshot.data.scans.check_scans import check_scans
from monai_fewshot.data.scans.load_scan import LoadScand

SIZE = (9, 8, 5)


def _affine(spacing=(1.5, 1.2, 4.0), origin=(35.0, 27.0, 30.0), degrees=(0, 0, 0), axes=(0, 1, 2)):
    affine = np.eye(4)
    affine[:3, :3] = (Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(spacing))[:, axes]
    affine[:3, 3] = origin
    return affine


def _image(size=SIZE):
    return np.random.default_rng(0).normal(100, 20, size).astype(np.float32)


def _save(path, affine, unit="mm", codes=(1, 2), qform=None, size=SIZE):
    scan = nibabel.Nifti1Image(_image(size), affine)
    scan.set_qform(affine if qform is None else qform, codes[0])
    scan.set_sform(affine, codes[1])
    scan.header.set_xyzt_units(unit)
    nibabel.save(scan, path)
    return path


def _write(folder, scan):
    mask = np.zeros(SIZE, np.uint8)
    mask[2:5, 3, 1] = 1
    nibabel.save(nifti_mask(mask, np.eye(4), scan), folder / "mask.nii.gz")
    return folder / "mask.nii.gz"


def _corners(path):
    image = SimpleITK.ReadImage(str(path))
    ends = itertools.product(*((0, number - 1) for number in image.GetSize()))
    return np.array([image.TransformIndexToPhysicalPoint(end) for end in ends])


GRIDS = {
    "axial": _affine(),
    "oblique": _affine(degrees=(12, -7, 20)),
    "coronal": _affine(axes=(0, 2, 1)),
    "sagittal": _affine(degrees=(0, 3, 0), axes=(1, 2, 0)),
}
OTHER = _affine(origin=(0, 0, 0))


@pytest.mark.parametrize("codes", [(1, 2), (0, 1), (1, 0), (4, 1)])
@pytest.mark.parametrize("unit", ["mm", "micron", "meter", "unknown"])
@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_a_mask_lies_where_its_scan_lies(tmp_path, affine, unit, codes):
    scan = _save(tmp_path / "scan.nii.gz", affine, unit, codes)
    mask = _write(tmp_path, scan)
    own, copy = nibabel.load(scan).header, nibabel.load(mask).header
    for field in ("qform_code", "sform_code", "xyzt_units"):
        assert copy[field] == own[field]
    np.testing.assert_array_equal(copy["pixdim"][:4], own["pixdim"][:4])
    np.testing.assert_array_equal(nibabel.load(mask).affine, nibabel.load(scan).affine)
    np.testing.assert_allclose(_corners(mask), _corners(scan), atol=1e-4)


def test_qform_and_sform_that_differ_stay_so(tmp_path):
    scan = _save(tmp_path / "scan.nii.gz", _affine(), qform=OTHER)
    mask = _write(tmp_path, scan)
    np.testing.assert_allclose(_corners(mask), _corners(scan), atol=1e-4)
    np.testing.assert_array_equal(nibabel.load(mask).get_qform(), nibabel.load(scan).get_qform())
    np.testing.assert_array_equal(nibabel.load(mask).affine, nibabel.load(scan).affine)
    np.testing.assert_array_equal(LoadScand()({"image": str(scan)})["image"].affine, nibabel.load(scan).affine)


def test_nothing_else_of_the_header_goes_into_a_mask(tmp_path):
    scan = nibabel.Nifti1Image(_image(), _affine())
    scan.header["descrip"], scan.header["db_name"] = b"Quxworth", b"Quxworth"
    scan.header["cal_max"] = 900
    nibabel.save(scan, tmp_path / "scan.nii")
    header = nibabel.load(_write(tmp_path, tmp_path / "scan.nii")).header
    assert header["cal_max"] == 0
    assert b"Quxworth" not in header.binaryblock


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_a_sheared_grid_has_no_qform(shear):
    affine = GRIDS["oblique"].copy()
    affine[:3, 2] += shear * affine[:3, 1]
    written = nifti_mask(np.zeros(SIZE, np.uint8), affine)
    np.testing.assert_allclose(written.get_sform(), affine, atol=1e-5)
    qform, code = written.get_qform(coded=True)
    assert code == (0 if shear else 1)
    assert shear or np.allclose(qform, affine, atol=1e-4)
    np.testing.assert_allclose(written.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1), ("unknown", 1), ("micron", 1e-3), ("meter", 1e3)])
def test_lengths_are_read_in_millimeters(tmp_path, unit, scale):
    affine = GRIDS["oblique"]
    scan = _save(tmp_path / "scan.nii.gz", np.diag([1 / scale] * 3 + [1]) @ affine, unit)
    np.testing.assert_allclose(LoadScand()({"image": str(scan)})["image"].affine, affine, rtol=1e-5, atol=1e-5)


def test_units_agree_with_itk(tmp_path):
    scan = _save(tmp_path / "scan.nii.gz", _affine((1500, 1200, 4000), (0, 0, 0)), "micron")
    loaded = LoadScand()({"image": str(scan)})["image"]
    np.testing.assert_allclose(itk_affine(SimpleITK.ReadImage(str(scan))), loaded.affine, atol=1e-4)


@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("size", [SIZE, (9, 8, 1)])
def test_axes_of_length_one_are_no_axes(tmp_path, size, more):
    scan = {"name": "scan", "image": str(_save(tmp_path / "scan.nii.gz", _affine(), size=(*size, *more)))}
    np.testing.assert_array_equal(LoadScand()(scan)["image"][0], _image((*size, *more)).reshape(size))
    check_scans([scan])


def test_pixdim_of_a_sheared_grid_may_be_the_distance_of_its_planes(tmp_path):
    """Slices 5 mm apart along the patient, with a gantry tilted by 20 degrees; the qform lies elsewhere."""
    sheared = _affine((1, 1, 5))
    sheared[1, 2] = 5 * np.tan(np.radians(20))
    scan = nibabel.Nifti1Image(_image(), None)
    scan.set_qform(_affine((1, 1, 5), (9, 9, 9)), 1)
    scan.set_sform(sheared, 1)
    nibabel.save(scan, tmp_path / "scan.nii")
    assert nibabel.load(tmp_path / "scan.nii").header.get_zooms() == (1, 1, 5)
    check_scans([{"name": "scan", "image": str(tmp_path / "scan.nii")}])
    loaded = LoadScand()({"image": str(tmp_path / "scan.nii")})["image"]
    np.testing.assert_allclose(loaded.affine, sheared, atol=1e-5)


def _broken(folder, kind):
    path = folder / "scan.nii"
    scan = nibabel.Nifti1Image(_image(), None)
    if kind == "sform and pixdim":
        scan.set_sform(_affine((3, 3, 3)), 1)
        scan.header["pixdim"][1:4] = 1
    if kind == "sform of nan":
        scan.header["sform_code"], scan.header["srow_x"] = 1, np.nan
    nibabel.save(scan, path)
    if kind.startswith("pixdim"):
        content = bytearray(path.read_bytes())
        content[80:84] = np.array({"pixdim of 0": 0, "pixdim of nan": np.nan}[kind], "<f4").tobytes()
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("pixdim of 0", r"its pixdim is 0 x 1 x 1"),
        ("pixdim of nan", r"(its pixdim is nan x 1 x 1|affine .* is not finite)"),
        ("sform of nan", r"affine .* is not finite"),
        ("sform and pixdim", r"contradicts itself: .* 3 x 3 x 3 by its sform and 1 x 1 x 1 by its pixdim"),
    ],
)
def test_a_header_that_tells_no_distance_is_refused(tmp_path, kind, pattern):
    path = _broken(tmp_path, kind)
    with pytest.raises(ValueError, match=rf"scan\.nii: .*{pattern}"):
        check_scans([{"name": "scan", "image": str(path)}])
    with pytest.raises(ValueError, match=rf"scan\.nii: .*{pattern}"):
        LoadScand()({"name": "scan", "image": str(path)})
    assert issubclass(NiftiHeaderError, ValueError)
