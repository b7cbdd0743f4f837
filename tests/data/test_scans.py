# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil

import pytest

from monai_fewshot.data.scans import fingerprint_scans, load_class_names, load_scans


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
    _touch(tmp_path / "p1" / "MR" / "1.dcm", tmp_path / "p1" / "MR" / "2.dcm", tmp_path / "p1" / "CT" / "IMG0.IMA")
    _touch(tmp_path / "p2" / "I0001", content=bytes(128) + b"DICM")
    scans = {scan["name"]: os.path.relpath(scan["image"], tmp_path) for scan in load_scans(tmp_path)}
    assert scans == {
        "a": "a.NII",
        "b": "b.nii.gz",
        "c.v2": "c.v2.nrrd",
        "d": "d.mha",
        "p1_CT": "p1/CT",
        "p1_MR": "p1/MR",
        "p2": "p2",
    }
    assert list(scans) == sorted(scans)


def test_one_file_or_one_series(tmp_path, monkeypatch):
    _touch(tmp_path / "a.nii.gz", tmp_path / "series.1" / "1.dcm")
    monkeypatch.chdir(tmp_path)
    assert load_scans("a.nii.gz") == [{"name": "a", "image": str(tmp_path / "a.nii.gz")}]
    assert load_scans("series.1") == [{"name": "series.1", "image": str(tmp_path / "series.1")}]


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


@pytest.mark.parametrize(("files", "held"), [([], "it holds nothing"), (["imagesTr/a.nii.gz"], "it holds imagesTr")])
def test_folder_without_images(tmp_path, files, held):
    _touch(*(tmp_path / file for file in files))
    with pytest.raises(FileNotFoundError, match=rf"holds no dataset\.json, no image \(\.nii\.gz, .*{held}"):
        load_scans(tmp_path)


def test_equal_names(tmp_path):
    _touch(tmp_path / "a.nii", tmp_path / "a.nii.gz", tmp_path / "b.nii")
    with pytest.raises(ValueError, match=r"share a name: a \(.*a\.nii\), a \(.*a\.nii\.gz\)\. Rename"):
        load_scans(tmp_path)


@pytest.mark.parametrize("text", ["{'training': []}", "", '{"training": ['])
def test_not_json(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json is not JSON \(.*line 1"):
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


@pytest.mark.parametrize("labels", [["liver"], {"liver": 1}])
def test_malformed_class_names(tmp_path, labels):
    with pytest.raises(ValueError, match=r'dataset\.json: "labels" is .*expected names by number'):
        load_class_names(_write(tmp_path, labels=labels))


def test_fingerprint_follows_content_alone(tmp_path):
    first = tmp_path / "first"
    _touch(first / "a.nii", first / "p" / "1.dcm", first / "p" / "2.dcm", content=b"abc")
    moved = tmp_path / "moved"
    shutil.copytree(first, moved)
    original = fingerprint_scans(load_scans(first))
    assert len(original) == 64
    assert fingerprint_scans(load_scans(moved)[::-1]) == original
    assert fingerprint_scans(load_scans(moved, names=["a"])) != original

    changed = [original]
    for file, content in [("a.nii", b"abd"), ("p/2.dcm", b"abcd"), ("p/3.dcm", b"")]:
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


@pytest.mark.parametrize(
    ("name", "count", "classes"), [("chaos_t2", 20, 4), ("mscmr_bssfp", 35, 3), ("sabs_ct", 6, 13), ("acdc", 40, 3)]
)
def test_real_sets(data_dir, name, count, classes):
    scans = load_scans(data_dir / name, require_labels=True)
    assert len(scans) == count
    assert all(os.path.isfile(scan[key]) for scan in scans for key in ("image", "label"))
    assert list(load_class_names(data_dir / name)) == list(range(1, classes + 1))
