# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fewshot.apps.bundles import bundle_folder, bundle_names
from monai_fewshot.apps.prepare.sources.hashing import hash_file
from monai_fewshot.data import Scan, fingerprint_scans, load_scans
from monai_fewshot.utils import write_atomically

from .problems import ScanProblem
from .scan_sources import write_scan_list
from .segment_request import SegmentRequest

__all__ = [
    "changed_masks",
    "forget_masks",
    "note_masks",
    "note_request",
    "note_scans",
    "noted_scans",
    "problems_of_changed_scans",
    "read_request",
]

SCANS, MASKS, REQUEST = "segmented.json", "masks.json", "request.json"
LIST = "segmented_scans"
LISTS = ("training_scans", "scans", LIST)
"""Folders of lists of scans, the newest last."""


def note_scans(folder: Path, scans: Sequence[Scan]) -> None:
    """Note scans that are about to be segmented: their content in ``segmented.json``, and where they lie.

    Args:
        folder: of the file, and of the list that :func:`noted_scans` reads.
        scans: the scans.
    """
    _add(folder / SCANS, {scan["name"]: fingerprint_scans([scan]) for scan in scans})
    known = {**noted_scans(folder), **{scan["name"]: scan for scan in scans}}
    write_scan_list(folder / LIST, list(known.values()), {})


def noted_scans(folder: Path) -> dict[str, Scan]:
    """Tell where the scans lie that were segmented, in all runs.

    Args:
        folder: where :func:`note_scans` has noted them.

    Returns:
        Scans by name; none where nothing is noted.

    Raises:
        ValueError: where a list is damaged; the text names it.
    """
    lists = [folder / name for name in LISTS if (folder / name / "dataset.json").is_file()]
    return {scan["name"]: scan for each in lists for scan in load_scans(each)}


def note_masks(folder: Path, masks: Sequence[Path]) -> None:
    """Note the content of masks that have just been written, in ``masks.json``.

    Args:
        folder: of the file.
        masks: the masks.
    """
    _add(folder / MASKS, {mask.name: hash_file(mask) for mask in masks})


def forget_masks(folder: Path, names: Collection[str]) -> None:
    """Forget the noted content of masks that are about to be written, lest a run that is killed leaves a wrong note.

    Args:
        folder: of ``masks.json``.
        names: of the files.
    """
    noted = _noted(folder / MASKS)
    if not noted.keys().isdisjoint(names):
        kept = {name: digest for name, digest in noted.items() if name not in names}
        write_atomically(folder / MASKS, json.dumps(kept, indent=1))


def changed_masks(folder: Path, masks: Sequence[Path]) -> list[Path]:
    """Find masks that somebody has changed since :func:`note_masks` noted them.

    Args:
        folder: of the notes.
        masks: files.

    Returns:
        Those whose content is another one; a mask that was never noted is none of them.
    """
    noted = _noted(folder / MASKS)
    return [mask for mask in masks if mask.name in noted and noted[mask.name] != hash_file(mask)]


def note_request(folder: Path, request: SegmentRequest) -> None:
    """Note in ``request.json`` where scans and examples lie and which results are wanted, for later commands.

    Args:
        folder: of the file.
        request: what ``segment`` was asked for.
    """
    method = request.method
    is_ours = method.bundle.name in bundle_names() and bundle_folder(method.bundle.name) == method.bundle
    content = {
        "method": method.name if is_ours else str(method.bundle),
        "scans": str(Path(request.source).expanduser().absolute()),
        "examples": [[str(Path(path).expanduser().absolute()) for path in pair] for pair in request.pairs],
        "class_names": None if request.class_names is None else list(request.class_names),
        "formats": list(request.files.formats),
        "flag_below": request.flag_below,
        "probabilities": request.probabilities,
    }
    write_atomically(folder / REQUEST, json.dumps(content, indent=1))


def read_request(folder: Path) -> dict[str, Any]:
    """Read what :func:`note_request` noted.

    Args:
        folder: of the file.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is damaged.
    """
    path = folder / REQUEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there, which tells where the scans and the examples are: run the monai-fewshot segment of "
            "these masks once more. It writes the file, and segments nothing anew."
        )
    return _noted(path)


def problems_of_changed_scans(
    folder: Path, scans: Sequence[Scan], masks: Mapping[str, Sequence[Path]]
) -> list[ScanProblem]:
    """Find scans whose masks are of other scans of the same name.

    Args:
        folder: where :func:`note_scans` has noted what the masks are of.
        scans: those that have masks.
        masks: files by name of the scan.

    Returns:
        A problem for each.
    """
    noted = _noted(folder / SCANS)
    return [
        ScanProblem(
            scan["name"],
            scan["image"] if isinstance(scan["image"], str) else scan["name"],
            "has changed since it was segmented, or its mask is of another scan of the same name",
            f"Name another --output, or remove {', '.join(map(str, masks[scan['name']]))} to segment it anew.",
        )
        for scan in scans
        if scan["name"] in noted and noted[scan["name"]] != fingerprint_scans([scan])
    ]


def _add(path: Path, entries: Mapping[str, str]) -> None:
    write_atomically(path, json.dumps({**_noted(path), **entries}, indent=1))


def _noted(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, or name another --output.") from error
