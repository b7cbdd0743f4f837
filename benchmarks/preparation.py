# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How much longer the preparation of a data set takes than reading and writing its scans alone, and its memory.

    python benchmarks/preparation.py                                       # 20 scans of 512 x 512 x 150
    python benchmarks/preparation.py --scans 4 --size 256 256 40 --workers 2

Scans like those of CT, noise included, and their labels are made in a temporary folder, or in --folder. Reading and
writing is what MONAI and nibabel do for an image and its label, as 16 and 8 bit integers. A preparation checks the set,
hashes sources and results and checks the voxels besides. Seconds of a processor tell more than those of the clock where
the machine does something else as well. Both work in the same number of processes, each of which has
one scan at a time; a scan is prepared beforehand, so that no one's time holds the import of packages. Memory is the
peak of the process that had most, with what the packages take. The repeated run has nothing to do but to see that.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

from monai_fewshot.apps.prepare import Case, prepare_folder, runner
from monai_fewshot.apps.prepare.worker_processes import Outcome, run_in_processes

CLASSES = ("liver", "spleen", "kidney")
SPACING = (0.8, 0.8, 3.0)
NOISE = 20
PREPARATIONS: dict[str, dict[str, Any]] = {
    "values and grid kept": {},
    "CT: window, border cut, 256 x 256": {"modality": "CT", "border": 32, "size": (256, 256)},
    "MR: clipped, resampled, 256 x 256": {"modality": "MR", "spacing": (1.25, 1.25, 7.7), "size": (256, 256)},
}
MEBI = 2**20


class Cost(NamedTuple):
    """Seconds of wall time and of processors, and the peak memory in bytes of the largest process."""

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Measured:
    """Work that tells its seconds of a processor and the peak memory of its process."""

    work: Callable[[Case], Any]

    def __call__(self, case: Case) -> tuple[float, int]:
        """Return both."""
        start = time.process_time()
        self.work(case)
        unit = 1 if sys.platform == "darwin" else 1024
        return time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True)
class ReadAndWrite:
    """Read the files of a case as MONAI does, and write them as nibabel does."""

    folder: Path

    def __call__(self, case: Case) -> None:
        """Read and write."""
        load = LoadImage(ensure_channel_first=True)
        volumes = [load(file) for file in case.files]
        for file, volume, dtype in zip(case.files, volumes, (np.int16, np.uint8), strict=True):
            image = nib.Nifti1Image(volume[0].numpy().astype(dtype), volume.affine.numpy())
            nib.save(image, self.folder / file.parent.name / file.name)


def make_scans(folder: Path, scans: int, size: Sequence[int]) -> list[Case]:
    """Make one scan, and copies of it."""
    cases = []
    for index in range(scans):
        name = f"scan_{index:02d}.nii.gz"
        case = Case(name.partition(".")[0], (folder / "images" / name,), (folder / "labels" / name,))
        if index == 0:
            _make_scan(case, size)
        else:
            for file, copy in zip(cases[0].files, case.files, strict=True):
                shutil.copyfile(file, copy)
        cases.append(case)
    return cases


def read_and_write(cases: Sequence[Case], folder: Path, workers: int) -> Cost:
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    return measured_cost(lambda: list(runner.run_in_processes(ReadAndWrite(folder), cases, workers)))


def prepare(source: Path, folder: Path, workers: int, settings: dict[str, Any]) -> Cost:
    """Prepare a data set; the memory of a run that has nothing to do is 0."""
    return measured_cost(
        lambda: prepare_folder(source, folder, class_names=CLASSES, workers=workers, num_folds=0, **settings)
    )


def measured_cost(run: Callable[[], Any]) -> Cost:
    """Measure what works on cases by the ``run_in_processes`` of the runner, this process's share included."""
    usage = [(0.0, 0)]

    def measured(work: Callable[[Case], Any], cases: Sequence[Case], workers: int) -> Iterator[Outcome]:
        for outcome in run_in_processes(Measured(work), cases, workers):
            if outcome.result is None:
                raise ValueError(outcome.error)
            usage.append(outcome.result)
            yield outcome

    start, own = time.perf_counter(), time.process_time()
    with mock.patch.object(runner, "run_in_processes", measured):
        run()
    seconds, own = time.perf_counter() - start, time.process_time() - own
    return Cost(seconds, own + sum(processor for processor, _ in usage), max(memory for _, memory in usage))


def measure(folder: Path, scans: int, size: Sequence[int], workers: int) -> Iterator[tuple[str, Cost, Cost | None]]:
    """Measure reading and writing, then each preparation and its repetition.

    Yields:
        Name, cost, and that of the repetition where there is one.
    """
    cases = make_scans(folder / "source", scans, size)
    read_and_write(make_scans(folder / "warm_up", 1, (32, 32, 8)), folder / "warm", workers)
    yield "reading and writing alone", read_and_write(cases, folder / "copies", workers), None
    shutil.rmtree(folder / "copies")
    for index, (name, settings) in enumerate(PREPARATIONS.items()):
        output = folder / f"prepared_{index}"
        first, again = (prepare(folder / "source", output, workers, settings) for _ in range(2))
        yield name, first, again
        shutil.rmtree(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scans", type=int, default=20, help="number of scans (default: 20)")
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 150], help="voxels (default: 512 512 150)")
    parser.add_argument("--workers", type=int, default=4, help="processes, from 1 (default: 4)")
    parser.add_argument("--folder", type=Path, help="an empty folder for the scans (default: a temporary one)")
    arguments = parser.parse_args()
    print("| what | s | ratio | s of a processor | ratio | peak memory of a process, MiB | ratio | again, s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        plain = None
        for name, cost, again in measure(Path(folder), arguments.scans, arguments.size, arguments.workers):
            plain = plain or cost
            shown = (cost.seconds, cost.processor, cost.memory / MEBI)
            ratios = (part / whole for part, whole in zip(cost, plain, strict=True))
            cells = [f"{value:.1f} | {ratio:.2f}" for value, ratio in zip(shown, ratios, strict=True)]
            print(f"| {name} | {' | '.join(cells)} | {'' if again is None else f'{again.seconds:.1f}'} |", flush=True)


def _make_scan(case: Case, size: Sequence[int]) -> None:
    random = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    distance = sum((axis**2 for axis in axes[1:]), axes[0] ** 2)
    image = np.where(axes[0] ** 2 + axes[1] ** 2 < 0.7, 40, -1000) + NOISE * random.standard_normal(size, np.float32)
    label = np.zeros(size, np.uint8)
    for number in range(len(CLASSES), 0, -1):
        label[distance < 0.1 * number] = number
    for file, array in zip(case.files, (np.rint(image).astype(np.int16), label), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1])), file)


if __name__ == "__main__":
    main()
