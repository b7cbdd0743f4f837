# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cache", "clear_cache", "find_caches"]

OF_PSEUDO_LABELS = re.compile(r"[0-9a-f]{64}\.npz")
OF_HEADERS = re.compile(r"[0-9a-f]{64}\.json\.gz")


@dataclass(frozen=True)
class Cache:
    """Files that were computed and may be computed again.

    Attributes:
        folder: where they lie, other files perhaps beside them.
        content: what they hold, such as "pseudo-labels".
        files: the files.
    """

    folder: Path
    content: str
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.files)


def find_caches(folders: Sequence[Path] = ()) -> list[Cache]:
    """Find caches by the names of their files, which no other files bear.

    Args:
        folders: where to look for pseudo-labels, at any depth: folders of caches, models, or masks. Empty for
            the headers of DICOM files, which lie in the user's cache folder.

    Returns:
        Those that hold files, by folder.

    Raises:
        FileNotFoundError: where a folder does not exist.
    """
    from monai_fewshot.data.dicom.tree_headers import HEADER_CACHE, user_cache_dir

    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise FileNotFoundError(f"No such folder: {', '.join(missing)}. Name folders that hold caches.")
    if not folders:
        return _caches(user_cache_dir() / HEADER_CACHE, OF_HEADERS, "DICOM headers")
    found = [cache for folder in folders for cache in _caches(folder, OF_PSEUDO_LABELS, "pseudo-labels")]
    return list({cache.folder.resolve(): cache for cache in found}.values())


def clear_cache(cache: Cache) -> None:
    """Remove the files of a cache; what else lies in its folder stays.

    Args:
        cache: as :func:`find_caches` returns it.
    """
    for file in cache.files:
        file.unlink(missing_ok=True)


def _caches(folder: Path, names: re.Pattern[str], content: str) -> list[Cache]:
    files = sorted(file for file in folder.rglob("*") if names.fullmatch(file.name) and file.is_file())
    places = dict.fromkeys(file.parent for file in files)
    return [Cache(place, content, tuple(file for file in files if file.parent == place)) for place in places]
