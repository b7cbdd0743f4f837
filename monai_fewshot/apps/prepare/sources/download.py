# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import http.client
import json
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from monai.config import PathLike
from tqdm import tqdm

from monai_fewshot.utils import write_atomically

from .hashing import hash_file

__all__ = ["RemoteFile", "download_file"]

logger = logging.getLogger(__name__)

CHUNK = 1 << 18
RETRIES = 5
SECONDS_BETWEEN_RETRIES = 2.0
TIMEOUT = 60.0
_BROKEN_CONNECTION = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError, urllib.error.URLError)


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Args:
        url: its address, http or https.
        sha256: its checksum, 64 hexadecimal digits; "" where it is not known.
        md5: its weaker checksum, 32 hexadecimal digits, for sets that publish no other; "" where it is not known.
        name: of the file on disk; defaults to the end of the address.
    """

    url: str
    sha256: str = ""
    md5: str = ""
    name: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file on disk."""
        return self.name or Path(urlsplit(self.url).path).name


def download_file(remote: RemoteFile, folder: PathLike, retries: int = RETRIES, timeout: float = TIMEOUT) -> Path:
    """Download a file, go on where an earlier try stopped, and check what came.

    Until it is complete and checked, the file is called ``NAME.part``. A cut connection is taken up again, in this run
    and in the next, by asking for the rest (``Range``, with ``If-Range``, so that parts of two versions are never
    joined); where the server does not give parts, the file is fetched anew. A file that is there already is checked,
    and not fetched again. ``NAME.json`` beside it says where it came from, its size and SHA-256, and whether a
    checksum was known to compare it with.

    ``monai.apps.download_url`` starts anew after every cut.

    Args:
        remote: address and checksum.
        folder: where to put it.
        retries: how many cut connections in a row without a byte gained are put up with.
        timeout: seconds without a byte after which a connection counts as cut.

    Returns:
        The file.

    Raises:
        ValueError: if the address is no http address, the server refuses, the connection keeps failing, the checksum is
            another one, or the folder cannot be written to.
    """
    if urlsplit(remote.url).scheme not in ("http", "https") or not remote.file_name:
        raise ValueError(f"{remote.url} is not the address of a file: give one that begins with https:// or http://.")
    path = Path(folder).expanduser() / remote.file_name
    part = path.with_name(path.name + ".part")
    if path.is_file():
        _record(remote, path, path)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(remote.url, part, retries, timeout)
    except urllib.error.HTTPError as error:
        raise ValueError(
            f"{remote.url} cannot be downloaded: the server answers {error.code} {error.reason}. Look at the address "
            f"in a browser, and put the file at {path} by hand."
        ) from error
    except _BROKEN_CONNECTION as error:
        raise ValueError(
            f"{remote.url} cannot be downloaded: {_reason(error)}. Run the same command again, which goes on where "
            f"this one stopped, or put the file at {path} by hand."
        ) from error
    except OSError as error:
        raise ValueError(
            f"Cannot write {part}: {error}. Name a folder that you may write to, on a disk with room."
        ) from error
    _record(remote, part, path)
    os.replace(part, path)
    _validator_file(part).unlink(missing_ok=True)
    return path


def _fetch(url: str, part: Path, retries: int, timeout: float) -> None:
    """Fetch until the part is the whole."""
    failures = 0
    while True:
        before = _size(part)
        try:
            if _fetch_rest(url, part, timeout):
                return
            raise http.client.IncompleteRead(b"")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                raise
            failure: Exception = error
        except _BROKEN_CONNECTION as error:
            failure = error
        failures = failures + 1 if _size(part) <= before else 1
        if failures > retries:
            raise failure
        time.sleep(SECONDS_BETWEEN_RETRIES * failures)


def _fetch_rest(url: str, part: Path, timeout: float) -> bool:
    """Fetch what is missing, and tell whether it is complete."""
    start = _size(part)
    validator = _validator_file(part)
    request = urllib.request.Request(url, headers={"User-Agent": "monai_fewshot", "Accept-Encoding": "identity"})
    if start and validator.is_file():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator.read_text(encoding="utf-8"))
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        validator.unlink()
        return error.headers.get("Content-Range") == f"bytes */{start}"
    with response:
        continued = response.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(response, start)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT and not continued:
            validator.unlink()
            return False
        start = start if continued else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if not continued:
            _remember_version(response, validator)
        _copy(response, part, start, total)
    return total is None or _size(part) == total


def _copy(response: http.client.HTTPResponse, part: Path, start: int, total: int | None) -> None:
    bar = tqdm(desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None)
    with bar, open(part, "ab" if start else "wb") as stream:
        while chunk := response.read(CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))


def _starts_at(response: http.client.HTTPResponse, start: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _remember_version(response: http.client.HTTPResponse, validator: Path) -> None:
    """Keep what tells this version of the file from others; without it there is no going on."""
    tag = response.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    validator.unlink(missing_ok=True)
    if version:
        validator.write_text(version, encoding="utf-8")


def _validator_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _record(remote: RemoteFile, content: Path, path: Path) -> None:
    """Compare a file with its checksum, and write down what it is."""
    sha256 = hash_file(content)
    for kind, expected, found in (
        ("SHA-256", remote.sha256, sha256),
        ("MD5", remote.md5, hash_file(content, "md5") if remote.md5 else ""),
    ):
        if expected and expected.lower() != found:
            if content != path:
                content.unlink()
            raise ValueError(
                f"{path} from {remote.url} is not the expected file: its {kind} is {found}, not {expected}"
                f"{'' if content != path else '. Remove or rename it'}. Run again to fetch it anew; if it stays so, "
                "the file was changed by its owner or on the way, and should not be trusted."
            )
    checked = "SHA-256" if remote.sha256 else "MD5" if remote.md5 else "nothing: no checksum is known"
    if not (remote.sha256 or remote.md5):
        logger.warning("No checksum is known for %s; its SHA-256 is %s.", remote.url, sha256)
    record = {"url": remote.url, "bytes": content.stat().st_size, "sha256": sha256, "checked against": checked}
    write_atomically(path.with_name(path.name + ".json"), json.dumps(record, indent=1) + "\n")


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the connection is cut again and again"
    return str(getattr(error, "reason", "") or error or type(error).__name__)
