# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import logging
import re

import highdicom
import itk
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import (
    AXIAL,
    CORONAL,
    IDENTIFIERS,
    made_pixels,
    oblique,
    write_report,
    write_rtstruct,
    write_seg,
    write_series,
)
from monai.data import MetaTensor
from monai.transforms import LoadImage
from pydicom.uid import generate_uid

from monai_fewshot.data.annotations.segmentation_reader import read_segmentation, segmentation_names
from monai_fewshot.data.dicom.series import find_series
from monai_fewshot.data.dicom.series_reader import SeriesReader
from monai_fewshot.data.scans.load_scan import load_label

SIZE = (12, 10, 6)


def _labels():
    labels = np.zeros(SIZE, int)
    labels[2:5, 3:7, 1:4] = 1
    labels[6:9, 1:4, 3:5] = 2
    labels[10, 8, 2] = 2
    return labels


def _load(files):
    return LoadImage(ensure_channel_first=True)(files, reader=SeriesReader())


def _turned(image, axes, flips):
    """The same voxels with permuted and flipped axes, by nibabel."""
    nifti = nibabel.Nifti1Image(np.asarray(image[0], np.float32), np.asarray(image.affine))
    orientation = np.array([[axis, -1 if row in flips else 1] for row, axis in enumerate(axes)])
    turned = nifti.as_reoriented(orientation)
    return MetaTensor(np.asanyarray(turned.dataobj)[None].copy(), affine=torch.from_numpy(turned.affine))


TURNS = [(axes, flips) for axes in itertools.permutations(range(3)) for flips in ((), (2,), (0, 1), (0, 1, 2))]
GRIDS = {
    "axial": {},
    "oblique": {"directions": oblique()},
    "left-handed": {"directions": AXIAL @ np.diag([1.0, 1, -1])},
    "coronal in disorder": {"directions": CORONAL, "order": [3, 1, 0, 5, 2, 4]},
    "noise of positions": {"offsets": np.arange(6) * 3.0 + np.array([0, 0.12, -0.1, 0.1, 0.13, 0])},
    "tilted": {"tilt": (0.0, 0.8, 0.0)},
}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("settings", GRIDS.values(), ids=GRIDS)
def test_segmentation_comes_back(tmp_path, kind, settings):
    files = write_series(tmp_path / "s", **settings)
    labels = _labels()
    stored = np.stack([labels == 1, labels == 2], axis=-1) * 0.7 if kind == "FRACTIONAL" else labels
    path = write_seg(tmp_path / "seg.dcm", files, stored, ["liver", "left kidney"], kind)
    image = _load(files)
    label, names = read_segmentation(path, image)
    down = settings.get("directions") is GRIDS["left-handed"]["directions"]
    np.testing.assert_array_equal(label[0].numpy(), labels[:, :, ::-1] if down else labels)
    assert label.dtype == torch.float32
    assert torch.equal(label.affine, image.affine)
    assert names == segmentation_names(path) == {1: "liver", 2: "left kidney"}
    series = find_series(tmp_path / "s").series[0]
    assert torch.equal(read_segmentation(path, series)[0].as_tensor(), label.as_tensor())


def test_segmentation_agrees_with_highdicom(tmp_path):
    files = write_series(tmp_path / "s", directions=oblique(), order=[2, 0, 5, 1, 3, 4])
    path = write_seg(tmp_path / "seg.dcm", files, _labels(), ["liver", "kidney"])
    label, _ = read_segmentation(path, _load(files))
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    points = np.argwhere(volume.array)
    world = points @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    index = np.linalg.inv(label.affine.numpy()) @ np.c_[world * [-1, -1, 1], np.ones(len(world))].T
    found = label[0].numpy()[tuple(np.rint(index[:3]).astype(int))]
    np.testing.assert_array_equal(found, volume.array[tuple(points.T)])
    assert len(points) == np.count_nonzero(_labels())


@pytest.mark.parametrize(("axes", "flips"), TURNS)
def test_any_order_and_direction_of_axes(tmp_path, axes, flips):
    files = write_series(tmp_path / "s", directions=oblique())
    path = write_seg(tmp_path / "seg.dcm", files, _labels(), ["liver", "kidney"])
    image = _load(files)
    reference = _turned(image, axes, flips)
    expected = _turned(MetaTensor(_labels()[None], affine=image.affine), axes, flips)
    label, _ = read_segmentation(path, reference)
    np.testing.assert_array_equal(label.numpy(), expected.numpy())
    nibabel.save(nibabel.Nifti1Image(_labels().astype(np.uint8), image.affine.numpy()), tmp_path / "label.nii.gz")
    label, names = read_segmentation(tmp_path / "label.nii.gz", reference)
    np.testing.assert_array_equal(label.numpy(), expected.numpy())
    np.testing.assert_allclose(label.affine, reference.affine)
    assert names == {}


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_labels_of_itk(tmp_path, suffix):
    files = write_series(tmp_path / "s", directions=oblique())
    like = itk.imread([str(file) for file in files])
    label = itk.image_from_array(np.ascontiguousarray(_labels().T.astype(np.uint8)))
    label.SetOrigin(like.GetOrigin())
    label.SetSpacing(like.GetSpacing())
    label.SetDirection(like.GetDirection())
    itk.imwrite(label, str(tmp_path / f"label.{suffix}"))
    found, _ = read_segmentation(tmp_path / f"label.{suffix}", _load(files))
    np.testing.assert_array_equal(found[0].numpy(), _labels())


def test_label_on_another_grid_stays_as_it_is(tmp_path):
    image = _load(write_series(tmp_path / "s"))
    for size, shift in (((12, 10, 5), 0.0), (SIZE, 1.0)):
        affine = image.affine.numpy().copy()
        affine[2, 3] += shift
        nibabel.save(nibabel.Nifti1Image(np.ones(size, np.uint8), affine), tmp_path / "label.nii")
        label, _ = read_segmentation(tmp_path / "label.nii", image)
        assert label.shape[1:] == size
        np.testing.assert_allclose(label.affine.numpy(), affine, atol=1e-6)


def test_segments_by_name_take_the_order_of_names(tmp_path):
    files = write_series(tmp_path / "s")
    path = write_seg(tmp_path / "seg.dcm", files, _labels(), ["Liver", "Left kidney"])
    label, names = read_segmentation(path, _load(files), ["left kidney", "liver"])
    np.testing.assert_array_equal(label[0].numpy(), np.array([0, 2, 1])[_labels()])
    assert names == {1: "Left kidney", 2: "Liver"}
    label, names = read_segmentation(path, _load(files), ["LEFT KIDNEY"])
    np.testing.assert_array_equal(label[0].numpy(), _labels() == 2)
    assert names == {1: "Left kidney"}


def test_a_voxel_of_two_segments_takes_the_smaller(tmp_path, caplog):
    files = write_series(tmp_path / "s")
    body, lesion = np.ones(SIZE), np.zeros(SIZE)
    lesion[3:5, 3:5, 2:4] = 1
    path = write_seg(
        tmp_path / "seg.dcm", files, np.stack([lesion, body], axis=-1).astype(np.uint8), ["lesion", "body"]
    )
    with caplog.at_level(logging.WARNING):
        label, _ = read_segmentation(path, _load(files))
    np.testing.assert_array_equal(label[0].numpy(), 2 - lesion)
    assert "8 voxels lie in several regions, and take the smallest of them" in caplog.text


def test_folder_with_one_segmentation(tmp_path):
    files = write_series(tmp_path / "s")
    write_seg(tmp_path / "seg" / "x.dcm", files, _labels(), ["liver", "kidney"])
    assert segmentation_names(tmp_path / "seg") == {1: "liver", 2: "kidney"}
    np.testing.assert_array_equal(read_segmentation(tmp_path / "seg", _load(files))[0][0].numpy(), _labels())
    with pytest.raises(ValueError, match=r"is a folder of 6 DICOM files; name the one file that holds the annotation"):
        read_segmentation(tmp_path / "s", _load(files))


def _world(index, image):
    """LPS coordinates of indices (n, 3)."""
    return (np.asarray(index) @ image.affine[:3, :3].numpy().T + image.affine[:3, 3].numpy()) * [-1, -1, 1]


def _ring(center, radius, height, points=400):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack(
        [center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), np.full(points, height)], 1
    )


def _disk(center, radius, size):
    columns, rows = np.indices(size)
    return (columns - center[0]) ** 2 + (rows - center[1]) ** 2 < radius**2


BIG = (40, 36, 5)
SQUARE = [[4.5, 4.5], [20.5, 4.5], [20.5, 18.5], [4.5, 18.5]]
HOLE = [[8.5, 8.5], [14.5, 8.5], [14.5, 12.5], [8.5, 12.5]]


def _at(points, height):
    return np.insert(np.array(points, float), 2, height, axis=1)


@pytest.mark.parametrize("settings", [*GRIDS.values()], ids=GRIDS)
def test_contours_of_known_shapes(tmp_path, settings):
    settings = {key: value for key, value in settings.items() if key not in ("offsets", "order")}
    image = _load(write_series(tmp_path / "s", made_pixels(BIG), **settings))
    files = sorted((tmp_path / "s").iterdir())
    disk, island = _ring((17.3, 15.6), 11.2, 2), _ring((33.2, 5.4), 4.1, 2)
    hole, inner = _ring((17.3, 15.6), 6.15, 2), _ring((17.3, 15.6), 2.1, 2)
    contours = {"organ": [disk, hole, island, inner], "box": [_at(SQUARE, 0), _at(HOLE, 1)]}
    path = write_rtstruct(
        tmp_path / "rt.dcm", files, {name: [_world(item, image) for item in items] for name, items in contours.items()}
    )
    label, names = read_segmentation(path, image)
    assert names == segmentation_names(path) == {1: "organ", 2: "box"}
    expected = np.zeros(BIG)
    size = BIG[:2]
    organ = _disk((17.3, 15.6), 11.2, size) & ~_disk((17.3, 15.6), 6.15, size)
    expected[:, :, 2][organ | _disk((33.2, 5.4), 4.1, size) | _disk((17.3, 15.6), 2.1, size)] = 1
    expected[5:21, 5:19, 0] = 2
    expected[9:15, 9:13, 1] = 2
    np.testing.assert_array_equal(label[0].numpy(), expected)


def test_keyhole_is_a_hole(tmp_path):
    files = write_series(tmp_path / "s", made_pixels(BIG))
    image = _load(files)
    keyhole = [*SQUARE, SQUARE[0], HOLE[0], HOLE[3], HOLE[2], HOLE[1], HOLE[0], SQUARE[0]]
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"box": [_world(_at(keyhole, 3), image)]})
    expected = np.zeros(BIG)
    expected[5:21, 5:19, 3] = 1
    expected[9:15, 9:13, 3] = 0
    np.testing.assert_array_equal(read_segmentation(path, image)[0][0].numpy(), expected)


@pytest.mark.parametrize(("axes", "flips"), TURNS[::3])
def test_contours_on_turned_axes(tmp_path, axes, flips):
    files = write_series(tmp_path / "s", made_pixels(BIG), directions=oblique())
    image = _load(files)
    drawn = [_world(_ring((17.3, 15.6), 11.2, height), image) for height in (1, 2, 3)]
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"organ": drawn})
    expected, _ = read_segmentation(path, image)
    label, _ = read_segmentation(path, _turned(image, axes, flips))
    np.testing.assert_array_equal(label.numpy(), _turned(expected, axes, flips).numpy())
    assert expected.sum() == 3 * _disk((17.3, 15.6), 11.2, BIG[:2]).sum()


def test_contours_reach_beyond_the_image(tmp_path):
    files = write_series(tmp_path / "s", made_pixels(BIG))
    image = _load(files)
    drawn = [_world(_ring((0.2, 0.3), 9.1, height), image) for height in (-1, 0, 4, 5)]
    label, _ = read_segmentation(write_rtstruct(tmp_path / "rt.dcm", files, {"organ": drawn}), image)
    expected = np.zeros(BIG)
    expected[:, :, [0, 4]] = _disk((0.2, 0.3), 9.1, BIG[:2])[..., None]
    np.testing.assert_array_equal(label[0].numpy(), expected)


def _cone(height):
    return 12.0 - abs(height - 3.2)


def _areas(label):
    return label[0].sum(dim=(0, 1)).numpy()


TALL = (40, 36, 9)


@pytest.mark.parametrize("heights", [np.arange(1, 7.1, 0.5), np.arange(1, 8, 2), np.arange(1.5, 7, 1)])
def test_contours_on_other_planes_than_the_slices(tmp_path, heights, caplog):
    files = write_series(tmp_path / "s", made_pixels(TALL), spacing=(1, 1, 3))
    image = _load(files)
    drawn = [_world(_ring((18.3, 17.6), _cone(height), height), image) for height in heights]
    label, _ = read_segmentation(write_rtstruct(tmp_path / "rt.dcm", files, {"cone": drawn}), image)
    slices = np.arange(TALL[2])
    expected = [np.pi * _cone(z) ** 2 if heights[0] <= z <= heights[-1] else 0 for z in slices]
    np.testing.assert_allclose(_areas(label), expected, rtol=0.15)
    assert ("cone: contours lie beside" in caplog.text) == (len(heights) < 10)


def test_planes_far_apart_are_not_joined(tmp_path, caplog):
    files = write_series(tmp_path / "s", made_pixels(TALL))
    image = _load(files)
    drawn = [_world(_ring((18.3, 17.6), 9.2, height), image) for height in (1, 2, 5, 6)]
    label, _ = read_segmentation(write_rtstruct(tmp_path / "rt.dcm", files, {"organ": drawn}), image)
    assert (_areas(label) > 0).tolist() == [False, True, True, False, False, True, True, False, False]
    assert "organ: no contour, and nothing filled in, in slices 3 to 4 (from 0)" in caplog.text


def test_contours_of_one_plane_that_are_not_nested_are_united(tmp_path):
    files = write_series(tmp_path / "s", made_pixels(BIG))
    image = _load(files)
    first, second, inner = [((14.3, 15.6), 8.2), ((23.2, 15.4), 7.1), ((23.2, 15.4), 2.1)]
    drawn = [_world(_ring(*place, 2), image) for place in (first, first, second, inner)]
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"organ": drawn})
    disks = [_disk(*place, BIG[:2]) for place in (first, second, inner)]
    expected = (disks[0] | disks[1]) & ~disks[2]
    np.testing.assert_array_equal(read_segmentation(path, image)[0][0, :, :, 2].numpy(), expected)
    ds = pydicom.dcmread(path)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
    ds.save_as(path)
    np.testing.assert_array_equal(read_segmentation(path, image)[0][0, :, :, 2].numpy(), disks[1] ^ disks[2])


@pytest.mark.parametrize("names", [None, ["lesion"]])
def test_regions_of_one_name_are_one_class(tmp_path, names):
    files = write_series(tmp_path / "s")
    image = _load(files)
    seg = write_seg(tmp_path / "seg.dcm", files, _labels(), ["Lesion", "Lesion"])
    label, found = read_segmentation(seg, image, names)
    np.testing.assert_array_equal(label[0].numpy(), _labels() > 0)
    assert found == segmentation_names(seg) == {1: "Lesion"}


def test_names_that_differ_in_case_are_told_apart(tmp_path):
    files = write_series(tmp_path / "s")
    seg = write_seg(tmp_path / "seg.dcm", files, _labels(), ["Kidney", "kidney"])
    label, _ = read_segmentation(seg, _load(files), ["kidney"])
    np.testing.assert_array_equal(label[0].numpy(), _labels() == 2)
    with pytest.raises(ValueError, match=r"several regions called KIDNEY \(Kidney, kidney\): write the name as"):
        read_segmentation(seg, _load(files), ["KIDNEY"])


def test_frames_of_thicker_slices_are_refused(tmp_path):
    image = _load(write_series(tmp_path / "s", frame_of_reference_uid="1.2.3"))
    thick = write_series(
        tmp_path / "t", made_pixels((12, 10, 3)), spacing=(0.8, 0.7, 6.0), frame_of_reference_uid="1.2.3"
    )
    seg = write_seg(tmp_path / "seg.dcm", thick, _labels()[:, :, ::2], ["liver", "kidney"])
    with pytest.raises(ValueError, match="its frames are for slices of 6 mm, but those of the image are 3 mm apart"):
        read_segmentation(seg, image)


@pytest.mark.parametrize("thickness", [3.0, 5.0])
def test_frames_of_a_few_slices_of_the_image_are_read(tmp_path, thickness):
    files = write_series(tmp_path / "s", SliceThickness=thickness)
    labels = _labels()
    labels[:, :, [0, 2, 4]] = 0
    seg = write_seg(tmp_path / "seg.dcm", files, labels, ["liver", "kidney"])
    np.testing.assert_array_equal(read_segmentation(seg, _load(files))[0][0].numpy(), labels)


def test_points_are_no_regions(tmp_path):
    files = write_series(tmp_path / "s")
    image = _load(files)
    path = write_rtstruct(
        tmp_path / "rt.dcm",
        files,
        {"isocenter": [_world([[3, 3, 3]], image)], "box": [_world(_at(HOLE, 1), image) - 3]},
    )
    ds = pydicom.dcmread(path)
    ds.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"
    ds.save_as(path)
    assert segmentation_names(path) == read_segmentation(path, image)[1] == {1: "box"}


def _fault(folder, kind):
    """An annotation that does not fit, with the image."""
    files = write_series(folder / "s", made_pixels(BIG))
    image = _load(files)
    square = [_world(_at(SQUARE, 2), image)]
    labels = np.ones(BIG, int)
    far = {"origin": (750.0, 660.0, 400.0), "frame_of_reference_uid": image.meta["frame_of_reference"]}
    here = {**far, "origin": (-50.0, -40.0, 100.0)}
    path = folder / "Quxworth.dcm"
    if kind == "other frame":
        write_seg(path, write_series(folder / "t"), _labels(), ["liver", "kidney"])
    elif kind == "other frame, contours":
        write_rtstruct(path, files, {"liver": square}, FrameOfReferenceUID=generate_uid())
    elif kind == "elsewhere":
        write_seg(path, write_series(folder / "t", **far), _labels(), ["liver", "kidney"])
    elif kind == "elsewhere, contours":
        write_rtstruct(path, files, {"liver": [square[0] + 300]})
    elif kind == "other voxels":
        write_seg(
            path, write_series(folder / "t", **{**here, "spacing": (1.6, 1.4, 3)}), _labels(), ["liver", "kidney"]
        )
    elif kind == "between voxels":
        write_seg(path, write_series(folder / "t", **{**here, "origin": (-49.6, -40, 100)}), _labels(), ["a", "b"])
    elif kind == "turned planes":
        write_rtstruct(path, files, {"liver": [square[0] + np.linspace(0, 9, 4)[:, None]]})
    elif kind == "unknown name":
        write_seg(path, files, labels, ["liver"])
    elif kind == "report":
        write_report(folder, path.name)
    else:
        path.write_bytes(b"broken")
    return path, image


@pytest.mark.parametrize(
    ("kind", "pattern"),
    {
        "other frame": r"is drawn in another frame of reference \(FrameOfReferenceUID\) than its image",
        "other frame, contours": r"is drawn in another frame of reference",
        "elsewhere": r"marks no voxel of its image: liver, kidney and the image overlap nowhere",
        "elsewhere, contours": r"marks no voxel of its image: liver and the image overlap nowhere",
        "other voxels": r"is not on the grid of its image: pixels of 1\.6 x 1\.4 mm are not its voxels\.",
        "between voxels": r"is not on the grid of its image: frames lie between the voxels",
        "turned planes": r"has contours of liver that are not drawn in the planes of its image's voxels",
        "unknown name": r"has no region called spleen, heart; it has liver\.",
        "report": r"is DICOM of modality SR; expected a segmentation \(SEG\) or contours \(RTSTRUCT\)",
        "broken": r"cannot be read as DICOM \(\w+\); copy it again",
    }.items(),
)
def test_fault(tmp_path, kind, pattern):
    path, image = _fault(tmp_path, kind)
    with pytest.raises(ValueError, match=f"^{pattern}") as caught:
        read_segmentation(path, image, ["spleen", "liver", "heart"] if kind == "unknown name" else None)
    assert not [word for word in IDENTIFIERS if word in str(caught.value)]


def _square(image, plane, low=2, high=6):
    """A contour in mm in LPS around voxels of one slice."""
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    index = np.c_[corners, np.full(4, plane), np.ones(4)]
    return (index @ image.affine.numpy().T)[:, :3] * [-1, -1, 1]


def test_contours_without_points_and_regions_without_names(tmp_path, caplog):
    files = write_series(tmp_path / "s")
    image = _load(files)
    path = write_rtstruct(tmp_path / "rt.dcm", files, {"o": [_square(image, k) for k in (1, 2, 3)]})
    ds = pydicom.dcmread(path)
    del ds.ROIContourSequence[0].ContourSequence[2].ContourData
    del ds.StructureSetROISequence[0].ROIName
    ds.save_as(path)
    label, names = read_segmentation(path, image)
    assert [int(label[..., k].sum()) for k in range(6)] == [0, 25, 25, 0, 0, 0]
    assert names == segmentation_names(path) == {1: "region 1"}
    assert "1 of 3 contours of a region have no points" in caplog.text


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_annotations_cut_anywhere_are_refused_by_name(kind, tmp_path):
    files = write_series(tmp_path / "s")
    image = _load(files)
    path = tmp_path / "cut.dcm"
    if kind == "SEG":
        write_seg(path, files, _labels(), ["liver", "kidney"])
    else:
        write_rtstruct(path, files, {name: [_square(image, k) for k in (1, 2, 3)] for name in ("liver", "spleen")})
    whole = path.read_bytes()
    expected = load_label(str(path), image, LoadImage())
    for cut in range(400, len(whole) - 1, len(whole) // 25):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=re.escape(f"{path}: ")):
            assert not torch.equal(load_label(str(path), image, LoadImage()), expected)
