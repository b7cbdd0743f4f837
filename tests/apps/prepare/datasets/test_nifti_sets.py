# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage

from monai_fewshot.apps.prepare.cases.nifti_scans import distinct_values
from monai_fewshot.apps.prepare.dataset_description import patient_folds
from monai_fewshot.apps.prepare.datasets.acdc import DESCRIPTION as ACDC
from monai_fewshot.apps.prepare.datasets.acdc import find_acdc_cases, prepare_acdc
from monai_fewshot.apps.prepare.datasets.mscmr import DESCRIPTION as MSCMR
from monai_fewshot.apps.prepare.datasets.mscmr import find_mscmr_cases, prepare_mscmr
from monai_fewshot.apps.prepare.datasets.sabs import DESCRIPTION as SABS
from monai_fewshot.apps.prepare.datasets.sabs import find_sabs_cases, prepare_sabs
from monai_fewshot.data import load_class_names, load_folds, load_scans
from tests.helpers.dicom_files import AXIAL, oblique, ras_affine
from tests.helpers.itk_geometry import assert_in_place, itk_changed

FLIPPED = ras_affine(AXIAL * [-1, 1, -1], (0.8, 0.8, 3.0))
GRIDS = [ras_affine(AXIAL, (0.8, 0.8, 3.0)), FLIPPED, ras_affine(oblique(5, -4, 6), (0.78, 0.78, 5.0))]
SHORT_AXES = [
    ras_affine(oblique(40, 35, 20), (1.1, 1.1, 9.6)),
    ras_affine(oblique(-50, 30, 70) * [1, 1, -1], (1.25, 1.2500001, 7.99)),
    ras_affine(oblique(10, 80, 20), (1.4, 1.4, 10.0)),
]


def write_scan(image_file, label_file, affine, size, values, seed, dtype=np.int16, low=-1000, high=1000):
    """An image of noise in blocks and a label that holds all values."""
    random = np.random.default_rng(seed)
    blocks = random.integers(low, high, [-(-n // 6) for n in size])
    image = np.kron(blocks, np.ones((6, 6, 6)))[tuple(map(slice, size))]
    label = np.zeros(size, np.uint8 if max(values) < 256 else np.int16)
    for number, value in enumerate(values):
        start = 20 + number * (size[0] - 44) // len(values)
        label[start : start + 6, 12 : size[1] - 12, : size[2] - 1] = value
    for file, voxels in ((image_file, image.astype(dtype)), (label_file, label)):
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), file)


def write_sabs(folder, patients=(1, 2, 21)):
    for index, patient in enumerate(patients):
        files = (folder / f"img/img{patient:04d}.nii.gz", folder / f"label/label{patient:04d}.nii.gz")
        write_scan(*files, GRIDS[index % 3], (132, 126, 7), range(1, 14), patient)
    return folder


def write_mscmr(folder, patients=(1, 2, 10)):
    for index, patient in enumerate(patients):
        files = (folder / f"c0t2lge/patient{patient}_C0.nii.gz", folder / f"c0gt/patient{patient}_C0_manual.nii.gz")
        write_scan(*files, SHORT_AXES[index % 3], (90, 100, 8), (200, 500, 600), patient, np.uint16, 0, 1800)
        shutil.copy(files[0], folder / f"c0t2lge/patient{patient}_LGE.nii.gz")
    return folder


def write_acdc(folder, patients=(1, 2, 3), frames=(1, 12)):
    for index, patient in enumerate(patients):
        own = folder / "training" / f"patient{patient:03d}"
        for frame in frames:
            stem = own / f"patient{patient:03d}_frame{frame:02d}"
            files = (stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_gt.nii.gz"))
            write_scan(*files, SHORT_AXES[index % 3], (54, 64, 6), (1, 2, 3), patient + frame, np.int16, 0, 400)
        text = f"ED: {frames[0]}\nES: {frames[1]}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        (own / "Info.cfg").write_text(text)
        shutil.copy(files[0], own / f"patient{patient:03d}_4d.nii.gz")
    return folder


def texts(problems):
    return "\n".join(map(str, problems))


def prepared(folder, name):
    load = LoadImage(ensure_channel_first=True)
    return [load(folder / part / f"{name}.nii.gz")[0] for part in ("imagesTr", "labelsTr")]


def test_sabs_is_prepared_as_published(tmp_path):
    source = write_sabs(tmp_path / "RawData" / "Training")
    output = prepare_sabs(tmp_path / "RawData", tmp_path / "sabs", (1, 2, 21), border=16, size=(64, 60), num_folds=3,
                          workers=0)  # fmt: skip
    assert [scan["name"] for scan in load_scans(output, require_labels=True)] == ["sabs_01", "sabs_02", "sabs_21"]
    assert load_class_names(output) == SABS.class_names
    assert len(load_decathlon_datalist(output / "dataset.json")) == 3
    for name, patient, affine in zip(("sabs_01", "sabs_02", "sabs_21"), (1, 2, 21), GRIDS, strict=True):
        image, label = prepared(output, name)
        assert nib.aff2axcodes(image.affine.numpy()) == ("L", "A", "S")
        assert image.shape == (64, 60, 7)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(image.pixdim, spacing * [100 / 64, 94 / 60, 1], rtol=1e-5)
        raw = SimpleITK.ReadImage(source / f"img/img{patient:04d}.nii.gz")
        raw = itk_changed(raw, lambda hu: (np.clip(hu, -125, 275) + 125) / 400 * 255)
        raw_label = SimpleITK.ReadImage(source / f"label/label{patient:04d}.nii.gz")
        assert_in_place(image, label, raw, raw_label)


def test_mscmr_is_prepared_as_published(tmp_path):
    source = write_mscmr(tmp_path / "MSCMR")
    output = prepare_mscmr(source, tmp_path / "cmr", (1, 2, 10), size=(96, 80), num_folds=3, workers=0)
    assert [scan["name"] for scan in load_scans(output, require_labels=True)] == ["cmr_01", "cmr_02", "cmr_10"]
    assert load_class_names(output) == MSCMR.class_names
    for name, patient, affine in zip(("cmr_01", "cmr_02", "cmr_10"), (1, 2, 10), SHORT_AXES, strict=True):
        image, label = prepared(output, name)
        assert image.shape[:2] == (96, 80)
        np.testing.assert_allclose(image.pixdim, (1.25, 1.25, 7.99), rtol=1e-4)
        directions = (np.asarray(volume)[:3, :3] / np.linalg.norm(np.asarray(volume)[:3, :3], axis=0)
                      for volume in (image.affine, affine))  # fmt: skip
        np.testing.assert_allclose(*directions, atol=1e-5)
        raw = SimpleITK.ReadImage(source / f"c0t2lge/patient{patient}_C0.nii.gz")
        raw = itk_changed(raw, lambda values: np.minimum(values, np.percentile(values, 99.5)))
        raw_label = SimpleITK.ReadImage(source / f"c0gt/patient{patient}_C0_manual.nii.gz")
        classes = itk_changed(raw_label, np.vectorize({0: 0, 200: 1, 500: 2, 600: 3}.get))
        assert_in_place(image, label, raw, classes)


def test_acdc_keeps_grids_and_values_and_parts_no_patient(tmp_path):
    source = write_acdc(tmp_path / "ACDC")
    output = prepare_acdc(source, tmp_path / "prepared", (1, 2, 3), num_folds=3, workers=0)
    names = [scan["name"] for scan in load_scans(output, require_labels=True)]
    assert names == [f"patient{patient:03d}_frame{frame:02d}" for patient in (1, 2, 3) for frame in (1, 12)]
    for name in names:
        for voxels, file in zip(prepared(output, name), (f"{name}.nii.gz", f"{name}_gt.nii.gz"), strict=True):
            raw = nib.load(source / "training" / name.split("_")[0] / file)
            np.testing.assert_array_equal(voxels, raw.get_fdata())
            np.testing.assert_allclose(voxels.affine, raw.affine, atol=1e-4)
    for fold in load_folds(output):
        assert len({name.split("_")[0] for name in fold.query}) == 1
        assert len(fold.query) == 2
        parted = {name.split("_")[0] for name in fold.query} & {name.split("_")[0] for name in fold.train}
        assert not parted
    assert load_class_names(output) == ACDC.class_names


def test_scans_keep_their_names_and_folds_where_all_patients_are_there(tmp_path):
    cases, problems = find_sabs_cases(write_sabs(tmp_path, (1, 2)))
    assert [case.name for case in cases] == ["sabs_01", "sabs_02"]
    assert len(problems) == 2 * 28
    cases, problems = find_mscmr_cases(write_mscmr(tmp_path / "cmr", (1,)))
    assert len(problems) == 2 * 34
    assert len(find_acdc_cases(write_acdc(tmp_path / "acdc", (100,)))[1]) == 99


@pytest.mark.parametrize("find", [find_sabs_cases, find_mscmr_cases, find_acdc_cases])
def test_a_folder_of_something_else_is_one_problem(tmp_path, find):
    (tmp_path / "photo.png").touch()
    cases, problems = find(tmp_path)
    assert not cases
    assert "holds none of the scans; expected " in str(*problems)


def test_all_problems_of_sabs_are_told_at_once(tmp_path):
    source = write_sabs(tmp_path / "raw", (1, 2, 3, 4, 5, 6))
    (source / "label/label0001.nii.gz").unlink()
    shutil.copytree(source / "img", source / "again")
    for patient in (1, 3, 4, 5, 6):
        (source / f"again/img{patient:04d}.nii.gz").unlink()
    label = nib.load(source / "label/label0003.nii.gz")
    voxels = np.array(label.dataobj)
    voxels[0, 0, 0], voxels[1, 0, 0] = 99, 14
    nib.save(nib.Nifti1Image(voxels, label.affine), source / "label/label0003.nii.gz")
    broken = (source / "img/img0004.nii.gz").read_bytes()
    (source / "img/img0004.nii.gz").write_bytes(broken[: len(broken) // 2])
    label = nib.load(source / "label/label0005.nii.gz")
    shifted = label.affine.copy()
    shifted[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), shifted), source / "label/label0005.nii.gz")
    nib.save(label.slicer[:, :, :-1], source / "label/label0006.nii.gz")
    with pytest.raises(ValueError, match="problem") as caught:
        prepare_sabs(source, tmp_path / "out", (1, 2, 3, 4, 5, 6, 7), workers=0)
    text = str(caught.value)
    for part in (
        "sabs_01: its label label0001.nii.gz is missing",
        "sabs_02: ",
        "more than once, also as",
        "label0003.nii.gz: holds the value(s) 14, 99; expected 0 and 1, 2, 3",
        "img0004.nii.gz: ",
        "sabs_05",
        "4 mm away",
        "(132, 126, 6) voxels",
        "sabs_07: its image img0007.nii.gz is missing",
        "sabs_07: its label label0007.nii.gz is missing",
    ):
        assert part in text
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not (tmp_path / "out" / "imagesTr").exists()


def test_all_problems_of_acdc_are_told_at_once(tmp_path):
    source = write_acdc(tmp_path, (1, 2, 3, 4, 5, 6))
    training = source / "training"
    (training / "patient001/Info.cfg").unlink()
    (training / "patient002/Info.cfg").write_text("ED: 1\nGroup: NOR\n")
    (training / "patient003/Info.cfg").write_text("ED: 1\nES: 9\n")
    (training / "patient004/Info.cfg").write_text("ED: 1\nES: 1\n")
    label = nib.load(training / "patient005/patient005_frame12_gt.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj) * 0.5, label.affine), label.get_filename())
    text = texts(find_acdc_cases(source, range(1, 8))[1])
    for part in (
        "patient001: ",
        "Info.cfg: is missing",
        "patient002: ",
        "does not tell the frames of ED and ES",
        "patient003_frame09: ",
        "patient003_frame09_gt.nii.gz: is missing, which Info.cfg names as end-systole",
        "names frame 1 as both ED and ES",
        "patient005_frame12_gt.nii.gz: holds the value(s) 0.5, 1.5; expected 0 and 1, 2, 3",
        "patient007: has no folder",
    ):
        assert part in text
    assert "patient006" not in text


def test_mscmr_labels_of_other_values_are_found(tmp_path):
    source = write_mscmr(tmp_path)
    label = nib.load(source / "c0gt/patient2_C0_manual.nii.gz")
    nib.save(nib.Nifti1Image(np.minimum(np.asarray(label.dataobj), 550), label.affine), label.get_filename())
    assert "cmr_02: " in (text := texts(find_mscmr_cases(source, (1, 2, 10))[1]))
    assert "holds the value(s) 550; expected 0 and 200, 500, 600" in text


@pytest.mark.parametrize(
    "voxels",
    [
        np.array([0, 200, 600, 7], np.int16),
        np.array([-128, 127, 0, 5], np.int8),
        np.array([0, 70_000, -70_000, 3], np.int32),
        np.array([200, 250, 255, 201], np.uint8),
        np.array([0.5, 2.0, -1.0, 2.0], np.float32),
        np.array([0, 3, 3, 1], ">i2"),
    ],
)
def test_distinct_values_are_those_of_numpy(tmp_path, voxels):
    nib.save(nib.Nifti1Image(voxels.reshape(2, 2, 1), np.eye(4)), tmp_path / "label.nii.gz")
    assert distinct_values(tmp_path / "label.nii.gz") == set(voxels.tolist())


def test_values_of_what_cannot_be_read_are_none(tmp_path):
    (tmp_path / "label.nii.gz").write_bytes(b"no gzip")
    assert distinct_values(tmp_path / "label.nii.gz") == set()


def test_a_second_run_does_nothing_and_other_numbers_do_all_again(tmp_path):
    source = write_mscmr(tmp_path / "raw")
    arguments = {"patients": (1, 2, 10), "size": (64, 64), "num_folds": 0, "workers": 0}
    output = prepare_mscmr(source, tmp_path / "out", **arguments)
    times = {file: file.stat().st_mtime_ns for file in output.rglob("*.*")}
    prepare_mscmr(source, output, **arguments)
    assert times == {file: file.stat().st_mtime_ns for file in output.rglob("*.*")}
    prepare_mscmr(source, output, **{**arguments, "size": (48, 48)})
    assert prepared(output, "cmr_01")[0].shape[:2] == (48, 48)
    settings = json.loads((output / "dataset.json").read_text())["provenance"]["settings"]
    assert settings["size"] == [48, 48]


@pytest.mark.parametrize(("name", "description"), [("sabs_ct", SABS), ("mscmr_bssfp", MSCMR), ("acdc", ACDC)])
def test_classes_are_those_of_the_prepared_sets(data_dir, name, description):
    assert load_class_names(data_dir / name) == description.class_names


def test_folds_are_those_of_the_prepared_set(data_dir, tmp_path):
    cases, problems = find_mscmr_cases(write_mscmr(tmp_path, range(1, 36)))
    assert not problems
    published = json.loads((data_dir / "mscmr_bssfp" / "dataset.json").read_text())["folds"]
    made = patient_folds(cases, 5)
    assert [fold["query"] for fold in made] == [fold["query"] for fold in published]
    assert [fold["support"] for fold in made] == [[fold["support"]] for fold in published]
