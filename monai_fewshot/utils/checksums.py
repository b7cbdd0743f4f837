# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import zipfile

from monai.config import PathLike

__all__ = ["check_zip"]


def check_zip(path: PathLike) -> None:
    """Compare every part of a zip file, as ``.pt`` and ``.npz`` files are, with its checksum.

    ``torch.load`` and the reader of numpy do not, or not always.

    Args:
        path: the file.

    Raises:
        zipfile.BadZipFile: where one does not fit, or the file is no zip file.
        Exception: whatever else damage makes ``zipfile`` raise.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of its part {damaged} does not fit")
