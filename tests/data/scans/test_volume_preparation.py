# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import json

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Invertd

from monai_fewshot.data import VolumePreparation, load_scans, scan_axes
from monai_fewshot.utils import define

SIZE = (12, 10, 4)
LPS = [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]]
THICK = np.array([1.5, 1.2, 6.0])


def turned(array, affine, axes):
    """The same scan with its axes in another order and direction."""
    image = nibabel.Nifti1Image(array, affine)
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    return image.as_reoriented(change)


def made(seed=0, spacing=THICK):
    """A label of two boxes that lie in no symmetric way, an image that shows them, and an affine (RAS)."""
    random = np.random.default_rng(seed)
    label = np.zeros(SIZE, np.uint8)
    label[2:6, 1:5, 1:3], label[7:10, 4:9, 1:4] = 1, 2
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = random.uniform(-50, 50, 3)
    return (100 * label + random.normal(size=SIZE)).astype(np.float32), label, affine


def saved(folder, axes, seed=0, spacing=THICK):
    image, label, affine = made(seed, spacing)
    scan = {"name": axes}
    folder.mkdir(exist_ok=True)
    for key, array in (("image", image), ("label", label)):
        scan[key] = str(folder / f"{axes}_{key}.nii.gz")
        nibabel.save(turned(array, affine, axes), scan[key])
    return scan


@pytest.mark.parametrize(
    ("axes", "spacing", "expected"),
    [
        ("LPS", THICK, "LPS"),
        ("RAS", THICK, "RAS"),
        ("PIR", (6.0, 1.2, 1.2), "PIR"),
        ("LPS", (1.2, 1.2, 1.2), "LPS"),
        ("PIR", (1.2, 1.2, 1.2), "PIR"),
        ("LIP", (1.2, 6.0, 1.2), "LIP"),
        ("RAS", (1.2, 6.0, 1.2), "RSA"),
        ("SPL", THICK, "PLS"),
        ("LPI", THICK, "LPI"),
    ],
)
def test_slices_are_cut_where_voxels_are_farthest_apart(axes, spacing, expected, tmp_path):
    """Sagittal, coronal and isotropic stacks included; the spacing is along left-right, front-back, head-feet."""
    directions = np.eye(4)
    directions[:3, :3] = np.transpose(scan_axes(saved(tmp_path, axes, spacing=spacing)))
    assert nibabel.aff2axcodes(directions) == tuple(expected)


@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("LPS")] + ["RAS", "PIR"])
def test_scans_of_any_orientation_become_alike(axes, tmp_path):
    preparation = VolumePreparation(axes=LPS, clip_percentiles=[0.5, 99.5])
    expected, found = (preparation.transform()(saved(tmp_path, name)) for name in ("LPS", axes))
    for key in ("image", "label"):
        torch.testing.assert_close(found[key].as_tensor(), expected[key].as_tensor(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[key].affine, expected[key].affine)
    assert nibabel.aff2axcodes(found["image"].affine.numpy()) == tuple("LPS")
    back = Invertd("label", preparation.grid, orig_keys="label", nearest_interp=True)(found)["label"]
    np.testing.assert_array_equal(back[0].numpy(), nibabel.load(tmp_path / f"{axes}_label.nii.gz").dataobj)


def rotation(degrees, axis):
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    one, other = (i for i in range(3) if i != axis)
    matrix = np.eye(4)
    matrix[[one, one, other, other], [one, other, one, other]] = cos, -sin, sin, cos
    return matrix


@pytest.mark.parametrize("axes", ["RAS", "PIR", "SLA"])
def test_oblique_stacks_acquired_alike_stay_alike(axes, tmp_path):
    """Turned by 40 and by 50 degrees, about two axes, scans have other axis codes, and still their slices are alike."""
    image, label, affine = made()
    near, far = (rotation(angle, 2) @ rotation(angle, 0) @ affine for angle in (40, 50))
    assert nibabel.aff2axcodes(near) != nibabel.aff2axcodes(far)
    scans = []
    for name, position, order in (("near", near, "RAS"), ("far", far, axes)):
        scan = {"name": name}
        for key, array in (("image", image), ("label", label)):
            stack = turned(array, affine, order)
            change = position @ np.linalg.inv(affine)
            scan[key] = str(tmp_path / f"{name}_{key}.nii.gz")
            nibabel.save(nibabel.Nifti1Image(np.asarray(stack.dataobj), change @ stack.affine), scan[key])
        scans.append(scan)
    preparation = VolumePreparation(axes=scan_axes(scans[0]))
    first, second = map(preparation.transform(), scans)
    for key in ("image", "label"):
        torch.testing.assert_close(second[key].as_tensor(), first[key].as_tensor())
    back = Invertd("label", preparation.grid, orig_keys="label", nearest_interp=True)(second)["label"]
    original = nibabel.load(scans[1]["label"])
    np.testing.assert_array_equal(back[0].numpy(), original.dataobj)
    np.testing.assert_allclose(back.affine.numpy(), original.affine, atol=1e-4)


def test_without_axes_a_scan_keeps_its_own(tmp_path):
    preparation = VolumePreparation()
    assert preparation.grid is None
    scan = saved(tmp_path, "PIR")
    prepared = preparation.transform()(scan)
    np.testing.assert_array_equal(prepared["label"][0].numpy(), nibabel.load(scan["label"]).dataobj)
    assert preparation.on_axes_of(scan).axes == scan_axes(scan)
    assert VolumePreparation(axes=LPS).on_axes_of(scan).axes == LPS


def test_settings_make_it_again():
    spatial = define("monai_fewshot.transforms.mr_preparation", spacing=[2.0, 2.0, 6.0], size=[12, 10])
    preparation = VolumePreparation((32, 24), LPS, spatial, (0.5, 99.5), {7: "liver", 3: "spleen"}, 4, False)
    settings = json.loads(json.dumps({**preparation.settings(), "classes": None}))
    assert settings == {
        "image_size": [32, 24],
        "axes": LPS,
        "spatial": {
            "_target_": "monai_fewshot.transforms.mr_preparation",
            "spacing": [2.0, 2.0, 6.0],
            "size": [12, 10],
        },
        "clip_percentiles": [0.5, 99.5],
        "classes": None,
        "channels": 4,
        "pictures": False,
    }
    again = VolumePreparation.from_settings(preparation.settings())
    assert again.settings() == preparation.settings()
    assert list(again.classes.items()) == [(7, "liver"), (3, "spleen")]
    assert VolumePreparation.from_settings(VolumePreparation().settings()).settings() == VolumePreparation().settings()


def test_made_again_it_does_the_same(tmp_path):
    spatial = define("monai_fewshot.transforms.mr_preparation", spacing=[3.0, 3.0, 6.0], size=[8, 8])
    preparation = VolumePreparation(axes=LPS, spatial=spatial, clip_percentiles=[5, 95])
    scan = saved(tmp_path, "RAS")
    one, other = (p.transform()(scan) for p in (preparation, VolumePreparation.from_settings(preparation.settings())))
    assert one["image"].shape[1:3] == (8, 8)
    for key in ("image", "label"):
        assert torch.equal(one[key].as_tensor(), other[key].as_tensor())


def test_values_are_clipped_and_normalized_and_classes_numbered(tmp_path):
    scan = saved(tmp_path, "RAS")
    prepared = VolumePreparation(clip_percentiles=[5, 95]).transform(class_numbers=[2])(scan)
    raw = np.asarray(nibabel.load(scan["image"]).dataobj, dtype=np.float64)
    clipped = raw.clip(*np.percentile(raw, (5, 95)))
    np.testing.assert_allclose(prepared["image"][0].numpy(), (clipped - clipped.mean()) / clipped.std(), atol=1e-4)
    np.testing.assert_array_equal(prepared["label"][0].numpy(), np.asarray(nibabel.load(scan["label"]).dataobj) == 2)


def test_real_short_axis_stacks_keep_their_slices(data_dir):
    """Codes of these 35 hearts are PSR and LSP; all are stored alike."""
    scans = load_scans(data_dir / "mscmr_bssfp", require_labels=True)
    aligned, stored = VolumePreparation(axes=scan_axes(scans[0])).transform(), VolumePreparation().transform()
    for scan in scans[:8]:
        assert torch.equal(aligned(scan)["label"].as_tensor(), stored(scan)["label"].as_tensor())
