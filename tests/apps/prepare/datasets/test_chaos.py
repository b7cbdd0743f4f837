# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Invertd, LoadImage
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from monai_fewshot.apps.prepare.cases.case import Case
from monai_fewshot.apps.prepare.cases.picture_stacks import load_picture_stack
from monai_fewshot.apps.prepare.dataset_description import patient_folds
from monai_fewshot.apps.prepare.datasets.chaos import CHAOS_PARTS, find_chaos_cases, prepare_chaos
from monai_fewshot.data import load_class_names, load_scans
from monai_fewshot.transforms import mr_preparation
from tests.helpers.dicom_files import AXIAL, oblique, ras_affine, write_series
from tests.helpers.itk_geometry import assert_in_place, itk_changed, itk_image, itk_values

SIZE = (66, 58, 9)
GRAY = {"MR": (63, 126, 189, 252), "CT": (255,)}
ORIGIN = (-50.0, -40.0, 100.0)
NOISE = np.random.default_rng(5).normal(0, 0.003, SIZE[2])
KINDS = {
    "ascending": {},
    "descending": {"order": range(SIZE[2])[::-1], "transfer_syntax": RLELossless},
    "flipped": {"directions": AXIAL * [-1, -1, 1], "transfer_syntax": DeflatedExplicitVRLittleEndian},
    "left-handed": {"directions": AXIAL * [1, 1, -1], "transfer_syntax": ImplicitVRLittleEndian},
    "oblique, descending": {"directions": oblique(8, -6, 5), "order": range(SIZE[2])[::-1]},
    "unsigned": {"dtype": np.uint16, "transfer_syntax": RLELossless},
    "rescaled": {"slope": 1.5, "intercept": -1000.0},
    "rescaled and unsigned": {"dtype": np.uint16, "slope": 2.0, "intercept": -1024.0},
    "thin slices with gaps": {"SliceThickness": 2.0, "offsets": np.arange(SIZE[2]) * 7.0 + NOISE},
}


def made_scan(seed, dtype=np.int16, num_classes=4):
    """Stored values in blocks and a label of boxes, (columns, rows, slices)."""
    random = np.random.default_rng(seed)
    low = -200 if dtype == np.int16 else 0
    blocks = random.integers(low, 1800, [-(-n // 5) for n in SIZE])
    pixels = np.kron(blocks, np.ones((5, 5, 5)))[tuple(map(slice, SIZE))].astype(dtype)
    label = np.zeros(SIZE, np.uint8)
    for number in range(num_classes):
        label[10 + 11 * number : 18 + 11 * number, 12:40, 1 + number % 3 : 6 + number] = number + 1
    return pixels, label


def write_patient(images, pictures, seed, kind="ascending", modality="MR", spacing=(1.5, 1.4, 7.0), names=None, **tags):
    """A series and its pictures, which follow the names of the DICOM files; returns label and RAS affine as made."""
    own = {**KINDS[kind], **tags}
    pixels, label = made_scan(seed, own.pop("dtype", np.int16), len(GRAY[modality]))
    name = names or "IMG-0002-{:05d}"
    files = write_series(images, pixels, spacing=spacing, modality=modality, file_name=name + ".dcm", **own)
    pictures.mkdir(parents=True, exist_ok=True)
    gray = np.array([0, *GRAY[modality]], np.uint8)
    pattern = name if modality == "MR" else "liver_GT_{:03d}"
    for index in range(SIZE[2]):
        number = pydicom.dcmread(files[index], specific_tags=["InstanceNumber"]).InstanceNumber
        Image.fromarray(gray[label[:, :, index].T]).save(pictures / f"{pattern.format(number)}.png")
    return label, ras_affine(own.get("directions", AXIAL), spacing, ORIGIN)


def write_mr(folder, kinds, sequence="T2SPIR", inner=""):
    """Patients 1, 2, ... of the kinds, as in the download."""
    made = {}
    for patient, kind in enumerate(kinds, start=1):
        own = folder / "Train_Sets" / "MR" / str(patient) / sequence
        made[patient] = write_patient(own / "DICOM_anon" / inner, own / "Ground", patient, kind)
    return made


def itk_series(folder):
    """A folder's series as SimpleITK reads it."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.Cast(reader.Execute(), SimpleITK.sitkFloat64)


def prepared(folder, name):
    load = LoadImage(ensure_channel_first=True)
    return [load(folder / part / f"{name}.nii.gz")[0] for part in ("imagesTr", "labelsTr")]


@pytest.mark.parametrize("kind", KINDS)
def test_series_and_pictures_are_read_where_simpleitk_and_the_maker_have_them(tmp_path, kind):
    made_label, made_affine = write_patient(tmp_path / "dicom", tmp_path / "png", 3, kind)
    files = [tuple(sorted((tmp_path / part).iterdir())) for part in ("dicom", "png")]
    scan = load_picture_stack(Case("a", *files), CHAOS_PARTS["t2spir"].values)
    raw = itk_series(tmp_path / "dicom")
    image = scan["image"][0]
    affine, shape = image.affine.numpy(), image.shape
    np.testing.assert_allclose(image, itk_values(raw, affine, shape, "nearest"), atol=1e-3)
    label = itk_image(made_label, made_affine)
    np.testing.assert_array_equal(scan["label"][0], itk_values(label, affine, shape, "nearest"))
    torch.testing.assert_close(scan["label"].affine, scan["image"].affine)


def test_t2spir_is_prepared_as_published(tmp_path):
    made = write_mr(tmp_path / "raw", KINDS)
    output = prepare_chaos(tmp_path / "raw", tmp_path / "out", patients=list(made), size=(72, 64), workers=0,
                           num_folds=3)  # fmt: skip
    names = [scan["name"] for scan in load_scans(output, require_labels=True)]
    assert names == [f"chaos_{patient:02d}" for patient in made]
    assert load_class_names(output) == {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
    for (patient, (made_label, made_affine)), name in zip(made.items(), names, strict=True):
        image, label = prepared(output, name)
        assert nib.aff2axcodes(image.affine.numpy()) == ("L", "A", "S")
        assert image.shape == (72, 64, round(8 * 7 / 7.7) + 1)
        np.testing.assert_allclose(image.pixdim, (1.25, 1.25, 7.7), rtol=1e-4)
        raw = itk_series(tmp_path / f"raw/Train_Sets/MR/{patient}/T2SPIR/DICOM_anon")
        raw = itk_changed(raw, lambda voxels: np.minimum(voxels, np.percentile(voxels, 99.5)))
        assert_in_place(image, label, raw, itk_image(made_label, made_affine), atol=1 if patient == 9 else 0.05)
    settings = json.loads((output / "dataset.json").read_text())["provenance"]["settings"]
    assert settings == {"part": "t2spir", "spacing": [1.25, 1.25, 7.7], "clip_percent": 0.5, "size": [72, 64],
                        "orientation": "LAS"}  # fmt: skip


@pytest.mark.parametrize(("part", "inner"), [("t1_in_phase", "InPhase"), ("t1_out_phase", "OutPhase")])
def test_both_phases_of_t1_share_the_label(tmp_path, part, inner):
    kinds = ("ascending", "descending")
    made = write_mr(tmp_path / "raw", kinds, "T1DUAL", inner)
    other = {"InPhase": "OutPhase", "OutPhase": "InPhase"}[inner]
    for patient in made:
        folder = tmp_path / f"raw/Train_Sets/MR/{patient}/T1DUAL/DICOM_anon"
        write_series(folder / other, made_scan(77)[0], spacing=(1.5, 1.4, 7.0), file_name="IMG-0003-{:05d}.dcm")
    output = prepare_chaos(tmp_path / "raw", tmp_path / "out", part, [1, 2], size=(72, 64), workers=0, num_folds=2)
    for patient, (made_label, made_affine) in made.items():
        raw = itk_series(tmp_path / f"raw/Train_Sets/MR/{patient}/T1DUAL/DICOM_anon/{inner}")
        raw = itk_changed(raw, lambda voxels: np.minimum(voxels, np.percentile(voxels, 99.5)))
        assert_in_place(*prepared(output, f"chaos_{patient:02d}"), raw, itk_image(made_label, made_affine), atol=0.05)


def test_the_ct_half_is_prepared_whose_pictures_run_from_above(tmp_path):
    made = {}
    for patient, kind in ((1, "descending"), (2, "rescaled and unsigned"), (5, "left-handed")):
        own = tmp_path / "raw" / "Train_Sets" / "CT" / str(patient)
        arguments = {"modality": "CT", "names": "i{:04d},0000b"}
        made[patient] = write_patient(own / "DICOM_anon", own / "Ground", patient, kind, **arguments)
    write_mr(tmp_path / "raw", ("ascending",))
    output = prepare_chaos(tmp_path / "raw", tmp_path / "out", "ct", (1, 2, 5), border=3, size=(37, 31), workers=0,
                           num_folds=3)  # fmt: skip
    assert load_class_names(output) == {1: "liver"}
    for patient, (made_label, made_affine) in made.items():
        image, label = prepared(output, f"chaos_{patient:02d}")
        assert image.shape == (37, 31, 9)
        np.testing.assert_allclose(image.pixdim, (1.5 * 60 / 37, 1.4 * 52 / 31, 7), rtol=1e-4)
        raw = itk_series(tmp_path / f"raw/Train_Sets/CT/{patient}/DICOM_anon")
        raw = itk_changed(raw, lambda units: (np.clip(units, -125, 275) + 125) / 400 * 255)
        assert_in_place(image, label, raw, itk_image(made_label, made_affine), atol=0.05)


def test_a_result_on_a_raw_series_comes_back_onto_its_grid(tmp_path):
    made_label, made_affine = write_patient(tmp_path / "dicom", tmp_path / "png", 3, "oblique, descending")
    files = [tuple(sorted((tmp_path / part).iterdir())) for part in ("dicom", "png")]
    scan = load_picture_stack(Case("a", *files), CHAOS_PARTS["t2spir"].values)
    grid = scan["image"].affine.clone()
    chain = mr_preparation(orientation="LAS", spacing=(1.5, 1.4, 7.0), size=(96, 96))
    done = chain(scan)
    done["pred"] = MetaTensor(done["label"].as_tensor(), affine=done["label"].affine)
    back = Invertd("pred", chain, "image", nearest_interp=True, to_tensor=True)(done)["pred"]
    torch.testing.assert_close(back.affine, grid, atol=1e-6, rtol=0)
    found = itk_values(itk_image(made_label, made_affine), back.affine.numpy(), back.shape[1:], "nearest")
    np.testing.assert_array_equal(back[0], found)


def test_gray_values_around_those_of_the_organs_count_as_them(tmp_path):
    write_patient(tmp_path / "dicom", tmp_path / "png", 3)
    files = [tuple(sorted((tmp_path / part).iterdir())) for part in ("dicom", "png")]
    gray = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    gray[:8, 0] = 56, 70, 111, 135, 176, 200, 241, 255
    Image.fromarray(gray).save(files[1][0])
    label = load_picture_stack(Case("a", *files), CHAOS_PARTS["t2spir"].values)["label"]
    assert label[0, 0, :8, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]


def test_pictures_of_one_bit_count_as_the_liver(tmp_path):
    write_patient(tmp_path / "dicom", tmp_path / "png", 3, modality="CT")
    files = [tuple(sorted((tmp_path / part).iterdir())) for part in ("dicom", "png")]
    for file in files[1]:
        Image.open(file).convert("1").save(file)
    label = load_picture_stack(Case("a", *files), CHAOS_PARTS["ct"].values)["label"]
    np.testing.assert_array_equal(label[0].bool(), made_scan(3, num_classes=1)[1] > 0)


def test_files_of_one_volume_may_say_to_be_of_many_series(tmp_path):
    uids = [pydicom.uid.generate_uid() for _ in range(SIZE[2])]
    folder = tmp_path / "Train_Sets/MR/1/T2SPIR"
    made_label, made_affine = write_patient(folder / "DICOM_anon", folder / "Ground", 1, SeriesInstanceUID=uids)
    cases, problems = find_chaos_cases(tmp_path, patients=[1])
    assert not problems
    label = load_picture_stack(cases[0], CHAOS_PARTS["t2spir"].values)["label"][0]
    found = itk_values(itk_image(made_label, made_affine), label.affine.numpy(), label.shape, "nearest")
    np.testing.assert_array_equal(label, found)


def test_all_problems_are_told_at_once(tmp_path):
    write_mr(tmp_path, ["ascending"] * 12)
    own = {patient: tmp_path / f"Train_Sets/MR/{patient}/T2SPIR" for patient in range(1, 14)}
    dicom = {patient: sorted((folder / "DICOM_anon").glob("*.dcm")) for patient, folder in own.items()}
    png = {patient: sorted((folder / "Ground").glob("*.png")) for patient, folder in own.items()}
    shutil.rmtree(own[1] / "Ground")
    dicom[2][4].unlink()
    png[2][4].unlink()
    png[3][0].unlink()
    write_series(own[4] / "DICOM_anon", made_scan(9)[0], file_name="B{:05d}.dcm", spacing=(1.5, 1.4, 7.0))
    shutil.move(dicom[5][2], own[5] / "DICOM_anon" / "IMG-0002-00099.dcm")
    for number, file in enumerate(png[6][:3]):
        Image.fromarray(np.full((SIZE[1], SIZE[0]), 100 + number, np.uint8)).save(file)
    for file in png[7][:2]:
        Image.fromarray(np.zeros((SIZE[0], SIZE[1]), np.uint8)).save(file)
    png[8][0].write_bytes(b"\x89PNG, or not")
    Image.fromarray(np.zeros((SIZE[1], SIZE[0], 3), np.uint8)).save(png[9][0])
    dicom[10][0].write_bytes(dicom[10][0].read_bytes()[:150])
    shutil.copytree(own[11].parent, tmp_path / "again" / "11")
    text = ""
    with pytest.raises(ValueError, match="problem") as caught:
        prepare_chaos(tmp_path, tmp_path.parent / "out", patients=range(1, 14), workers=0)
    text = str(caught.value)
    for part in (
        "chaos_01",
        "holds no PNG files",
        "1 slice(s) are missing",
        "holds 8 pictures for the 9 DICOM files",
        "holds 2 series, of 9 and 9 files; keep the files of one",
        "the slices are out of order",
        "IMG-0002-00001.png: holds the value(s) 100, 101, 102; expected 0 and 56",
        "has 58 x 66 pixels, its slice 66 x 58; download it again. So it is with 2 pictures.",
        "chaos_08",
        "cannot be read (UnidentifiedImageError)",
        "has 3 color channels",
        "IMG-0002-00001.dcm cannot be read",
        "chaos_11",
        "is there more than once",
        "chaos_13: has no folder 13/T2SPIR/DICOM_anon",
    ):
        assert part in text, part
    assert "chaos_12" not in text
    assert text.count("holds the value(s)") == 1


def test_a_folder_of_something_else_is_one_problem(tmp_path):
    (tmp_path / "photos").mkdir()
    for part in CHAOS_PARTS:
        cases, problems = find_chaos_cases(tmp_path, part)
        assert not cases
        assert "holds none of the scans; expected CHAOS_Train_Sets.zip" in str(*problems)


def test_scans_with_problems_can_be_left_out(tmp_path):
    write_mr(tmp_path / "raw", ["ascending", "ascending", "descending"])
    shutil.rmtree(tmp_path / "raw/Train_Sets/MR/2/T2SPIR/Ground")
    arguments = {"size": (48, 48), "workers": 0, "num_folds": 2, "skip_broken": True}
    output = prepare_chaos(tmp_path / "raw", tmp_path / "out", patients=(1, 2, 3), **arguments)
    assert [scan["name"] for scan in load_scans(output)] == ["chaos_01", "chaos_03"]


def test_the_archive_will_do(tmp_path):
    write_mr(tmp_path / "raw", ["descending"] * 2)
    archive = shutil.make_archive(tmp_path / "CHAOS_Train_Sets", "zip", tmp_path / "raw")
    arguments = {"patients": (1, 2), "size": (48, 48), "workers": 0, "num_folds": 2}
    outputs = [
        prepare_chaos(source, tmp_path / str(i), **arguments) for i, source in enumerate((archive, tmp_path / "raw"))
    ]
    for name in ("chaos_01", "chaos_02"):
        for one, other in zip(*(prepared(output, name) for output in outputs), strict=True):
            assert torch.equal(one.as_tensor(), other.as_tensor())
            assert torch.equal(one.affine, other.affine)


def test_a_source_that_is_not_there_is_told_where_to_get(tmp_path):
    with pytest.raises(FileNotFoundError, match="Train_Sets"):
        prepare_chaos(tmp_path / "nothing", tmp_path / "out")


def test_another_part_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='part is "t2"; give one of t2spir'):
        prepare_chaos(tmp_path, tmp_path / "out", "t2")


def test_folds_and_classes_are_those_of_the_prepared_set(data_dir):
    part = CHAOS_PARTS["t2spir"]
    assert load_class_names(data_dir / "chaos_t2") == part.class_names
    published = json.loads((data_dir / "chaos_t2" / "dataset.json").read_text())
    assert published["name"] == part.name
    names = [f"chaos_{patient:02d}" for patient in part.patients]
    folds = patient_folds([Case(name, (), (data_dir,)) for name in names], 5)
    assert [(fold["query"], fold["support"][0]) for fold in folds] == [
        (fold["query"], fold["support"]) for fold in published["folds"]
    ]
    for name in names[::6]:
        image, label = prepared(data_dir / "chaos_t2", name)
        assert nib.aff2axcodes(image.affine.numpy()) == ("L", "A", "S")
        assert set(np.unique(label)) == {0, *part.class_names}
