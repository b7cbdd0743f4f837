# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What a user of the SSL-ALPNet bundle is told when the input is not what it should be."""

from __future__ import annotations

import re

import numpy as np
import pytest
from image_bundles import refusal
from PIL import Image

pytestmark = pytest.mark.default_dtype
SIZE = (24, 20, 4)
RGB = np.zeros(SIZE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def _chain(error):
    """All that is printed of an exception and its causes."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _message(action):
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        action()
    return _chain(caught.value)


def _assert_told(action, pattern, error="ValueError"):
    message = _message(action)
    assert re.search(pattern, message), message
    assert re.search(rf"^{error}: ", message, re.MULTILINE), message


@pytest.fixture
def bundle(at_root, tmp_path):
    return at_root(tmp_path)


@pytest.fixture
def small_set(scans, tmp_path, monkeypatch):
    """Three scans in tmp_path/data, and a function that writes the second one anew."""
    make = scans.make
    monkeypatch.setattr(scans, "make", staticmethod(lambda seed, size=SIZE: make(seed, size)))
    scans.data_set(tmp_path / "data", 3)

    def spoil(image=None, label=None, affine=scans.affine, label_affine=scans.affine):
        if image is not None:
            scans.save(tmp_path / "data" / "imagesTr" / "scan_1.nii.gz", image, affine)
        if label is not None:
            scans.save(tmp_path / "data" / "labelsTr" / "scan_1.nii.gz", label, label_affine)

    return spoil


@pytest.fixture
def weights(save_model, tmp_path):
    """A checkpoint of a small network."""
    return save_model(tmp_path / "model.pt")


def _spoiled_image(scans, change):
    image, _ = scans.make(1)
    return change(image)


def _with(image, value):
    image[3, 4, 1] = value
    return image


IMAGE_FAULTS = {
    "NaN": (lambda image: _with(image, np.nan), r"scan_1\.nii\.gz: holds 1 NaN and 0 infinite values among 1920"),
    "infinite": (lambda image: _with(image, -np.inf), r"scan_1\.nii\.gz: holds 0 NaN and 1 infinite values"),
    "constant": (lambda image: image * 0 + 7, r"scan_1\.nii\.gz: is constant, every voxel is 7; export the scan again"),
    "4D": (
        lambda image: np.stack([image, image], axis=3),
        r"scan_1\.nii\.gz: has 2 channels of \(24, 20, 4\) voxels; expected 1\. In a 4D file .* as a 3D file",
    ),
    "RGB": (lambda _image: RGB, r"scan_1\.nii\.gz: stores 3 color channels \(RGB\); expected gray values"),
}


@pytest.mark.parametrize(("change", "pattern"), IMAGE_FAULTS.values(), ids=IMAGE_FAULTS)
@pytest.mark.parametrize("config", ["train", "evaluate", "inference"])
def test_images(config, change, pattern, bundle, small_set, scans, tmp_path, weights):
    small_set(image=_spoiled_image(scans, change))
    data = tmp_path / "data"
    options = {
        "train": {},
        "evaluate": {"checkpoint": weights},
        "inference": {
            "dataset_dir": str(data / "imagesTr"),
            "support_image": str(data / "imagesTr" / "scan_0.nii.gz"),
            "support_label": str(data / "labelsTr" / "scan_0.nii.gz"),
            "checkpoint": weights,
        },
    }
    act = bundle.run if config == "inference" else bundle.workflow
    _assert_told(lambda: act(config, **options[config]), pattern)


@pytest.mark.parametrize("config", ["train", "evaluate"])
def test_truncated_file(config, bundle, small_set, tmp_path, weights):
    file = tmp_path / "data" / "imagesTr" / "scan_1.nii.gz"
    file.write_bytes(file.read_bytes()[:-500])
    options = {"checkpoint": weights} if config == "evaluate" else {}
    _assert_told(lambda: bundle.workflow(config, **options), r"scan_1\.nii\.gz: is truncated or damaged")


@pytest.mark.parametrize("config", ["train", "evaluate"])
def test_missing_file(config, bundle, small_set, tmp_path, weights):
    (tmp_path / "data" / "imagesTr" / "scan_1.nii.gz").unlink()
    options = {"checkpoint": weights} if config == "evaluate" else {}
    _assert_told(lambda: bundle.workflow(config, **options), r"imagesTr/scan_1\.nii\.gz: is missing; correct its path")


LABEL_FAULTS = {
    "shape": (
        {"label": np.ones((24, 20, 5), np.uint8)},
        r"labelsTr/scan_1\.nii\.gz: has \(24, 20, 5\) voxels, but its image .*scan_1\.nii\.gz \(24, 20, 4\); resample",
    ),
    "affine": (
        {"label": np.ones(SIZE, np.uint8), "label_affine": np.diag([1.4, 1.6, 7.5, 1])},
        r"labelsTr/scan_1\.nii\.gz: lies up to .* mm away from its image .*as their affines differ",
    ),
    "unknown class": (
        {"label": np.full(SIZE, 9, np.uint8)},
        r"labelsTr/scan_1\.nii\.gz: holds 9; expected 0 and 1, 2\. Correct the label, or the classes",
    ),
    "empty": (
        {"label": np.zeros(SIZE, np.uint8)},
        r"labelsTr/scan_1\.nii\.gz: is empty, no voxel is above 0; annotate at least one class",
    ),
}


@pytest.mark.parametrize(("fault", "pattern"), LABEL_FAULTS.values(), ids=LABEL_FAULTS)
def test_labels(fault, pattern, bundle, small_set, weights):
    small_set(**fault)
    _assert_told(lambda: bundle.workflow("evaluate", checkpoint=weights), pattern)


@pytest.mark.parametrize(
    ("fault", "pattern"),
    [LABEL_FAULTS[name] for name in ("shape", "affine", "empty")],
    ids=["shape", "affine", "empty"],
)
def test_support_labels(fault, pattern, bundle, small_set, tmp_path, weights):
    small_set(**fault)
    data = tmp_path / "data"
    options = {
        "dataset_dir": str(data / "imagesTr"),
        "support_image": str(data / "imagesTr" / "scan_1.nii.gz"),
        "support_label": str(data / "labelsTr" / "scan_1.nii.gz"),
        "checkpoint": weights,
    }
    _assert_told(lambda: bundle.workflow("inference", **options), pattern)


def test_a_class_absent_from_the_support(bundle, small_set, scans, weights):
    label = scans.make(1)[1]
    small_set(label=label * (label == 1))
    _assert_told(
        lambda: bundle.run("evaluate", checkpoint=weights, fold=0),
        r"support_label: no slice of the 1 support scan\(s\) holds 1 or more pixels of class\(es\) \[2\]",
    )


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("train", {"ckpt_dir": "{file}/run"}),
        ("evaluate", {"output_dir": "{file}/run"}),
        ("inference", {"output_dir": "{file}"}),
    ],
)
def test_output_folder_that_cannot_be_written(config, options, bundle, small_set, tmp_path, weights):
    file = tmp_path / "file"
    file.write_text("in the way")
    options = {key: value.format(file=file) for key, value in options.items()}
    data = tmp_path / "data"
    if config == "evaluate":
        options["checkpoint"] = weights
    if config == "inference":
        options["support_image"] = str(data / "imagesTr" / "scan_1.nii.gz")
        options["support_label"] = str(data / "labelsTr" / "scan_1.nii.gz")
    _assert_told(
        lambda: bundle.workflow(config, **options),
        r"output folder .*file.* cannot be written .*choose another folder",
        error="(OSError|NotADirectoryError|FileExistsError)",
    )


@pytest.mark.parametrize("config", ["evaluate", "inference"])
@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ("other", r"model\.pt is of another network: .* tensors differ in name or shape .*Give the encoder and sizes"),
        ("truncated", r"model\.pt is not a checkpoint, or not a whole one"),
        ("missing", r"There is no checkpoint .*model\.pt: train"),
    ],
)
def test_checkpoints(config, change, pattern, bundle, small_set, save_model, tmp_path, weights):
    file, data = tmp_path / "model.pt", tmp_path / "data"
    if change == "missing":
        file.unlink()
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    if change == "other":
        save_model(file, weights_of=(4, 12))
    options = {"checkpoint": weights}
    if config == "inference":
        options["dataset_dir"] = str(data / "imagesTr")
        options["support_image"] = str(data / "imagesTr" / "scan_1.nii.gz")
        options["support_label"] = str(data / "labelsTr" / "scan_1.nii.gz")
    error = "FileNotFoundError" if change == "missing" else "ValueError"
    _assert_told(lambda: bundle.run(config, **options), pattern, error)


@pytest.mark.parametrize("config", ["evaluate", "inference"])
def test_another_size_than_that_of_the_training(config, bundle, small_set, tmp_path, weights):
    _assert_told(
        lambda: bundle.workflow(config, checkpoint=weights, image_size=[64, 48]),
        r"image_size is \[64, 48\], but .*model\.pt was trained at \[32, 32\]: leave image_size out",
    )


def test_a_training_is_not_overwritten(bundle, small_set, tmp_path):
    options = {"num_val_scans": 0, "max_epochs": 1, "epoch_length": 1}
    bundle.run("train", **options)
    _assert_told(
        lambda: bundle.run("train", **options),
        r"all_scans holds checkpoints of an earlier training\. Pass --resume true",
    )


def test_no_data(bundle, tmp_path):
    _assert_told(
        lambda: bundle.workflow("train"),
        r"data does not exist: give a folder with dataset\.json, or a folder of images",
        "FileNotFoundError",
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("nothing here")
    _assert_told(
        lambda: bundle.workflow("train"), r"holds no dataset\.json, no image .*holds notes\.txt", "FileNotFoundError"
    )


def test_photographs_are_no_scans(bundle, tmp_path):
    (tmp_path / "data").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(tmp_path / "data" / f"{name}.png")
    _assert_told(lambda: bundle.workflow("train"), r"a\.png: is a color picture; expected a gray one")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"fold": 7}, r"fold is 7; .*has 3 folds, 0 to 2"),
        ({"fold": 0}, r"1 of 1 scans cannot be held out for validation: give more scans, or num_val_scans=0"),
        ({"num_val_scans": 3}, "3 of 3 scans cannot be held out for validation"),
        ({"exclude_classes": ["kidney"]}, "'kidney' not among the classes of the data set: 1 liver, 2 spleen"),
        ({"pseudo_labels#min_size": 100_000}, "No slice has a pseudo-label"),
        ({"image_size": [2, 2]}, r"the image is \(2, 2\) voxels large, a U-Net of 2 levels needs 3 or more"),
    ],
)
def test_training_settings(options, pattern, bundle, small_set):
    _assert_told(lambda: bundle.run("train", **options), pattern)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"fold": [0, 3]}, r"fold is \[0, 3\]; .*has 3 folds"),
        ({"classes": ["kidney"]}, "'kidney' not among the classes of the data set: 1 liver, 2 spleen"),
        ({"protocol": "alp"}, "There is no protocol 'alp'. Choose one of"),
        ({"dataset_dir": "{images}"}, "3 of 3 scans have no label"),
    ],
)
def test_evaluation_settings(options, pattern, bundle, small_set, weights, tmp_path):
    options = {
        k: v.format(images=tmp_path / "data" / "imagesTr") if isinstance(v, str) else v for k, v in options.items()
    }
    _assert_told(lambda: bundle.run("evaluate", checkpoint=weights, **options), pattern)


def test_evaluation_needs_names_of_classes(bundle, scans, tmp_path, weights):
    scans.data_set(tmp_path / "data", 3, labels={})
    _assert_told(lambda: bundle.run("evaluate", checkpoint=weights), r"dataset\.json.*names? no class")


def test_a_protocol_that_needs_the_querys_label(bundle, small_set, tmp_path, weights):
    data = tmp_path / "data"
    options = {
        "dataset_dir": str(data / "imagesTr"),
        "support_image": str(data / "imagesTr" / "scan_1.nii.gz"),
        "support_label": str(data / "labelsTr" / "scan_1.nii.gz"),
        "checkpoint": weights,
        "protocol": "alpnet",
    }
    _assert_told(lambda: bundle.run("inference", **options), "label is missing: alpnet finds the slices to segment")


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"support_label": "{data}/labelsTr/none.nii.gz"}, r"--support_label: .*none\.nii\.gz does not exist\. Name"),
        ({"support_image": "support/none.nii.gz"}, r"--support_image: support/none\.nii\.gz does not exist\. Name"),
        (
            {"support_image": "{data}/imagesTr"},
            r"imagesTr holds 3 scans \(scan_0, scan_1, scan_2\); .*name one of them",
        ),
        ({"dataset_dir": "{data}/labels"}, r"labels does not exist"),
    ],
)
def test_inference_paths(options, pattern, bundle, small_set, tmp_path, weights):
    data = tmp_path / "data"
    paths = {
        "dataset_dir": "{data}/imagesTr",
        "support_image": "{data}/imagesTr/scan_1.nii.gz",
        "support_label": "{data}/labelsTr/scan_1.nii.gz",
        **options,
    }
    options = {key: path.format(data=data) for key, path in paths.items()}
    _assert_told(
        lambda: bundle.run("inference", checkpoint=weights, **options), pattern, r"(ValueError|FileNotFoundError)"
    )


@pytest.mark.parametrize("name", ["evaluate", "inference"])
@pytest.mark.parametrize("bundle", ["elsnet", "self_training", "supervised"])
def test_a_network_of_its_classes_is_missing(bundle, name, dataset_dir, tmp_path):
    options = {"dataset_dir": str(dataset_dir), "checkpoint": str(tmp_path / "absent.pt")}
    assert refusal(bundle, name, **options).endswith("absent.pt: train first, or name an existing one.")
