# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import bz2
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from monai.config import PathLike
from monai.utils import OptionalImportError
from PIL import Image

__all__ = ["check_checksums", "check_gzip", "check_picture", "errors_of_file", "read_gzip", "unreadable"]

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
STREAMS: Mapping[str, Any] = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}


def check_checksums(path: PathLike) -> None:
    """Compare the content of a compressed volume with the checksums that its format has.

    These are gzip (CRC-32 and length; whatever ends with ``.gz``), gzip and bzip2 inside NRRD and zlib (Adler-32)
    inside MetaImage. Libraries stop at the last voxel, before the checksum, and give other voxels for a damaged file.

    Args:
        path: the file; of other formats nothing is checked.

    Raises:
        ValueError: where it is damaged or truncated, or not what its name says; the text does not name it.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        return
    if name.endswith(".gz"):
        check_gzip(path)
    elif name.endswith((".nii", ".img", ".hdr")):
        _check_not_compressed(path)
    elif name.endswith((".nrrd", ".nhdr")):
        _check_nrrd(path)
    elif name.endswith((".mha", ".mhd")):
        _check_metaimage(path)


def check_gzip(path: Path) -> None:
    """Read a gzip file to its end.

    Args:
        path: the file.

    Raises:
        ValueError: where it is empty, not compressed, truncated or damaged; the text does not name it.
    """
    with _gzip_content(path) as content:
        _read_to_end(content, "gzip")


def read_gzip(path: Path) -> bytes:
    """Unpack a gzip file, to its end.

    Args:
        path: the file.

    Raises:
        ValueError: as :func:`check_gzip` raises it.
    """
    with _gzip_content(path) as content, _errors_of_stream("gzip"):
        return content.read()


def check_picture(path: PathLike) -> None:
    """Compare a picture with the checksums that its format has, those of PNG; PIL does not when it reads pixels.

    Args:
        path: the file.

    Raises:
        ValueError: where it is damaged or truncated, or no picture; the text names it.
    """
    try:
        with Image.open(path) as picture:
            picture.verify()
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever damage makes a decoder raise
        reason = (str(error).splitlines() or [""])[0].replace(f" {str(path)!r}", "")
        raise ValueError(
            f"{path}: cannot be read as a picture ({reason or type(error).__name__}); copy it again, or export it anew."
        ) from error


def unreadable(path: Path, error: Exception) -> str:
    """Say why a file cannot be read and what to do, whatever error a library has raised.

    Args:
        path: the file.
        error: of the library.

    Returns:
        A text that does not name the file.
    """
    try:
        check_checksums(path)
        if path.is_file() and not path.stat().st_size:
            return "is empty; copy or export it again."
    except ValueError as known:
        return str(known)
    if held := re.search(r"Expected (\d+) bytes, got (\d+) bytes", str(error)):
        return f"is truncated: it holds {held[2]} of {held[1]} bytes of voxels. Copy or export it again."
    reason = (str(error).splitlines() or [""])[0]
    return (
        f"cannot be read ({type(error).__name__}: {reason}): it is damaged, holds colors or vectors, or needs another "
        'package (ITK and pydicom come with pip install "monai_fewshot[all]").'
    )


@contextmanager
def errors_of_file(path: PathLike) -> Iterator[None]:
    """Let errors while a file is read name it, whatever they are.

    Args:
        path: the file.

    Raises:
        ValueError: for a ValueError, which tells what is wrong, and for all that libraries raise of damaged files.
        FileNotFoundError: as it comes.
        OptionalImportError: as it comes.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (FileNotFoundError, OptionalImportError):
        raise
    except Exception as error:  # whatever damage makes a library raise
        raise ValueError(f"{path}: {unreadable(Path(path), error)}") from error


def _check_not_compressed(path: Path) -> None:
    with open(path, "rb") as stream:
        if stream.read(2) == GZIP_MAGIC:
            raise ValueError(f"is compressed with gzip, but its name does not say so: rename it to {path.name}.gz.")


def _check_nrrd(path: Path) -> None:
    with open(path, "rb") as stream:
        fields = _fields(stream, ":", "")
        kind = fields.get("encoding", "raw").lower()
        if kind not in STREAMS:
            return
        data = fields.get("data file", fields.get("datafile"))
        if data is None:
            _read_to_end(STREAMS[kind](stream), kind)
        elif (detached := _detached(path, data)) is not None:
            with STREAMS[kind](detached) as voxels:
                _read_to_end(voxels, kind)


def _check_metaimage(path: Path) -> None:
    with open(path, "rb") as stream:
        fields = _fields(stream, "=", "elementdatafile")
        if fields.get("compresseddata", "false").lower() != "true":
            return
        data = fields.get("elementdatafile", "")
        if data.lower() == "local":
            _inflate(stream)
        elif (detached := _detached(path, data)) is not None:
            with open(detached, "rb") as voxels:
                _inflate(voxels)


def _fields(stream: IO[bytes], separator: str, last: str) -> dict[str, str]:
    """Read the lines of a header, up to an empty one or the field ``last``."""
    fields: dict[str, str] = {}
    while last not in fields and (line := stream.readline(CHUNK).decode("latin-1").strip()):
        name, _, value = line.partition(separator)
        fields[name.strip().lower()] = value.strip()
    return fields


def _detached(path: Path, name: str) -> Path | None:
    """File of the voxels beside a header; None where it is not one file, which the library then reports."""
    try:
        file = path.parent / name
        return file if file.is_file() else None
    except OSError:
        return None


def _inflate(stream: IO[bytes]) -> None:
    """Read a zlib stream to its end, which holds its checksum; gzip counts as well."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        while not inflater.eof:
            chunk = inflater.unconsumed_tail or stream.read(CHUNK)
            if not chunk:
                raise EOFError("it ends before its end mark")
            inflater.decompress(chunk, 16 * CHUNK)
    except (EOFError, zlib.error) as error:
        raise ValueError(_damaged("zlib", error)) from error


@contextmanager
def _gzip_content(path: Path) -> Iterator[gzip.GzipFile]:
    with open(path, "rb") as stream:
        magic = stream.read(2)
        if not magic:
            raise ValueError("is empty; copy or download it again.")
        if magic != GZIP_MAGIC:
            raise ValueError(
                "is not compressed, although its name ends with .gz: rename it, or copy or download it again."
            )
        stream.seek(0)
        with gzip.open(stream) as content:
            yield content


def _read_to_end(stream: gzip.GzipFile | bz2.BZ2File, kind: str) -> None:
    with _errors_of_stream(kind):
        while stream.read(CHUNK):
            pass


@contextmanager
def _errors_of_stream(kind: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(_damaged(kind, error)) from error


def _damaged(kind: str, error: Exception) -> str:
    reason = re.sub(r"[()]", "", str(error)).rstrip(".")
    return f"is truncated or damaged: its {kind} stream is not whole ({reason}). Copy or download the file again."
