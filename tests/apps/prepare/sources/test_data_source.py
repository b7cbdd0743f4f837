# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import zipfile

import pytest

from monai_fewshot.apps.prepare.sources import data_source
from monai_fewshot.apps.prepare.sources.data_source import SOURCES, download_dataset, open_source
from monai_fewshot.apps.prepare.sources.download import RemoteFile


def test_table_is_well_formed():
    files = [file for source in SOURCES.values() for file in source.files]
    assert len(files) == 14
    for file in files:
        assert file.url.startswith("https://")
        assert file.file_name.endswith((".zip", ".tar"))
        assert re.fullmatch(r"([0-9a-f]{64})?", file.sha256)
        assert re.fullmatch(r"([0-9a-f]{32})?", file.md5)
        assert file.sha256 or file.md5
    assert len({file.sha256 + file.md5 for file in files}) == len(files)
    assert {name for name, source in SOURCES.items() if not source.files} == {"sabs", "mscmr", "acdc"}


def test_files_of_the_table_are_fetched(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        data_source, "download_file", lambda file, folder: fetched.append(file) or folder / file.file_name
    )
    assert [path.name for path in download_dataset("isic2018", tmp_path)] == [
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
    ]
    assert fetched == list(SOURCES["isic2018"].files)
    download_dataset("Task09_Spleen", tmp_path)
    url = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task09_Spleen.tar"
    assert fetched[-1] == RemoteFile(url, md5="410d4a301da4e5b2f6f86ec3ddba524e")


def test_registration_is_explained(tmp_path):
    with pytest.raises(ValueError, match=r"sabs needs registration\. For BTCV.* register at https://www\.synapse\.org"):
        download_dataset("sabs", tmp_path)
    with pytest.raises(ValueError, match="no data set 'choas'; choose one of chaos, kvasir_seg"):
        download_dataset("choas", tmp_path)


def test_source_is_a_folder_or_an_archive(tmp_path):
    assert open_source(tmp_path, tmp_path / "out") == tmp_path
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("a/b.txt", "c")
    folder = open_source(tmp_path / "set.zip", tmp_path / "out")
    assert (folder / "a" / "b.txt").read_text() == "c"
    assert folder.parent == tmp_path / "out" / ".unpacked"
    assert open_source(tmp_path / "set.zip", tmp_path / "out") == folder
    with pytest.raises(ValueError, match="Raise max_files"):
        open_source(tmp_path / "set.zip", tmp_path / "other", max_files=0)


def test_absent_source_says_where_to_get_it(tmp_path):
    text = r"absent does not exist\. For CHAOS.*, download it by 'python -m .* download chaos --output_dir FOLDER'"
    with pytest.raises(FileNotFoundError, match=text):
        open_source(tmp_path / "absent", tmp_path, "chaos")
    with pytest.raises(FileNotFoundError, match=r"For ACDC: .*, register at https://www\.creatis.* patient001 to"):
        open_source(tmp_path / "absent", tmp_path, "acdc")
    (tmp_path / "scan.nii").write_text("")
    with pytest.raises(ValueError, match=r"scan\.nii is neither a folder nor a zip or tar archive\. Give"):
        open_source(tmp_path / "scan.nii", tmp_path)
