# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from monai_fewshot.apps.prepare.sources import archives
from monai_fewshot.apps.prepare.sources.archives import is_archive, unpack_archive

FILES = {"Set/a/1.dcm": b"one" * 1000, "Set/b.png": b"two", "Set/empty.txt": b"", "Set/a.b/c d.txt": b"four"}
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def make_archive(path, files=FILES, member=None):
    """Write files, given as bytes by name, and one prepared member."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.mkdir("Set") if hasattr(file, "mkdir") else None
            for name, content in files.items():
                file.writestr(name, content)
            if member is not None:
                file.writestr(member, "/etc/passwd")
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        if member is not None:
            file.addfile(member)
    return path


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_unpacked(tmp_path, suffix):
    archive = make_archive(tmp_path / f"Set{suffix}")
    assert is_archive(archive)
    folder = unpack_archive(archive, tmp_path / "out")
    assert content(folder) == FILES
    assert folder.parent == tmp_path / "out"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert folder.name.startswith("Set-")


def test_what_is_unpacked_is_left_alone_and_another_archive_is_not_taken_for_it(tmp_path, monkeypatch):
    archive = make_archive(tmp_path / "Set.zip")
    folder = unpack_archive(archive, tmp_path)
    with monkeypatch.context() as context:
        context.setattr(archives, "_write_members", None)
        assert unpack_archive(archive, tmp_path) == folder
    make_archive(archive, {"Set/b.png": b"new"})
    newer = unpack_archive(archive, tmp_path)
    assert newer != folder
    assert content(newer) == {"Set/b.png": b"new"}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, suffix):
    archive = make_archive(tmp_path / f"Set{suffix}")
    copy, copied = archives.shutil.copyfileobj, []

    def interrupted(source, target, size):
        copied.append(Path(target.name).name)
        if len(copied) == 2:
            target.write(b"t")
            raise KeyboardInterrupt
        copy(source, target, size)

    monkeypatch.setattr(archives.shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack_archive(archive, tmp_path / "out")
    assert all(path.name.endswith(".unfinished") for path in (tmp_path / "out").iterdir())
    assert content(unpack_archive(archive, tmp_path / "out")) == FILES
    assert copied == [f"{Path(name).name}.unfinished" for name in ("1.dcm", "b.png", "b.png", "empty.txt", "c d.txt")]


def tar_member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_member(name, mode=stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o644) << 16
    return info


@pytest.mark.parametrize(
    ("suffix", "member", "text"),
    [
        (".tar", tar_member("../evil"), r"Unsafe path.*\.\./evil"),
        (".tar", tar_member("Set/../../evil"), "Unsafe path"),
        (".tar.gz", tar_member("/tmp/evil"), "Unsafe path"),
        (".tar", tar_member("Set/link", tarfile.SYMTYPE, "/etc"), "Symbolic link detected in archive: Set/link"),
        (".tar", tar_member("Set/link", tarfile.SYMTYPE, "b.png"), "Symbolic link detected"),
        (".tar", tar_member("Set/link", tarfile.LNKTYPE, "../../x"), "Hard link detected"),
        (".tar", tar_member("Set/pipe", tarfile.FIFOTYPE), "Set/pipe is a link or a device"),
        (".tar", tar_member("Set/disk", tarfile.BLKTYPE), "Set/disk is a link or a device"),
        (".tar", tar_member("Set/./b.png"), r"holds Set.b\.png more than once"),
        (".zip", zip_member("../evil"), "Unsafe path"),
        (".zip", zip_member("/tmp/evil"), "Unsafe path"),
        (".zip", zip_member("Set/link", stat.S_IFLNK), "Set/link is a link or a device"),
        (".zip", zip_member("Set/B.PNG"), r"holds Set.B\.PNG more than once"),
    ],
)
def test_unsafe_archives_are_refused_whole(tmp_path, suffix, member, text):
    archive = make_archive(tmp_path / f"Set{suffix}", member=member)
    with pytest.raises(ValueError, match=rf"Set{suffix} is not unpacked: .*{text}"):
        unpack_archive(archive, tmp_path / "deep" / "out")
    assert {p.name for p in tmp_path.rglob("*")} == {archive.name, "deep", "out"}


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path, suffix):
    archive = make_archive(tmp_path / f"Set{suffix}")
    folder = unpack_archive(archive, tmp_path / "out")
    unfinished = folder.with_name(folder.name + ".unfinished")
    for path in (folder, *(tmp_path / "out").glob("*")):
        if path.is_dir():
            path.rename(tmp_path / "elsewhere")
    unfinished.mkdir()
    (unfinished / "Set").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "Set" / "b.png").unlink()
    with pytest.raises(ValueError, match="Unsafe path: path traversal"):
        unpack_archive(archive, tmp_path / "out")
    assert not (tmp_path / "elsewhere" / "b.png").exists()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
@pytest.mark.parametrize("bound", [{"max_files": 3}, {"max_bytes": 3000}])
def test_number_and_size_are_bounded(tmp_path, suffix, bound):
    archive = make_archive(tmp_path / f"Set{suffix}")
    with pytest.raises(ValueError, match=r"holds more than .* files or .* bytes. Raise max_files or max_bytes"):
        unpack_archive(archive, tmp_path / "out", **bound)
    assert not list((tmp_path / "out").iterdir())
    assert content(unpack_archive(archive, tmp_path / "out", max_files=4, max_bytes=3007)) == FILES


def test_a_zip_that_holds_more_than_it_says_is_refused(tmp_path):
    archive = make_archive(tmp_path / "Set.zip", {"bomb": b"\0" * 100_000})
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="damaged"):
        unpack_archive(archive, tmp_path / "out", max_bytes=100)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 10


@pytest.mark.parametrize(("suffix", "end"), [(".zip", -40), (".tar.gz", -60), (".tar", 5 * 512), (".tar", 8 * 512)])
def test_truncated_archives_never_look_complete(tmp_path, suffix, end):
    archive = make_archive(tmp_path / f"Set{suffix}")
    archive.write_bytes(archive.read_bytes()[:end])
    with pytest.raises(ValueError, match=rf"Set{suffix} is damaged, truncated or encrypted .* Download it again"):
        unpack_archive(archive, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if not path.name.endswith(".unfinished")]


def test_the_checksum_of_a_compressed_archive_counts(tmp_path):
    archive = make_archive(tmp_path / "Set.tar.gz")
    raw = bytearray(archive.read_bytes())
    raw[-6] ^= 1
    archive.write_bytes(raw)
    with pytest.raises(ValueError, match=r"Set\.tar\.gz (is damaged|cannot)|Cannot unpack .*CRC"):
        unpack_archive(archive, tmp_path / "out")


def test_clutter_of_macos_is_passed_over(tmp_path):
    clutter = {"__MACOSX/Set/._b.png": b"x", "Set/._b.png": b"x", "Set/.DS_Store": b"x"}
    archive = make_archive(tmp_path / "Set.zip", {**clutter, **FILES})
    assert content(unpack_archive(archive, tmp_path / "out")) == FILES


def test_no_archive(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no archive .*Set\.zip: correct the path, or download"):
        unpack_archive(tmp_path / "Set.zip", tmp_path / "out")
    (tmp_path / "Set.zip").write_bytes(b"<html>sign in</html>")
    with pytest.raises(ValueError, match=r"Set\.zip is damaged"):
        unpack_archive(tmp_path / "Set.zip", tmp_path / "out")
    assert not is_archive("scan.nii.gz")
