# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from monai.apps.utils import safe_extract_member
from monai.config import PathLike
from tqdm import tqdm

from monai_fewshot.data.scans.scan_folder import fingerprint_scans

__all__ = ["ARCHIVE_SUFFIXES", "is_archive", "unpack_archive"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_FILES = 500_000
MAX_BYTES = 500 * 2**30
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
_WRITING = ".unfinished"


class _Member(NamedTuple):
    """A file in an archive."""

    path: str
    size: int
    open: Callable[[], IO[bytes] | None]


def is_archive(path: PathLike) -> bool:
    """Tell by its name whether a file is an archive that :func:`unpack_archive` unpacks."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack_archive(archive: PathLike, folder: PathLike, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a zip or tar archive that may come from anywhere.

    Nothing is written outside of the folder: absolute paths, ``..``, links and devices are refused, and so is an
    archive of too many files or bytes, which is found out before it fills the disk. The files appear in a folder of
    their own, named after the archive and its content, when all of them are there; a run that was interrupted goes on
    where it stopped, and an archive that is unpacked already is left alone. What macOS adds (``__MACOSX``, ``._name``,
    ``.DS_Store``) is passed over.

    ``monai.apps.extractall`` is not used because it knows no bounds and takes a folder that is not empty for complete;
    its check of paths is.

    Args:
        archive: a file with one of the ``ARCHIVE_SUFFIXES``.
        folder: where the folder is made.
        max_files: greatest number of files.
        max_bytes: greatest size of all files together.

    Returns:
        The folder with the files.

    Raises:
        FileNotFoundError: if there is no such archive.
        ValueError: if it is damaged, encrypted, unsafe or larger than allowed, or the folder cannot be written to.
    """
    archive = Path(archive).expanduser()
    if not archive.is_file():
        raise FileNotFoundError(f"There is no archive {archive}: correct the path, or download it.")
    stem = next(archive.name[: -len(end)] for end in ARCHIVE_SUFFIXES if archive.name.lower().endswith(end))
    content = fingerprint_scans([{"name": stem, "image": str(archive)}])
    target = Path(folder).expanduser() / f"{stem}-{content[:12]}"
    unfinished = target.with_name(target.name + _WRITING)
    if target.is_dir():
        return target
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        _write_members(archive, unfinished, max_files, max_bytes)
        os.replace(unfinished, target)
    except ValueError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ValueError(f"{archive} is not unpacked: {error}") from error
    except (*_DAMAGED, RuntimeError) as error:
        raise ValueError(
            f"{archive} is damaged, truncated or encrypted ({type(error).__name__}: {error}). Download it again."
        ) from error
    except OSError as error:
        raise ValueError(
            f"Cannot unpack {archive} into {unfinished}: {error}. Name a folder that you may write to, on a disk with "
            "room, and run again; what is unpacked by now stays."
        ) from error
    return target


def _write_members(archive: Path, folder: Path, max_files: int, max_bytes: int) -> None:
    members = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    num_bytes, seen = 0, set[str]()
    with tqdm(desc=f"unpacking {archive.name}", unit="B", unit_scale=True, disable=None) as bar:
        for member in members(archive, folder):
            path = os.path.normpath(member.path)
            if path.lower() in seen:
                raise ValueError(f"it holds {path} more than once.")
            seen.add(path.lower())
            num_bytes += member.size
            if len(seen) > max_files or num_bytes > max_bytes:
                raise ValueError(
                    f"it holds more than {max_files} files or {max_bytes} bytes. Raise max_files or max_bytes where "
                    "you trust it."
                )
            if not _is_clutter(path):
                _write_member(member, folder / path)
            bar.update(member.size)


def _write_member(member: _Member, path: Path) -> None:
    if path.is_file() and path.stat().st_size == member.size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + _WRITING)
    with member.open() as source, open(unfinished, "wb") as target:  # type: ignore[union-attr]
        shutil.copyfileobj(source, target, 1 << 20)
    if unfinished.stat().st_size != member.size:
        raise EOFError(f"{member.path} has {unfinished.stat().st_size} of {member.size} bytes")
    os.replace(unfinished, path)


def _zip_members(archive: Path, folder: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            safe_extract_member(info, str(folder))
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{info.filename} is a link or a device.")
            if not info.is_dir():
                yield _Member(info.filename, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]


def _tar_members(archive: Path, folder: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as file:
        for info in file:
            safe_extract_member(info, str(folder))
            if not (info.isfile() or info.isdir()):
                raise ValueError(f"{info.name} is a link or a device.")
            if info.isfile():
                yield _Member(info.name, info.size, lambda info=info: file.extractfile(info))  # type: ignore[misc]
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise EOFError("it ends before its end mark")
        while file.fileobj.read(1 << 20):  # to the checksum of a compressed archive
            pass


def _is_clutter(path: str) -> bool:
    parts = PurePosixPath(Path(path).as_posix()).parts
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store"
