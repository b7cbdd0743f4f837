# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from monai.config import PathLike
from tqdm import tqdm

from monai_fewshot.data.scans.check_scans import check_output_dir
from monai_fewshot.data.scans.scan_folder import DATASET_JSON, read_dataset_json
from monai_fewshot.data.scans.scan_reading import SECONDS_BETWEEN_LOG_LINES, share_of_cores
from monai_fewshot.utils import Provenance, WriteError, write_atomically

from .cases.case import Case, Problem, describe_problems, doubled_cases
from .cases.file_checks import check_files
from .dataset_description import DatasetDescription, patient_folds
from .prepared_scans import RECORD_FOLDER, ScanPreparation
from .worker_processes import run_in_processes

__all__ = ["prepare_dataset"]

logger = logging.getLogger(__name__)


def prepare_dataset(
    cases: Sequence[Case],
    problems: Sequence[Problem],
    load: Callable[[Case], Mapping[Any, Any]],
    preparation: Callable[[Any], Any],
    description: DatasetDescription,
    source: PathLike,
    output_dir: PathLike,
    settings: Mapping[str, Any],
    workers: int | None = None,
    num_folds: int = 5,
    skip_broken: bool = False,
    num_channels: int = 1,
) -> Path:
    """Prepare a downloaded data set: check it whole, transform its scans in parallel, describe it last.

    All that is wrong with the set as far as headers show it is reported at once, before anything is written. What needs
    voxels shows while a scan is prepared; the others go on, and all such problems are reported at the end. A scan that
    was prepared from the same files with the same settings is left as it is, so that an interrupted or failed run goes
    on where it stopped, and a second run does nothing. ``dataset.json`` is there only when the set is complete.

    Args:
        cases: the scans, as the data set's module finds them.
        problems: what it found wrong with them.
        load: reads a case into ``image`` and, where it has one, ``label``, each a ``MetaTensor`` (1, H, W, D) on the
            grid of the source; a function of a module, or ``functools.partial`` of one, since it goes to processes.
        preparation: transform of such a dictionary.
        description: of the data set.
        source: folder that the files of the cases are in.
        output_dir: folder to write to: a new or empty one, or that of an earlier preparation of this data set.
        settings: every number and choice of the preparation.
        workers: processes, each of which holds one scan in memory; 0 works in this process. Defaults to None: one for
            every core.
        num_folds: folds of the cross-validation, see ``patient_folds``; 0 for none.
        skip_broken: whether to leave out scans that have problems instead of stopping.
        num_channels: of an image.

    Returns:
        The folder.

    Raises:
        ValueError: if there are problems, one line each, or an argument is out of its range.
        WriteError: at the first file that cannot be written, whether or not broken scans are left out.
        FileExistsError: if the folder holds something else.
    """
    folder, source = (Path(os.path.abspath(Path(path).expanduser())) for path in (output_dir, source))
    workers = share_of_cores() if workers is None else workers
    if workers < 0:
        raise ValueError(f"workers is {workers}; give the number of processes, or 0 to work in this one.")
    _check_folders(folder, source, description.name)
    found = list(dict.fromkeys([*problems, *doubled_cases(cases), *check_files(cases)]))
    cases = _without_broken(cases, found, len(cases), skip_broken)
    patient_folds(cases, num_folds)
    plain = Provenance("", **settings).settings
    prepare = ScanPreparation(load, preparation, description.class_names, plain, source, folder, num_channels)
    stale = _stale_cases(prepare, check_output_dir(folder), cases)
    failed = _prepare_scans(prepare, stale, workers)
    cases = _without_broken(cases, failed, len(cases), skip_broken)
    _describe(prepare, description, cases, patient_folds(cases, num_folds))
    return folder


def _check_folders(folder: Path, source: Path, name: str) -> None:
    if folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f"output_dir {folder} lies in the source {source}, where prepared scans would be taken for its own: name a "
            "folder outside of it."
        )
    if not folder.is_dir():
        return
    there = read_dataset_json(folder).get("name")
    if there is not None and there != name:
        raise FileExistsError(f"{folder} holds the data set {there!r}: name an empty or new folder as output_dir.")
    visible = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    if visible and not (folder / RECORD_FOLDER).is_dir():
        raise FileExistsError(
            f"{folder} holds {', '.join(sorted(visible)[:3])}, which no preparation wrote: name an empty or new folder "
            "as output_dir."
        )


def _without_broken(cases: Sequence[Case], problems: Sequence[Problem], total: int, skip_broken: bool) -> list[Case]:
    if not cases and not problems:
        problems = [Problem("", None, "no scan was found; name the folder or archive as it was downloaded as source.")]
    broken = {problem.case for problem in problems}
    whole = [case for case in cases if case.name not in broken]
    if problems and (not skip_broken or not whole):
        advice = "Correct them and run the same command again" + (
            ", or leave these scans out by --skip_broken true." if whole else "."
        )
        raise ValueError(f"{describe_problems(problems, total)}\n{advice}")
    if problems:
        logger.warning("Left out: %s", describe_problems(problems, total))
    return whole


def _stale_cases(prepare: ScanPreparation, folder: Path, cases: Sequence[Case]) -> list[Case]:
    """Scans that are yet to be prepared, or again; where there are any, the set is no longer described as complete."""
    problems = []
    stale = []
    with ThreadPoolExecutor(share_of_cores()) as pool:
        for case, outcome in zip(cases, pool.map(lambda case: _is_current(prepare, case), cases), strict=True):
            if isinstance(outcome, Problem):
                problems.append(outcome)
            elif not outcome:
                stale.append(case)
    if problems:
        raise ValueError(describe_problems(problems, len(cases)))
    if stale:
        (folder / DATASET_JSON).unlink(missing_ok=True)
        (folder / RECORD_FOLDER).mkdir(exist_ok=True)
    return stale


def _is_current(prepare: ScanPreparation, case: Case) -> bool | Problem:
    try:
        return prepare.is_current(case)
    except ValueError as error:
        return Problem(case.name, None, str(error))


def _prepare_scans(prepare: ScanPreparation, cases: Sequence[Case], workers: int) -> list[Problem]:
    interval = 0.1 if sys.stderr.isatty() else SECONDS_BETWEEN_LOG_LINES
    problems = []
    with tqdm(total=len(cases), desc="preparing scans", unit="scan", mininterval=interval, disable=not cases) as bar:
        for outcome in run_in_processes(prepare, cases, workers):
            if outcome.fatal:
                raise WriteError(outcome.error)
            if outcome.error:
                problems.append(Problem(outcome.item.name, None, outcome.error))
            bar.update()
    return sorted(problems, key=lambda problem: problem.case)


def _describe(
    prepare: ScanPreparation, description: DatasetDescription, cases: Sequence[Case], folds: Sequence[Any]
) -> None:
    """Write ``dataset.json`` unless it is there as it should be."""
    records = {case.name: prepare.record(case) for case in cases}
    for record in records.values():
        del record["settings"]
    content = description.content({case.name: prepare.outputs(case) for case in cases}, folds)
    content["provenance"] = {"settings": prepare.settings, "scans": records}
    path = prepare.output_dir / DATASET_JSON
    text = json.dumps(content, indent=1) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
