# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil

import pytest
from dicom_files import IDENTIFIERS, made_pixels, write_report, write_series

from monai_fewshot.data.dicom.series import series_name
from monai_fewshot.data.scans.scan_folder import fingerprint_scans, load_class_names, load_scans


def _write(folder, **content):
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _touch(*files, content=b"x"):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def test_decathlon_layout(tmp_path):
    training = [
        {"image": "./imagesTr/b.v1.nii.gz", "label": "./labelsTr/b.nii.gz"},
        {"image": "imagesTr/a.mha"},
        {"image": "/elsewhere/image.nrrd", "name": "c"},
    ]
    assert load_scans(_write(tmp_path, training=training)) == [
        {"name": "a", "image": str(tmp_path / "imagesTr/a.mha")},
        {
            "name": "b.v1",
            "image": str(tmp_path / "imagesTr/b.v1.nii.gz"),
            "label": str(tmp_path / "labelsTr/b.nii.gz"),
        },
        {"name": "c", "image": "/elsewhere/image.nrrd"},
    ]


def test_folder_of_images_and_dicom_series(tmp_path):
    _touch(tmp_path / "b.nii.gz", tmp_path / "a.NII", tmp_path / "c.v2.nrrd", tmp_path / "d.mha")
    _touch(tmp_path / "._b.nii.gz", tmp_path / "notes.txt", tmp_path / "report" / "page.html")
    mr = write_series(tmp_path / "p1" / "MR", order=[2, 0, 1, 5, 3, 4])
    ct = write_series(tmp_path / "p1" / "CT", modality="CT", file_name="IMG{}.IMA")
    plain = write_series(tmp_path / "p2", file_name="I{}", series_uid="1.2.3")
    scans = {scan["name"]: scan["image"] for scan in load_scans(tmp_path)}
    assert list(scans) == sorted(scans)
    assert {name: os.path.relpath(image, tmp_path) for name, image in scans.items() if isinstance(image, str)} == {
        "a": "a.NII",
        "b": "b.nii.gz",
        "c.v2": "c.v2.nrrd",
        "d": "d.mha",
    }
    assert {image for image in scans.values() if not isinstance(image, str)} == {
        tuple(map(str, files)) for files in (mr, ct, plain)
    }
    assert scans["series_" + hashlib.sha256(b"1.2.3").hexdigest()[:12]] == tuple(map(str, plain))


def test_one_file_or_one_series(tmp_path, monkeypatch):
    _touch(tmp_path / "a.nii.gz")
    files = tuple(map(str, write_series(tmp_path / "series.1", series_uid="1.2")))
    monkeypatch.chdir(tmp_path)
    assert load_scans("a.nii.gz") == [{"name": "a", "image": str(tmp_path / "a.nii.gz")}]
    assert load_scans("series.1") == [{"name": series_name("1.2"), "image": files}]
    assert load_scans("series.1/IM0003.dcm") == [{"name": series_name("1.2"), "image": files[2:3]}]


def test_selection_by_name(tmp_path):
    _touch(*(tmp_path / f"{name}.nii.gz" for name in "abc"))
    assert [scan["name"] for scan in load_scans(tmp_path, names=("c", "a"))] == ["a", "c"]
    with pytest.raises(ValueError, match=r"has no scan called x, y; its 3 scans are a, b, c\."):
        load_scans(tmp_path, names=["a", "y", "x"])


def test_required_labels(tmp_path):
    training = [{"image": "a.nii.gz", "label": "a_label.nii.gz"}, {"image": "b.nii.gz"}]
    _write(tmp_path, training=training)
    with pytest.raises(ValueError, match="1 of 2 scans have no label: b"):
        load_scans(tmp_path, require_labels=True)
    assert len(load_scans(tmp_path, names=["a"], require_labels=True)) == 1


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: give a folder"):
        load_scans(tmp_path / "nowhere")


@pytest.mark.parametrize(("files", "held"), [([], "it holds nothing"), (["imagesTr/a.txt"], "it holds imagesTr")])
def test_folder_without_images(tmp_path, files, held):
    _touch(*(tmp_path / file for file in files))
    with pytest.raises(FileNotFoundError, match=rf"holds no dataset\.json, no image \(\.nii\.gz, .*{held}"):
        load_scans(tmp_path)


def test_equal_names(tmp_path):
    _touch(tmp_path / "a.nii", tmp_path / "a.nii.gz", tmp_path / "b.nii")
    with pytest.raises(ValueError, match=r"share a name: a \(.*a\.nii\), a \(.*a\.nii\.gz\)\. Rename"):
        load_scans(tmp_path)


def test_files_called_as_a_series_are_its_label_and_mask(tmp_path):
    write_series(tmp_path / "Quxworth", series_uid="1.2")
    _touch(tmp_path / f"{series_name('1.2')}.nii.gz", tmp_path / f"{series_name('1.2')}_seg.nii.gz")
    (scan,) = load_scans(tmp_path)
    assert repr(scan["image"]) == "<6 DICOM files>"


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/x", "a/b", "a\\b", "..", ".hidden", "a\0b", "a\nb", "", "n" * 201]
)
def test_names_that_lead_out_of_a_folder_are_refused(tmp_path, name):
    """An empty name stands for none, and the file's own counts."""
    folder = _write(tmp_path, training=[{"image": "a.nii.gz", "name": name}, {"image": "b.nii.gz"}])
    if not name:
        assert [scan["name"] for scan in load_scans(folder)] == ["a", "b"]
        return
    with pytest.raises(ValueError, match=re.escape(f"{folder}: scans are called {name!r}, but masks and pictures are")):
        load_scans(folder)


def test_scans_in_folders_and_what_is_none_of_them(tmp_path, caplog):
    """One folder a patient, with names that repeat, and masks of an earlier run."""
    wanted = {"p1_t1": "p1/t1.nii.gz", "p2_t1": "p2/t1.nii.gz", "only": "p3/y/only.mha", "top": "top.nii"}
    others = ["p1/label.nii.gz", "p2/t1_seg.nii.gz", "p2/t1-mask.nii", "labelsTr/t1.nii.gz", "masks/x/t1.nrrd"]
    _touch(*(tmp_path / file for file in [*wanted.values(), *others, "p1/.hidden/a.nii", "p1/t1.json", "out/b.nii"]))
    scans = load_scans(tmp_path, leave_out=[tmp_path / "out"])
    assert {scan["name"]: os.path.relpath(scan["image"], tmp_path) for scan in scans} == wanted
    assert "5 files in" in caplog.text
    assert "labelsTr/t1.nii.gz, masks/x/t1.nrrd, p1/label.nii.gz, p2/t1-mask.nii, p2/t1_seg.nii.gz" in caplog.text
    assert [scan["name"] for scan in load_scans(tmp_path / "labelsTr")] == ["t1"]


def test_bids(tmp_path):
    scans = [f"sub-{number}/anat/sub-{number}_T1w.nii.gz" for number in ("01", "02")]
    others = [
        "derivatives/fs/sub-01/sub-01_desc-x_T1w.nii.gz",
        "sourcedata/raw.nii.gz",
        "sub-01/anat/sub-01_dseg.nii",
    ]
    sidecars = [*(scan.replace(".nii.gz", ".json") for scan in scans), "dataset_description.json", "participants.tsv"]
    _touch(*(tmp_path / file for file in [*scans, *others, *sidecars]))
    assert [scan["name"] for scan in load_scans(tmp_path)] == ["sub-01_T1w", "sub-02_T1w"]


def test_nnunet(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2, "liver": 4}
    _write(tmp_path, labels=labels, channel_names={"0": "CT"}, numTraining=2, file_ending=".nrrd")
    _touch(
        *(
            tmp_path / f
            for f in ("imagesTr/a_0000.nrrd", "imagesTr/b_0000.nrrd", "labelsTr/a.nrrd", "imagesTs/c_0000.nrrd")
        )
    )
    assert load_scans(tmp_path) == [
        {"name": "a", "image": str(tmp_path / "imagesTr/a_0000.nrrd"), "label": str(tmp_path / "labelsTr/a.nrrd")},
        {"name": "b", "image": str(tmp_path / "imagesTr/b_0000.nrrd")},
    ]
    assert load_class_names(tmp_path) == {1: "class 1", 2: "core", 4: "liver"}
    _touch(tmp_path / "imagesTr/a_0001.nrrd")
    with pytest.raises(ValueError, match=r"whose scans have several channels.*prepare nnunet --channel 0"):
        load_scans(tmp_path)


@pytest.mark.parametrize("text", ["{'training': []}", "", '{"training": ['])
def test_not_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read as JSON \(.*line 1"):
        load_scans(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, '"training" is absent; expected a list of scans'),
        ({"training": []}, r'"training" is \[\]; expected a list of scans'),
        ({"training": "a.nii.gz"}, "\"training\" is 'a.nii.gz'; expected a list"),
        ({"training": [{"image": "a"}, {"label": "b"}]}, "entry 1 of \"training\" is {'label': 'b'}; expected"),
        ({"training": ["a.nii.gz"]}, "entry 0 of \"training\" is 'a.nii.gz'; expected a dictionary"),
        ({"training": [{"image": ["a", "b"]}]}, "each the path of one file"),
    ],
)
def test_malformed_dataset_json(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{message}|dataset\.json: {message}|{message}"):
        load_scans(_write(tmp_path, **content))


def test_dataset_json_of_another_kind(tmp_path):
    (tmp_path / "dataset.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"dataset\.json holds a list; expected a dictionary"):
        load_scans(tmp_path)


def test_class_names(tmp_path):
    _write(tmp_path, labels={"2": "spleen", "0": "background", "1": "liver"}, training=[])
    assert list(load_class_names(tmp_path).items()) == [(1, "liver"), (2, "spleen")]


def test_class_names_of_a_plain_folder(tmp_path):
    assert load_class_names(tmp_path) == {}
    with pytest.raises(ValueError, match=r'dataset\.json names no class: add "labels", names by number such as'):
        load_class_names(tmp_path, required=True)


@pytest.mark.parametrize("labels", [["liver"], {"liver": "one"}])
def test_malformed_class_names(tmp_path, labels):
    with pytest.raises(ValueError, match=r'dataset\.json: "labels" is .*expected names by number'):
        load_class_names(_write(tmp_path, labels=labels))


def test_fingerprint_follows_content_alone(tmp_path):
    first = tmp_path / "first"
    _touch(first / "a.nii", content=b"abc")
    files = write_series(first / "p")
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    original = fingerprint_scans(load_scans(first))
    assert len(original) == 64
    assert fingerprint_scans(load_scans(moved)[::-1]) == original
    assert fingerprint_scans(load_scans(moved, names=["a"])) != original

    for number, file in enumerate(files):
        (moved / "p" / file.name).rename(moved / "p" / f"{9 - number}.ima")
    assert fingerprint_scans(load_scans(moved)) == original

    changed = [original]
    slice_ = (moved / "p" / "7.ima").read_bytes()
    for file, content in [("a.nii", b"abd"), ("p/7.ima", slice_[:-1] + b"\1"), ("p/7.ima", slice_ + b"\0\0")]:
        (moved / file).write_bytes(content)
        changed.append(fingerprint_scans(load_scans(moved)))
    (moved / "a.nii").rename(moved / "b.nii")
    changed.append(fingerprint_scans(load_scans(moved)))
    assert len(set(changed)) == 5


def test_fingerprint_sees_both_ends_of_long_files(tmp_path):
    content = bytearray(300_000)
    prints = set()
    for position in (None, 0, 65_535, 299_999, 240_000):
        changed = bytearray(content)
        if position is not None:
            changed[position] = 1
        _touch(tmp_path / "a.nii.gz", content=bytes(changed))
        prints.add(fingerprint_scans(load_scans(tmp_path)))
    assert len(prints) == 5


def _study(folder):
    """A tree whose folders bear the patient's name."""
    study = folder / "Quxworth_Zebedee" / "19330217"
    write_series(study / "a", description="t2_haste", series_uid="1.1")
    write_series(study / "a", description="T1 vibe", series_uid="1.2", file_name="B{}")
    write_series(study / "b", modality="CT", description="abdomen", series_uid="1.3")
    localizer = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(study / "b", made_pixels((12, 10, 2)), series_uid="1.4", file_name="C{}", ImageType=localizer)
    write_report(study)
    return folder


@pytest.mark.parametrize(
    ("choice", "uids"),
    [
        ({}, ["1.1", "1.2", "1.3"]),
        ({"modality": "MR"}, ["1.1", "1.2"]),
        ({"modality": "MR", "description": "T2*"}, ["1.1"]),
        ({"series_uid": ["1.3", "1.2"]}, ["1.2", "1.3"]),
        ({"series_uid": series_name("1.2")}, ["1.2"]),
        ({"series_uid": "1.4"}, ["1.4"]),
    ],
)
def test_choice_of_series(tmp_path, caplog, choice, uids):
    _study(tmp_path)
    with caplog.at_level(logging.DEBUG):
        scans = load_scans(tmp_path, **choice)
    assert sorted(scan["name"] for scan in scans) == sorted(map(series_name, uids))
    assert f"{len(uids)} of the 5 DICOM series in {tmp_path} are chosen" in caplog.text
    assert not [word for word in IDENTIFIERS if word in caplog.text]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"modality": "PT"},
            r"holds 5 DICOM series, but none with the modality, .* asked for: series_\w{12} \(MR, 6",
        ),
        ({"description": "scout"}, r"holds 5 DICOM series, but none with .* Descriptions are not shown"),
        ({"modality": "SR"}, r"no DICOM series there is a volume.*\nseries_\w{12}: 1 of 1 images hold no image"),
    ],
)
def test_no_series_is_as_asked_for(tmp_path, choice, message):
    with pytest.raises(ValueError, match=rf"(?s){message}") as caught:
        load_scans(_study(tmp_path), **choice)
    assert not [word for word in IDENTIFIERS if word in str(caught.value)]


def test_an_unreadable_file_does_not_stop_a_tree(tmp_path, caplog):
    (_study(tmp_path / "study") / "Quxworth.dcm").write_bytes(b"x")
    assert len(load_scans(tmp_path / "study")) == 3
    assert "1 DICOM file(s) cannot be read, they are truncated, encrypted" in caplog.text
    assert "2 of 2 images are localizers, no volume" in caplog.text
    assert not [word for word in IDENTIFIERS if word in caplog.text]
    _touch(tmp_path / "broken" / "Quxworth.dcm")
    with pytest.raises(ValueError, match=r"all 1 DICOM file\(s\) there cannot be read, they are") as caught:
        load_scans(tmp_path / "broken")
    assert "Quxworth" not in str(caught.value)


def test_reports_beside_images_do_no_harm(tmp_path):
    _touch(tmp_path / "a.nii.gz")
    write_report(tmp_path)
    assert [scan["name"] for scan in load_scans(tmp_path)] == ["a"]
    with pytest.raises(ValueError, match="no DICOM series there is a volume"):
        load_scans(tmp_path, modality="SR")


def test_choice_without_series(tmp_path):
    _touch(tmp_path / "a.nii.gz")
    with pytest.raises(FileNotFoundError, match=r"no DICOM series; it holds a\.nii\.gz"):
        load_scans(tmp_path, modality="MR")
    _write(tmp_path, training=[{"image": "a.nii.gz"}])
    with pytest.raises(ValueError, match=r"dataset\.json lists scans by file: leave out modality, series_uid"):
        load_scans(tmp_path, modality="MR", series_uid="1.2")


@pytest.mark.parametrize(
    ("name", "count", "classes"), [("chaos_t2", 20, 4), ("mscmr_bssfp", 35, 3), ("sabs_ct", 6, 13), ("acdc", 40, 3)]
)
def test_real_sets(data_dir, name, count, classes):
    scans = load_scans(data_dir / name, require_labels=True)
    assert len(scans) == count
    assert all(os.path.isfile(scan[key]) for scan in scans for key in ("image", "label"))
    assert list(load_class_names(data_dir / name)) == list(range(1, classes + 1))
