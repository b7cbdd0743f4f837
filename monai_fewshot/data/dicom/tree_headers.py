# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import optional_import
from tqdm import tqdm

from monai_fewshot.utils import WriteError, write_atomically

from . import header, image_kind
from .header import NOT_DICOM_SUFFIXES, DicomSlice, is_dicom, slices_of_file

__all__ = ["HEADER_CACHE", "headers_of_files", "headers_of_tree", "user_cache_dir"]

pydicom, has_pydicom = optional_import("pydicom")
logger = logging.getLogger(__name__)

CACHED_FROM = 200
"""Number of files from which on headers are cached: fewer are read in a second."""
HEADER_CACHE = "dicom_headers"
"""Name of the folder of cached headers in the user's cache folder."""
FIELDS = tuple(each.name for each in fields(DicomSlice) if each.name != "file")

Header = list[DicomSlice] | None
"""The images of a DICOM file; None where it cannot be read."""
Entry = tuple[int, int, list[list[Any]] | None]
"""Size in bytes and time of change in ns of a file, and its images; None where there are none."""


def user_cache_dir() -> Path:
    """Folder of what the user's computations may need again: ``$XDG_CACHE_HOME/monai_fewshot``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monai_fewshot"


def headers_of_tree(folder: PathLike, num_workers: int = 8) -> list[tuple[str, Header]]:
    """Read the headers of all DICOM files in a folder, at any depth.

    The tree is walked once. What a file held is kept in the user's cache folder under its path, size and time of
    change, readable by the user alone; only files that are new or have changed are opened again. Files that could not
    be read are tried again. Folders of fewer than 200 files are not cached. An interrupted reading goes on.

    Args:
        folder: where to look, or one file. Files and folders whose name begins with a dot are passed over.
        num_workers: threads that read headers.

    Returns:
        Path and headers of each DICOM file.
    """
    root = Path(folder)
    states = {path: state for path, state in _files(root) if not path.lower().endswith(NOT_DICOM_SUFFIXES)}
    cache = _cache_file(root) if len(states) >= CACHED_FROM and has_pydicom else None
    stored = {} if cache is None else _stored(cache)
    inner = len(os.fspath(root))
    known = {path: stored[name] for path in states if (name := path[inner:]) in stored}
    known = {path: entry for path, entry in known.items() if entry[:2] == states[path]}
    fresh = [path for path in states if path not in known]
    unreadable = set()
    try:
        for path, slices in _read(fresh, num_workers):
            if slices is None:
                unreadable.add(path)
            else:
                known[path] = (*states[path], _rows(slices) or None)
    finally:
        if cache is not None and (fresh or len(known) < len(stored)):
            _store(cache, {path[inner:]: entry for path, entry in known.items()})
    return [
        (path, None if path in unreadable else _slices(path, known[path][2]))
        for path in states
        if path in unreadable or known[path][2] is not None
    ]


def headers_of_files(files: Iterable[PathLike], num_workers: int = 8) -> list[tuple[str, Header]]:
    """Read the headers of DICOM files.

    Args:
        files: paths in any order.
        num_workers: threads that read headers.

    Returns:
        Path and headers of each file.
    """
    paths = [os.fspath(file) for file in files]
    with ThreadPoolExecutor(max(1, min(num_workers, len(paths)))) as pool:
        return list(zip(paths, pool.map(_header, paths), strict=True))


def _files(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path, size and time of change of each visible file."""
    if not root.is_dir():
        yield from _states([os.fspath(root)])
    for parent, children, names in os.walk(root):
        children[:] = sorted(child for child in children if not child.startswith("."))
        yield from _states(os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))


def _states(paths: Iterable[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:  # a link that leads nowhere
            continue
        yield path, (status.st_size, status.st_mtime_ns)


def _read(paths: Sequence[str], num_workers: int) -> Iterator[tuple[str, Header]]:
    """Read the headers of files; no images are those of files that are no DICOM, or a DICOMDIR."""
    pool = ThreadPoolExecutor(max(1, min(num_workers, len(paths))))
    try:
        headers = pool.map(lambda path: _header(path) if is_dicom(Path(path)) else [], paths)
        hidden = len(paths) < CACHED_FROM or not sys.stderr.isatty()
        yield from tqdm(zip(paths, headers, strict=True), "reading headers", len(paths), disable=hidden, leave=False)
    finally:
        pool.shutdown(cancel_futures=True)


def _header(path: str) -> Header:
    try:
        return slices_of_file(path)
    except ValueError:
        return None


def _rows(slices: Sequence[DicomSlice]) -> list[list[Any]]:
    return [[getattr(slice_, name) for name in FIELDS] for slice_ in slices]


def _slices(path: str, rows: Sequence[Sequence[Any]] | None) -> list[DicomSlice]:
    return [DicomSlice(path, *map(_hashable, row)) for row in rows or ()]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cache_file(root: Path) -> Path:
    name = hashlib.sha256(os.path.abspath(root).encode(errors="surrogateescape")).hexdigest()
    return user_cache_dir() / HEADER_CACHE / f"{name}.json.gz"


def _made_by() -> str:
    """What decides what is read from a header: our tags and fields, and the version of pydicom."""
    constants = {name: value for name, value in {**vars(header), **vars(image_kind)}.items() if name.isupper()}
    return repr((FIELDS, constants, pydicom.__version__))


def _stored(cache: Path) -> dict[str, Entry]:
    try:
        content = json.loads(gzip.decompress(cache.read_bytes()))
        if content["made_by"] != _made_by():
            return {}
        return {name: (size, time, rows) for name, (size, time, rows) in content["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        logger.warning("Cached DICOM headers cannot be read and are made anew (%s)", type(error).__name__)
        return {}


def _store(cache: Path, entries: dict[str, Entry]) -> None:
    content = json.dumps({"made_by": _made_by(), "files": entries}, separators=(",", ":"))
    try:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(cache, gzip.compress(content.encode(), 1))
    except (OSError, WriteError) as error:
        logger.warning("DICOM headers cannot be cached, and will be read again next time (%s)", error)
