# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import json
import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd, LoadImaged

from monai_fewshot.transforms import CARDIAC_SPACING, ResizeInPlane, ResizeInPlaned, ct_preparation, mr_preparation
from tests.helpers.dicom_files import AXIAL, CORONAL, oblique, ras_affine
from tests.helpers.itk_geometry import assert_in_place, itk_coordinates, itk_image, itk_values

GRIDS = {
    "axial": ras_affine(AXIAL, (1.5, 1.4, 6.0)),
    "flipped": ras_affine(AXIAL * [-1, 1, -1], (1.5, 1.4, 6.0)),
    "oblique": ras_affine(oblique(), (1.5, 1.4, 6.0)),
    "oblique and left-handed": ras_affine(oblique() * [1, 1, -1], (1.5, 1.4, 6.0)),
    "coronal": ras_affine(CORONAL, (1.5, 1.4, 6.0)),
    "noisy": ras_affine(AXIAL, (1.2500003, 1.2499998, 7.7000004)),
}


def smooth_scan(shape, affine, seed=0):
    """An image of a few waves and a label of four classes, as MONAI loads them."""
    random = np.random.default_rng(seed)
    coordinates = np.indices(shape) / np.reshape(shape, (3, 1, 1, 1))
    waves = np.einsum("ni,i...->n...", random.normal(0, 4, (5, 3)), coordinates)
    image = 300 * np.sin(waves).sum(axis=0) + random.normal(0, 20, shape)
    label = np.digitize(np.sin(waves[0] + 1) + np.cos(waves[1]), [0.2, 0.6, 1.0, 1.5])
    affine = torch.as_tensor(affine)
    return {
        "image": MetaTensor(torch.as_tensor(image[None], dtype=torch.float32), affine=affine),
        "label": MetaTensor(torch.as_tensor(label[None], dtype=torch.float32), affine=affine),
    }


def array(tensor):
    return np.asarray(tensor[0])


def assert_values_of(prepared, scan, image):
    """Hold a prepared scan to an image of SimpleITK and the scan's own label."""
    label = itk_image(array(scan["label"]), scan["label"].affine)
    return assert_in_place(prepared["image"][0], prepared["label"][0], image, label)


@pytest.mark.parametrize("grid", GRIDS)
def test_mr_preparation_agrees_with_simpleitk_voxel_by_voxel(grid):
    scan = smooth_scan((70, 90, 9), GRIDS[grid])
    prepared = mr_preparation(size=(64, 72))(dict(scan))
    raw = array(scan["image"]).astype(np.float64)
    image = itk_image(np.minimum(raw, np.percentile(raw, 99.5)), GRIDS[grid])
    inside = assert_values_of(prepared, scan, image)
    assert (array(prepared["image"])[~inside] == 0).all()
    assert (array(prepared["label"])[~inside] == 0).all()
    np.testing.assert_allclose(prepared["image"].pixdim, (1.25, 1.25, 7.7), atol=1e-3)
    assert prepared["image"].shape[1:3] == (64, 72)
    assert raw.max() > array(prepared["image"]).max()


@pytest.mark.parametrize("grid", GRIDS)
def test_ct_preparation_agrees_with_simpleitk_voxel_by_voxel(grid):
    scan = smooth_scan((80, 90, 5), GRIDS[grid])
    prepared = ct_preparation(border=8, size=(40, 36))(dict(scan))
    scaled = (np.clip(array(scan["image"]).astype(np.float64), -125, 275) + 125) / 400 * 255
    assert_values_of(prepared, scan, itk_image(scaled, GRIDS[grid]))
    assert prepared["image"].shape == prepared["label"].shape == (1, 40, 36, 5)
    old, new = scan["image"].pixdim, prepared["image"].pixdim
    np.testing.assert_allclose(new, np.multiply(old, (64 / 40, 74 / 36, 1)), rtol=1e-6)


@pytest.mark.parametrize("chain", [mr_preparation(orientation="LAS"), ct_preparation(orientation="LAS", border=8)])
@pytest.mark.parametrize("directions", [AXIAL, AXIAL * [-1, 1, -1], oblique() * [1, -1, 1]])
def test_orientation_flips_axial_scans_one_way_and_keeps_the_slice_axis(chain, directions):
    scan = smooth_scan((70, 60, 9), ras_affine(directions, (1.25, 1.25, 7.7)))
    prepared = chain(dict(scan))
    assert nib.aff2axcodes(prepared["image"].affine.numpy()) == ("L", "A", "S")
    assert prepared["image"].shape[-1] == 9
    flipped = itk_values(itk_image(array(scan["label"]), scan["label"].affine), prepared["label"].affine,
                         prepared["label"].shape[1:], "nearest", outside=0)  # fmt: skip
    assert (array(prepared["label"]) == flipped).mean() > 0.999


@pytest.mark.parametrize("grid", [grid for grid in GRIDS if grid != "coronal"])
@pytest.mark.parametrize("orientation", [None, "LAS"])
@pytest.mark.parametrize("make", [mr_preparation, ct_preparation])
def test_what_was_made_of_a_prepared_scan_comes_back_onto_the_scans_grid(make, orientation, grid):
    scan = smooth_scan((100, 90, 9), GRIDS[grid])
    raw = {"image": scan["image"].clone()}
    chain = make(orientation=orientation, size=(84, 88), **({"border": 5} if make is ct_preparation else {}))
    prepared = chain(raw)
    lying = chain(dict(scan))
    prepared["pred"] = MetaTensor(lying["label"].as_tensor(), affine=lying["label"].affine)
    back = Invertd("pred", chain, "image", nearest_interp=True, to_tensor=True)(prepared)["pred"]
    assert back.shape == scan["image"].shape
    np.testing.assert_allclose(back.affine, scan["image"].affine, atol=1e-9)
    label = itk_image(array(lying["label"]), lying["label"].affine)
    coordinates = itk_coordinates(label, back.affine.numpy(), back.shape[1:])
    clear = (np.abs(coordinates - np.floor(coordinates) - 0.5) > 1e-4).all(axis=0)
    expected = itk_values(label, back.affine.numpy(), back.shape[1:], "nearest", outside=0)
    inside = ((coordinates > -0.5) & (coordinates < np.reshape(lying["label"].shape[1:], (3, 1, 1, 1)) - 0.5)).all(0)
    assert (clear & inside).mean() > 0.4
    np.testing.assert_array_equal(array(back)[clear & inside], expected[clear & inside])
    beside = ((coordinates < -1) | (coordinates > np.reshape(lying["label"].shape[1:], (3, 1, 1, 1)))).any(axis=0)
    assert make is mr_preparation or (array(back)[beside] == 0).all()


def test_what_needs_no_resampling_comes_back_bit_by_bit():
    scan = smooth_scan((80, 64, 9), ras_affine(oblique(), (1.25, 1.25, 7.7)))
    chain = mr_preparation(size=(80, 96), orientation=None)
    prepared = chain(dict(scan))
    back = chain.inverse(prepared)
    np.testing.assert_array_equal(array(back["label"]), array(scan["label"]))
    torch.testing.assert_close(back["label"].affine, scan["label"].affine, atol=1e-9, rtol=0)


def test_masks_come_back_from_a_resize_without_a_shift():
    disk = np.hypot(*(np.indices((448, 448)) - 223.5)) < 150
    mask = MetaTensor(torch.as_tensor(disk[None, ..., None]).float(), affine=torch.eye(4))
    chain = ResizeInPlaned("mask", (155, 155), mode="nearest-exact")
    prepared = chain({"mask": mask})
    prepared["pred"] = prepared["mask"].clone()
    back = array(Invertd("pred", chain, "mask", nearest_interp=True, to_tensor=True)(prepared)["pred"])[..., 0]
    np.testing.assert_array_equal(back, back[::-1, ::-1])
    assert 2 * (back * disk).sum() / (back.sum() + disk.sum()) > 0.99


def test_resize_in_plane_keeps_the_number_of_slices():
    volume = MetaTensor(torch.rand(1, 20, 30, 7), affine=torch.eye(4))
    resized = ResizeInPlane((10, 15))(volume)
    assert resized.shape == (1, 10, 15, 7)
    np.testing.assert_allclose(resized.pixdim, (2, 2, 1))


def test_published_numbers_are_the_defaults():
    scan = smooth_scan((400, 300, 4), ras_affine(AXIAL, (0.9, 0.9, 9.0)))
    scan["image"] += torch.rand_like(scan["image"])
    prepared = mr_preparation()(dict(scan))["image"]
    assert prepared.shape == (1, 256, 256, round(3 * 9 / 7.7) + 1)
    np.testing.assert_allclose(prepared.pixdim, (1.25, 1.25, 7.7))
    assert array(prepared).max() <= np.percentile(array(scan["image"]), 99.5) + 1e-3
    assert mr_preparation(spacing=CARDIAC_SPACING)(dict(scan))["image"].pixdim[2] == pytest.approx(7.99)
    scan = smooth_scan((512, 512, 2), ras_affine(AXIAL, (0.7, 0.7, 3.0)))
    prepared = ct_preparation()(dict(scan))["image"]
    assert prepared.shape == (1, 256, 256, 2)
    np.testing.assert_allclose(prepared.pixdim, (0.7 * 1.75, 0.7 * 1.75, 3.0))
    assert (array(prepared).min(), array(prepared).max()) == (0, 255)


def published_resampling(image, spacing):
    """As in the original: from the first voxel on, to ``int(n * old / new + 1)`` voxels, 0 outside of the scan."""
    resample = SimpleITK.ResampleImageFilter()
    resample.SetInterpolator(SimpleITK.sitkLinear)
    resample.SetOutputOrigin(image.GetOrigin())
    resample.SetOutputDirection(image.GetDirection())
    resample.SetOutputSpacing(spacing)
    sizes = zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    resample.SetSize([int(n * old / new + 1) for n, old, new in sizes])
    return SimpleITK.GetArrayFromImage(resample.Execute(image)).transpose()


@pytest.mark.parametrize("grid", ["axial", "oblique and left-handed"])
def test_mr_preparation_is_the_published_one_but_for_the_black_margin(grid):
    scan = smooth_scan((300, 260, 9), GRIDS[grid])
    chain = mr_preparation()
    ours = {key: array(value) for key, value in mr_preparation(size=None)(dict(scan)).items()}
    raw = array(scan["image"]).astype(np.float64)
    clipped = itk_image(np.minimum(raw, np.percentile(raw, 99.5)), GRIDS[grid])
    theirs = published_resampling(clipped, (1.25, 1.25, 7.7))
    shared = tuple(map(slice, ours["image"].shape))
    np.testing.assert_allclose(ours["image"], theirs[shared], atol=0.02)
    assert [t - o for t, o in zip(theirs.shape, ours["image"].shape, strict=True)] == [1, 1, 1]
    for axis in range(3):
        assert not theirs.take(-1, axis).any()
    labels = np.zeros(theirs.shape)
    for value in range(1, 5):
        one_class = itk_image((array(scan["label"]) == value).astype(np.float64), GRIDS[grid])
        labels[np.rint(published_resampling(one_class, (1.25, 1.25, 7.7))) == 1] = value
    for value in range(1, 5):
        mine, other = ours["label"] == value, labels[shared] == value
        assert 2 * (mine & other).sum() / (mine.sum() + other.sum()) > 0.97
    cropped = array(chain(dict(scan))["image"])
    start = [n // 2 - 128 for n in theirs.shape[:2]]
    their_crop = theirs[start[0] : start[0] + 256, start[1] : start[1] + 256, : cropped.shape[2]]
    shifts = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    assert any(np.allclose(np.roll(their_crop, s, (0, 1))[2:-2, 2:-2], cropped[2:-2, 2:-2], atol=0.02) for s in shifts)


def test_every_step_can_be_left_out():
    scan = smooth_scan((40, 50, 6), GRIDS["oblique"])
    kept = mr_preparation(spacing=None, size=None, clip_percent=0)(dict(scan))
    assert torch.equal(kept["image"], scan["image"])
    assert torch.equal(kept["label"], scan["label"])
    kept = mr_preparation(spacing=(0, 0, 3), size=None)(dict(scan))["image"]
    np.testing.assert_allclose(kept.pixdim, (1.5, 1.4, 3))
    assert ct_preparation(border=0, size=None)(dict(scan))["image"].shape == scan["image"].shape


def test_a_file_goes_through_the_chain_and_keeps_its_place(tmp_path):
    scan = smooth_scan((64, 64, 8), GRIDS["oblique and left-handed"])
    nib.save(nib.Nifti1Image(array(scan["image"]), GRIDS["oblique and left-handed"]), tmp_path / "scan.nii.gz")
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": str(tmp_path / "scan.nii.gz")})
    prepared = mr_preparation(size=(48, 48), clip_percent=0)(loaded)["image"]
    expected = itk_values(SimpleITK.ReadImage(tmp_path / "scan.nii.gz"), prepared.affine.numpy(), prepared.shape[1:])
    inside = np.isfinite(expected)
    np.testing.assert_allclose(array(prepared)[inside], expected[inside], atol=1e-2)


@pytest.mark.parametrize("chain", [mr_preparation(orientation="LAS"), ct_preparation(border=4)])
def test_chains_go_to_other_processes(chain):
    scan = smooth_scan((40, 50, 4), GRIDS["oblique"])
    here, there = chain(dict(scan)), pickle.loads(pickle.dumps(chain))(dict(scan))
    assert torch.equal(here["image"], there["image"])
    assert torch.equal(here["label"], there["label"])


def test_a_border_wider_than_the_slices_is_an_error():
    with pytest.raises(RuntimeError) as caught:
        ct_preparation(border=32)(smooth_scan((60, 90, 4), GRIDS["axial"]))
    assert "no pixel is left" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (mr_preparation, {"clip_percent": 100}, "clip_percent is 100"),
        (mr_preparation, {"spacing": (1, 1)}, r"spacing is \(1, 1\); give three numbers"),
        (mr_preparation, {"spacing": (1, 1, -1)}, "spacing is"),
        (mr_preparation, {"size": (256, 256, 32)}, r"size is \(256, 256, 32\); give two numbers"),
        (mr_preparation, {"orientation": "LASS"}, 'orientation is "LASS"'),
        (ct_preparation, {"orientation": "LRS"}, 'orientation is "LRS"'),
        (ct_preparation, {"window": (275, -125)}, r"window is \(275, -125\)"),
        (ct_preparation, {"border": -1}, "border is -1"),
        (ct_preparation, {"size": (0, 256)}, r"size is \(0, 256\)"),
    ],
)
def test_arguments_out_of_range_are_named(make, arguments, text):
    with pytest.raises(ValueError, match=text):
        make(**arguments)


@pytest.mark.parametrize(
    ("name", "chain"), [("chaos_t2", mr_preparation()), ("mscmr_bssfp", mr_preparation(spacing=CARDIAC_SPACING))]
)
def test_published_sets_have_the_spacing_and_size_of_the_defaults(data_dir, name, chain):
    entries = json.loads((data_dir / name / "dataset.json").read_text())["training"]
    for entry in entries[::4]:
        loaded = LoadImaged(["image", "label"], ensure_channel_first=True)(
            {key: str(data_dir / name / entry[key]) for key in ("image", "label")}
        )
        prepared = chain(dict(loaded))
        assert prepared["image"].shape == loaded["image"].shape
        torch.testing.assert_close(prepared["image"].affine, loaded["image"].affine, atol=1e-3, rtol=0)
        assert torch.equal(prepared["label"], loaded["label"])
        change = (prepared["image"] - loaded["image"]).abs().double()
        assert (change > 0.01).double().mean() < 0.006
