# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from monai.config import PathLike

from monai_fewshot.utils import did_you_mean

__all__ = ["bundle_folder", "bundle_names"]


def bundle_names() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.parents[1].name for path in _folder_of_all().glob("*/configs/metadata.json"))


def bundle_folder(bundle: PathLike) -> Path:
    """Find a bundle.

    Args:
        bundle: name of a bundle that comes with the package, or the path of another one.

    Returns:
        Its folder.

    Raises:
        FileNotFoundError: where there is no such bundle.

    Example:
        >>> (bundle_folder("registration") / "configs" / "evaluate.json").is_file()
        True
    """
    for folder in (_folder_of_all() / bundle, Path(bundle).expanduser().absolute()):
        if (folder / "configs").is_dir():
            return folder
    raise FileNotFoundError(f"there is no bundle {bundle}{did_you_mean(str(bundle), bundle_names())}")


def _folder_of_all() -> Path:
    """In the package where it is installed, beside it in a checkout of the project."""
    package = Path(str(files("monai_fewshot")))
    installed = package / "bundles"
    return installed if installed.is_dir() else package.with_name("bundles")
