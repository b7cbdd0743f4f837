# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_write import write_atomically
from .checksums import check_zip

__all__ = ["ArrayCache", "array_key"]

SECONDS_OF_A_DAY = 24 * 60 * 60
LIMIT_VARIABLE = "MONAI_FEWSHOT_CACHE_GB"
DEFAULT_LIMIT_GB = 20.0
FILLED_AGAIN = 0.9
"""Part of the limit that files may take after the oldest were removed, so that not every further file removes some."""


def array_key(array: np.ndarray, parameters: Mapping[str, Any]) -> str:
    """Name of whatever is computed from an array with given parameters.

    Args:
        array: the input; its dtype, shape and values enter the key.
        parameters: what else the result depends on, the name and version of the algorithm among it; JSON-serializable.

    Returns:
        64 hexadecimal digits (SHA-256).

    Example:
        >>> array_key(np.zeros(3), {"scale": 1.0}) == array_key(np.zeros(3), {"scale": 2.0})
        False
    """
    header = json.dumps([array.dtype.str, array.shape, dict(parameters)], sort_keys=True)
    digest = hashlib.sha256(header.encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class ArrayCache:
    """Folder of non-negative integer arrays, one compressed file per key.

    Files are written whole or not at all, so that threads, processes and machines may share the folder. What a process
    killed in the middle of writing leaves behind is never read, and removed after a day. Deleting the folder's contents
    costs computing time and nothing else. Where files take more than a limit, those that were not used for longest are
    removed. The limit is 20 GB, or what the environment variable ``MONAI_FEWSHOT_CACHE_GB`` says.

    Args:
        cache_dir: folder of the cache, made if it does not exist.

    Raises:
        OSError: when the folder cannot be made or written to.
        ValueError: when ``MONAI_FEWSHOT_CACHE_GB`` is not a number above 0.

    Example:
        >>> import tempfile
        >>> cache = ArrayCache(tempfile.mkdtemp())
        >>> cache.put("key", np.arange(3))
        >>> cache.get("key")
        array([0, 1, 2], dtype=uint8)
        >>> cache.get("other") is None
        True
    """

    def __init__(self, cache_dir: str | os.PathLike) -> None:
        self.cache_dir = Path(cache_dir)
        self.limit = _limit_in_bytes()
        self._size: int | None = None
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.cache_dir):
                pass
            self._remove_remains()
        except OSError as error:
            raise OSError(
                f"cache_dir {str(self.cache_dir)!r} cannot be written to ({error}); "
                "give a folder with write permission, or None to compute without a cache"
            ) from error

    def _remove_remains(self) -> None:
        for path in self.cache_dir.glob(".*.npz"):
            with suppress(OSError):  # gone, or another user's
                if time.time() - path.stat().st_mtime > SECONDS_OF_A_DAY:
                    path.unlink()

    def path(self, key: str) -> Path:
        """File that holds, or would hold, the array of this key."""
        return self.cache_dir / f"{key}.npz"

    def get(self, key: str) -> np.ndarray | None:
        """Stored array, or None where there is none or its file is damaged (with a warning)."""
        path = self.path(key)
        try:
            check_zip(path)
            with np.load(path, allow_pickle=False) as file:
                array = file["array"]
            with suppress(OSError):
                os.utime(path)
            return array
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever damage makes the readers raise
            warnings.warn(f"cache file {str(path)!r} is damaged and is computed again ({error})", stacklevel=2)
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Store an array of non-negative integers in the smallest unsigned type that holds it.

        Args:
            key: file name without suffix.
            array: integers of any shape, 0 or greater.

        Raises:
            ValueError: when the array is not of integers, or holds negative ones, or the file cannot be written.
        """
        if array.dtype.kind not in "biu" or array.min(initial=0) < 0:
            raise ValueError(
                f"array must hold integers of 0 or greater, got {array.dtype} with minimum {array.min(initial=0)}"
            )
        content = io.BytesIO()
        np.savez_compressed(content, array=array.astype(np.min_scalar_type(int(array.max(initial=0)))))
        data = content.getvalue()
        write_atomically(self.path(key), data)
        self._keep_limit(len(data))

    def _keep_limit(self, added: int) -> None:
        """Remove the files that were not used for longest where all take more than the limit.

        The folder is listed at the first call and when what this process has added since may exceed the limit.
        """
        self._size = None if self._size is None else self._size + added
        if self._size is not None and self._size <= self.limit:
            return
        files = sorted(_files_by_use(self.cache_dir))
        size = sum(num_bytes for _, num_bytes, _ in files)
        if size > self.limit:
            for _, num_bytes, path in files[:-1]:
                if size <= FILLED_AGAIN * self.limit:
                    break
                with suppress(OSError):  # another user's, or open on a system that keeps open files
                    path.unlink(missing_ok=True)
                    size -= num_bytes
        self._size = size


def _files_by_use(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of the last use, in ns, size in bytes and path of each array of a cache."""
    for path in folder.glob("[!.]*.npz"):
        with suppress(FileNotFoundError):
            status = path.stat()
            yield status.st_mtime_ns, status.st_size, path


def _limit_in_bytes() -> float:
    text = os.environ.get(LIMIT_VARIABLE, str(DEFAULT_LIMIT_GB))
    with suppress(ValueError):
        if (limit := float(text)) > 0:
            return limit * 1e9
    raise ValueError(f"The environment variable {LIMIT_VARIABLE} is {text!r}: set it to gigabytes, or unset it.")
