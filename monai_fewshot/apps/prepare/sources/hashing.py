# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["hash_file"]

CHUNK = 1 << 20


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Hash the whole content of a file, however large.

    Args:
        path: the file.
        algorithm: a name that ``hashlib`` knows.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
