# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.apps.fire_calls import fire_calls

from .bundle_folders import bundle_folder, bundle_names
from .method import read_methods

__all__ = ["copy_bundle", "list_bundles", "main"]

MADE_BY_RUNS = ("models", "eval", "__pycache__")


def list_bundles() -> str:
    """List the bundles that come with the package, and their variants.

    Returns:
        A line each: name, title, what it learns from, what it works on, and the extras that it needs.
    """
    rows = [("bundle", "title", "learns from", "works on", "extras")]
    for name in bundle_names():
        for method in read_methods(bundle_folder(name)).values():
            learns_from = method.learns_from.replace("_", " ")
            rows.append((method.name, method.title, learns_from, method.works_on, " ".join(method.extras)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def copy_bundle(bundle: str, output_dir: PathLike | None = None) -> Path:
    """Copy a bundle, to change it or to run it in a folder that you may write to.

    Args:
        bundle: its name; ``list`` has all of them.
        output_dir: where to put it; must not exist yet. Defaults to a folder of its name in the current one.

    Returns:
        The new folder.

    Raises:
        FileNotFoundError: where there is no such bundle.
        FileExistsError: where the new folder is there already.
    """
    source = bundle_folder(bundle)
    target = Path(source.name if output_dir is None else output_dir).expanduser()
    if target.exists():
        raise FileExistsError(f"{target} is there already: remove it, or name another output_dir.")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*MADE_BY_RUNS))
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """List or copy bundles from a shell.

    Args:
        arguments: of the command. Defaults to None, those of the process.

    Raises:
        SystemExit: with code 2 for arguments that are not understood, 1 and the reason where a bundle cannot be copied.
    """
    commands: dict[str, Callable[..., Any]] = {"list": list_bundles, "copy": copy_bundle}
    for call in fire_calls(commands, arguments, "monai_fewshot.apps.bundles"):
        try:
            print(call())
        except (ValueError, OSError) as error:
            sys.exit(str(error))
