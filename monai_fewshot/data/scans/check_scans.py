# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import nibabel
from monai.config import PathLike
from monai.data import MetaTensor
from tqdm import tqdm

from monai_fewshot.data.dicom.series_reader import ITK_LOCK
from monai_fewshot.data.files.file_damage import unreadable
from monai_fewshot.data.files.nifti_files import NiftiHeaderError, is_nifti
from monai_fewshot.data.files.volume_loader import VolumeLoader

from .check_scan import AFFINE_TOLERANCE, CheckScand
from .load_scan import load_image, load_label
from .scan_folder import Scan

__all__ = ["ScanReader", "check_output_dir", "check_scans", "read_and_check"]


def check_scans(
    scans: Sequence[Scan],
    classes: Collection[int] | None = None,
    num_channels: int | None = 1,
    affine_tolerance: float = AFFINE_TOLERANCE,
    num_workers: int = 4,
) -> None:
    """Check all files of a data set and report every problem at once, before hours are spent.

    Every file is read whole, because only so damaged files, odd label values and NaN voxels show; that takes about as
    long as loading the set once. Each scan then passes :class:`CheckScand`. Found besides: files that are missing,
    truncated, not readable by ``monai.transforms.LoadImage`` or stored as RGB colors, and all that
    :func:`monai_fewshot.data.series_problems` finds in a DICOM series. Series are named by the hash of their UID, not
    by files or folders, which may bear names of patients.

    Args:
        scans: as :func:`monai_fewshot.data.load_scans` returns them.
        classes: as for :class:`CheckScand`.
        num_channels: as for :class:`CheckScand`.
        affine_tolerance: as for :class:`CheckScand`.
        num_workers: number of threads; each holds one scan in memory.

    Raises:
        ValueError: if there are problems: one line each, naming the file.
    """
    check = CheckScand("image", "label", classes, num_channels, affine_tolerance, allow_missing_keys=True)
    read = ScanReader()
    with ThreadPoolExecutor(num_workers) as pool:
        results = pool.map(lambda scan: read_and_check(scan, read, check)[1], scans)
        found = list(tqdm(results, "checking scans", total=len(scans), disable=None))
    problems = list(itertools.chain.from_iterable(found))
    if problems:
        raise ValueError(
            f"{len(problems)} problem(s) in {sum(map(bool, found))} of {len(scans)} scans:\n" + "\n".join(problems)
        )


def check_output_dir(path: PathLike, source: PathLike | None = None) -> Path:
    """Create an output folder and try to write in it.

    Args:
        path: the folder; its parents are created too.
        source: folder of the scans, which it must not be, as masks would be taken for scans.

    Returns:
        The folder.

    Raises:
        OSError: if it cannot be created or written in.
        ValueError: if it is the folder of the scans.
    """
    folder = Path(path).expanduser()
    if source is not None and Path(source).expanduser().resolve() == folder.resolve():
        raise ValueError(
            f"{folder} holds the scans: name another output folder, so that masks are not taken for scans."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise OSError(
            f"output folder {folder} cannot be written ({error.strerror or error}): "
            "free it, change its permissions, or choose another folder."
        ) from error
    return folder


class ScanReader:
    """Read files in threads.

    ITK changes the working folder of the process while it loads its parts, hence only one thread at a time is within
    it.
    """

    def __init__(self) -> None:
        self.load = VolumeLoader()

    def __call__(self, path: Path) -> MetaTensor:
        """Read a file as (C, H, W, D); a ValueError says why it cannot be read, and what to do."""
        if not path.exists():
            raise ValueError("is missing; correct its path in the list of scans, or restore the file.")
        if is_nifti(path):
            check_nifti_header(path)
        try:
            with nullcontext() if is_nifti(path) else ITK_LOCK:
                return self.load(path)
        except NiftiHeaderError:
            raise
        except Exception as error:
            raise ValueError(unreadable(path, error)) from error


def read_and_check(scan: Scan, read: ScanReader, check: CheckScand) -> tuple[dict[Hashable, MetaTensor], list[str]]:
    """Read image and label of a scan, whatever is there, and list its problems.

    Args:
        scan: as :func:`monai_fewshot.data.load_scans` returns it.
        read: reads files.
        check: what a sound scan must pass.

    Returns:
        What could be read, by key, and the problems, one line each, which name the file.
    """
    scan = {key: _absolute(scan[key]) for key in ("image", "label") if key in scan}
    loaded: dict[Hashable, MetaTensor] = {}
    problems: list[str] = []
    try:
        if "image" in scan:
            loaded["image"] = load_image(scan["image"], read)
    except ValueError as error:
        problems += str(error).splitlines()
    try:
        if "label" in scan:
            label = load_label(scan["label"], loaded.get("image"), read)
            loaded |= {"label": label} if label is not None else {}
    except ValueError as error:
        problems += str(error).splitlines()
    try:
        check(loaded)
    except ValueError as error:
        problems += str(error).splitlines()
    return loaded, problems


def _absolute(path: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return os.path.abspath(path) if isinstance(path, str) else path


def check_nifti_header(path: Path) -> None:
    """Raise ValueError where the header of a NIfTI file cannot be read, or says that it stores colors."""
    try:
        channels = cast(nibabel.Nifti1Image, nibabel.load(path)).get_data_dtype().names
    except Exception as error:
        raise ValueError(unreadable(path, error)) from error
    if channels:
        raise ValueError(
            f"stores {len(channels)} color channels ({''.join(channels)}); expected gray values. Save one channel, "
            "or their mean, as a NIfTI file of numbers."
        )
