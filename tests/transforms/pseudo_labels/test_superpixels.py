# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from skimage.segmentation import felzenszwalb

from monai_fewshot.transforms import SuperpixelLabels, SuperpixelLabelsd
from monai_fewshot.transforms.preparation import body_mask
from monai_fewshot.transforms.pseudo_labels import pseudo_label_source


def scan(depth: int = 3, size: int = 96, seed: int = 0) -> np.ndarray:
    """Noisy blobs inside a disk, dark outside; the last slice is empty."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    body = rows**2 + columns**2 < 0.2
    blobs = np.sin(12 * rows)[..., None] * np.cos(9 * columns)[..., None] * np.arange(1, depth + 1)
    image = np.where(body[..., None], 200 + 60 * blobs + 8 * rng.standard_normal((size, size, depth)), 3.0)
    image[..., -1] = 3.0
    return image[None].astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_every_id_of_a_slice_has_pixels(seed):
    image = scan(seed=seed)
    labels = SuperpixelLabels(min_size=100, min_area=30)(image)
    assert labels.shape == image.shape
    assert labels.dtype == np.int32
    for index in range(image.shape[-1] - 1):
        areas = np.bincount(labels[0, ..., index].ravel())
        assert len(areas) > 4
        assert (areas[1:] >= 30).all()
    assert not labels[..., -1].any()


def test_every_superpixel_is_kept_and_has_an_id_of_its_own():
    image = scan(depth=2)
    labels = SuperpixelLabels(min_size=100, threshold=50, min_area=1)(image)[0, ..., 0]
    inside = image[0, ..., 0] > 50
    expected = felzenszwalb(image[0, ..., 0].astype(float), scale=1, min_size=100, sigma=1)
    pairs = np.unique(np.stack([expected[inside], labels[inside]]), axis=1)
    assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1] == labels.max()
    assert (labels[inside] > 0).all()
    assert not labels[~inside].any()


def test_fragments_below_min_area_are_dropped():
    image = scan(depth=2)
    every = SuperpixelLabels(min_size=400, threshold=50, min_area=1)(image)
    areas = np.bincount(every[0, ..., 0].ravel())[1:]
    bound = int(np.sort(areas)[1])
    kept = SuperpixelLabels(min_size=400, threshold=50, min_area=bound)(image)
    assert kept.max() == (areas >= bound).sum() < every.max()


def test_type_of_the_image_does_not_matter():
    image = np.round(scan())
    expected = SuperpixelLabels(min_size=100)(image)
    assert (SuperpixelLabels(min_size=100)(image.astype(np.int16)) == expected).all()


def test_other_slices_do_not_matter():
    image = scan(depth=4)
    labels = SuperpixelLabels(min_size=100, threshold=50)(image)
    for index in range(4):
        one = SuperpixelLabels(min_size=100, threshold=50)(image[..., index])
        assert (one == labels[..., index]).all()


def test_color_image_has_one_map():
    left, right = np.array([200, 20, 20]), np.array([20, 200, 20])
    image = np.where(np.arange(64)[None, None] < 32, left[:, None, None], right[:, None, None]) * np.ones((1, 64, 1))
    labels = SuperpixelLabels(threshold=-np.inf, min_size=100)(image)
    assert labels.shape == (1, 64, 64)
    assert set(np.unique(labels)) == {1, 2}


@pytest.mark.parametrize("threshold", ["auto", 50])
@pytest.mark.parametrize("value", [0.0, 100.0, -1000.0])
def test_constant_image_has_no_pseudo_labels(value, threshold):
    assert not SuperpixelLabels(threshold=threshold)(np.full((1, 32, 32, 2), value)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_image(value):
    image = scan()
    image[0, 0, :3, 0] = value
    meta = MetaTensor(image, meta={"filename_or_obj": "liver_7.nii.gz"})
    with pytest.raises(ValueError, match=r"liver_7.nii.gz holds NaN or infinite values in 3 of 27648 voxels"):
        SuperpixelLabels()(meta)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"got shape \(8, 8\); load it with ensure_channel_first"):
        SuperpixelLabels()(np.zeros((8, 8)))
    with pytest.raises(ValueError, match="min_size 1 or greater"):
        SuperpixelLabels(min_size=0)
    with pytest.raises(ValueError, match="min_area must be 1 or greater"):
        SuperpixelLabels(min_area=0)
    with pytest.raises(ValueError, match="threshold must be a number or 'auto', got 'otsu'"):
        SuperpixelLabels(threshold="otsu")
    with pytest.raises(ValueError, match="pseudo_label_key must name one new key for each"):
        SuperpixelLabelsd(["image", "second"])


def test_cached_result_is_the_computed_one(tmp_path, monkeypatch):
    image = scan()
    expected = SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image)
    assert len(list(tmp_path.iterdir())) == 1
    other = SuperpixelLabels(min_size=200, cache_dir=tmp_path)(image)
    assert len(list(tmp_path.iterdir())) == 2
    assert (other != expected).any()
    monkeypatch.setattr(SuperpixelLabels, "regions", None)
    again = SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image)
    assert again.dtype == np.int32
    assert (again == expected).all()


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (SuperpixelLabels, "algorithm_version", 2),
        (body_mask, "OTSU_FRACTION", 0.2),
        (pseudo_label_source, "version", lambda package: "99.0"),
        (np, "__version__", "99.0"),
    ],
)
def test_what_decides_the_result_is_in_the_key_of_the_cache(tmp_path, monkeypatch, owner, name, value):
    image = scan()
    SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image)
    monkeypatch.setattr(owner, name, value)
    SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image)
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_cache_file_is_computed_again(tmp_path):
    image = scan()
    expected = SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is damaged"):
        assert (SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image) == expected).all()
    assert (SuperpixelLabels(min_size=100, cache_dir=tmp_path)(image) == expected).all()


def test_dictionary_form_keeps_geometry_and_image():
    affine = torch.diag(torch.tensor([1.25, 1.25, 7.7, 1.0], dtype=torch.float64))
    image = MetaTensor(scan(), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    data = {"image": image, "name": "a"}
    out = Compose([SuperpixelLabelsd("image", min_size=100)])(data)
    assert set(out) == {"image", "name", "pseudo_label"}
    assert set(data) == {"image", "name"}
    labels = out["pseudo_label"]
    assert isinstance(labels, MetaTensor)
    assert labels.dtype == torch.int32
    assert torch.equal(labels.affine, affine)
    assert labels.meta["filename_or_obj"] == "a.nii.gz"
    assert torch.equal(out["image"], image)
    assert (labels.numpy() == SuperpixelLabels(min_size=100)(scan())).all()


def test_dictionary_form_passes_over_missing_keys():
    transform = SuperpixelLabelsd(["image", "t1"], ["a", "b"], min_size=100, allow_missing_keys=True)
    assert set(transform({"t1": scan()})) == {"t1", "b"}
    with pytest.raises(KeyError):
        SuperpixelLabelsd("image")({"t1": scan()})


def test_real_scan_is_covered(data_dir):
    from monai.transforms import LoadImage

    image = LoadImage(ensure_channel_first=True)(data_dir / "chaos_t2" / "imagesTr" / "chaos_01.nii.gz")
    image = image[..., 14:18]
    labels = SuperpixelLabels(threshold=50)(image)
    body = SuperpixelLabels(threshold=50).body_mask(image).bool()
    assert ((labels > 0) & body).sum() / body.sum() > 0.98
    assert not (labels[~body] > 0).any()
    assert all(12 <= int(labels[..., index].max()) <= 35 for index in range(4))
