# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Run every bundle on this machine's GPU with its defaults, and print what works, how fast, and what waits for the GPU.

    python benchmarks/gpu_check.py                           # all bundles: about ten minutes on a GPU
    python benchmarks/gpu_check.py --bundles adnet elsnet    # some
    python benchmarks/gpu_check.py --quick                   # small images: about five minutes on two CPU cores
    python benchmarks/gpu_check.py --bundles --throughput --dataset_dir CHAOS   # no bundle, but the speed on a GPU

Each bundle is trained on phantoms for a few steps, resumed, evaluated and used, by its command lines. Then another
process measures its steps, counts what waits for the GPU in a step and in the second query of an inference, and
compares the margins with those that float32 on the CPU gives for the same checkpoint (bundle_probe.py). Without a GPU,
all of this is done on the CPU in bfloat16 and in float32, but for the counting.

Prints a Markdown table for each bundle, and progress to stderr. Ends with exit code 1 where a bundle failed; then the
logs are kept in a folder that is named at the end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import monai
import torch
from bundle_probe import TIMED
from gpu_throughput import throughput
from logged_command import run_logged

from monai_fewshot.apps.benchmark import code_version, machine, markdown_table, run_jobs
from monai_fewshot.apps.bundles import ChildProcesses, Step, bundle_folder, bundle_names, read_method
from monai_fewshot.apps.bundles.bundle_step import first_part, setting_names
from monai_fewshot.apps.phantom import make_phantom_dataset, make_phantom_lesions

ROWS = (
    "trained",
    "resumed",
    "evaluated",
    "inferred",
    "compiled",
    "layout",
    "precision",
    "first step",
    "later step",
    "peak memory",
    "synchronizations in a step",
    "synchronizations in a second query",
    "agreement with float32 on the CPU",
)
FAILED, NOTHING = "failed: ", "-"
QUERIES = 3
FEW_STEPS = {"epoch_length": 3, "max_epochs": 1}
FEW_DATA = {
    "num_val_scans": 2,
    "num_val_episodes": 2,
    "num_val_tasks": 2,
    "val_share": 0.4,
    "shots": 2,
    "queries": 2,
    "rounds": 1,
    "steps": 20,
    "runs": 1,
    "episodes_per_run": 4,
}
"""Settings of any bundle that make it read and draw little."""
SMALL_IMAGES = {
    "image_size": [48, 48],
    "pseudo_labels#min_size": 60,
    "min_pixels": 10,
    "registration#resolution": 16.0,
    "registration#deformation_levels": [16.0],
}
COUNTED_STEPS = 10
"""Steps in which synchronizations are counted: as many as lie between two lines of the log."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = bundle_names()
    parser.add_argument("--bundles", nargs="*", choices=names, default=names, metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help="small images and volumes")
    parser.add_argument("--throughput", action="store_true", help="measure the speed of training and evaluation too")
    parser.add_argument("--dataset_dir", type=Path, help="data set in the Decathlon layout for --throughput")
    return parser.parse_args()


@dataclass(frozen=True)
class Phantom:
    """Phantoms with labels; a few are queries, and the last one is their support.

    Attributes:
        folder: the data set.
        queries: folder of the queries.
        support: settings of an inference that name image and label.
    """

    folder: Path
    queries: Path
    support: dict[str, str]

    @classmethod
    def of(cls, folder: Path, images: str, labels: str) -> Phantom:
        """Choose queries and support in the folders of images and labels of a data set."""
        image, label = (sorted((folder / part).iterdir()) for part in (images, labels))
        queries = folder.with_name(f"{folder.name}_queries")
        queries.mkdir()
        for path in image[:QUERIES]:
            shutil.copy(path, queries)
        return cls(folder, queries, {"support_image": str(image[-1]), "support_label": str(label[-1])})


def make_phantoms(folder: Path, quick: bool) -> dict[str, Phantom]:
    """Make phantoms of all kinds of data, by the data type that a bundle's metadata name."""
    pixels, depth = (48, 20) if quick else (128, 24)
    scans = make_phantom_dataset(folder / "scans", 8, (pixels, pixels, depth), num_folds=4)
    images = make_phantom_lesions(folder / "images", 12, pixels)
    return {"nibabel": Phantom.of(scans, "imagesTr", "labelsTr"), "PIL": Phantom.of(images, "images", "masks")}


@dataclass(frozen=True)
class BundleCheck:
    """A bundle in one precision.

    Attributes:
        bundle: its name.
        settings: that differ from its defaults, wherever it has them.
        phantom: data.
        folder: where everything is written.
        threads: of each process.
        counted_steps: steps of the measured training beside those that are timed.
    """

    bundle: str
    settings: Mapping[str, Any]
    phantom: Phantom
    folder: Path
    threads: int
    counted_steps: int

    def told(self, config: str, **values: Any) -> dict[str, Any]:
        """Keep the settings that a configuration has."""
        known = setting_names(bundle_folder(self.bundle), [config])
        data = {"dataset_dir": self.phantom.folder, "fold": 0, "masks_dir": self.folder / "masks"}
        model = {"ckpt_dir": self.folder / "model", "checkpoint": self.folder / "model" / "model.pt"}
        places = {"cache_dir": self.folder / "cache", "output_dir": self.folder / config}
        everything = {**data, **model, **places, **FEW_STEPS, **FEW_DATA, **self.settings, **values}
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in everything.items()
            if first_part(key) in known
        }

    @property
    def training(self) -> tuple[str, ...]:
        """Steps that make the model."""
        return read_method(self.bundle).training

    def run(self, processes: ChildProcesses) -> tuple[dict[str, str], list[str]]:
        """Do all that can be done.

        Returns:
            The texts of the rows, and the lines that wait for the GPU.
        """
        rows, lines = dict.fromkeys(ROWS, NOTHING), []

        def attempt(row: str, action: Callable[[ChildProcesses], None]) -> None:
            try:
                action(processes)
                rows[row] = "yes"
            except (RuntimeError, OSError) as error:
                rows[row] = f"{FAILED}{error}"

        if self.training:
            attempt("trained", self.train)
            if rows["trained"] == "yes":
                attempt("resumed", self.resume)
        usable = not self.training or (self.folder / "model" / "model.pt").is_file()
        if usable:
            attempt("evaluated", self.evaluate)
            attempt("inferred", self.infer)
        try:
            measured, lines = described(self.probe(processes, usable))
            rows.update(measured)
        except (RuntimeError, OSError) as error:
            rows["first step"] = f"{FAILED}{error}"
        return rows, lines

    def train(self, processes: ChildProcesses) -> None:
        """Train, with the steps before that make what the training reads."""
        for step in self.training:
            self._bundle_run(step, processes, **self.told(step))

    def resume(self, processes: ChildProcesses) -> None:
        """Go on for one epoch; a stage that has left its network would not be trained again."""
        model = self.folder / "model"
        for path in model.glob("*/model.pt"):
            path.unlink()
        epochs = FEW_STEPS["max_epochs"] + 1
        self._bundle_run("train", processes, "resume", **self.told("train", max_epochs=epochs, resume=True))
        folders = {path.parent for path in model.rglob("checkpoint_epoch=*.pt")}
        missing = [folder for folder in folders if not (folder / f"checkpoint_epoch={epochs}.pt").is_file()]
        if missing or not folders:
            raise RuntimeError(f"epoch {epochs} left no checkpoint")

    def evaluate(self, processes: ChildProcesses) -> None:
        """Evaluate, and see that there are scores."""
        self._bundle_run("evaluate", processes, **self.told("evaluate"))
        if not json.loads((self.folder / "evaluate" / "results.json").read_text())["summary"]:
            raise RuntimeError("the evaluation has no scores")

    def infer(self, processes: ChildProcesses) -> None:
        """Segment the queries, and see that each has a mask."""
        settings = self.told("inference", dataset_dir=self.phantom.queries, **self.phantom.support)
        self._bundle_run("inference", processes, **settings)
        masks = list((self.folder / "inference").glob("*_seg.*"))
        if len(masks) != QUERIES:
            raise RuntimeError(f"{QUERIES} queries gave {len(masks)} masks")

    def probe(self, processes: ChildProcesses, usable: bool) -> dict[str, Any]:
        """Measure training and inference in a process of its own, as far as there are any."""
        steps = {"epoch_length": TIMED + self.counted_steps, "rounds": 0}
        places = {"ckpt_dir": self.folder / "measured", "output_dir": self.folder / "measured_masks"}
        queries = {"dataset_dir": self.phantom.queries, **self.phantom.support}
        request = {
            "bundle": self.bundle,
            "train": self.told("train", **steps, **places) if self.training else None,
            "inference": self.told("inference", **queries, **places) if usable else None,
        }
        asked, answered = (self.folder / f"{name}.json" for name in ("request", "result"))
        asked.write_text(json.dumps(request))
        command = [sys.executable, str(Path(__file__).with_name("bundle_probe.py")), str(asked), str(answered)]
        run_logged(command, bundle_folder(self.bundle), self.folder / "probe.log", self.threads, processes)
        return json.loads(answered.read_text())

    def _bundle_run(self, config: str, processes: ChildProcesses, log: str | None = None, **settings: Any) -> None:
        step = Step(self.bundle, (config,), settings)
        path = self.folder / f"{log or config}.log"
        run_logged(step.command(), step.folder, path, self.threads, processes)


def described(result: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Put what was measured into words.

    Returns:
        Texts of rows, and the lines that wait for the GPU, the most frequent ones first.
    """
    rows, lines = {}, []
    training, inference = (result.get(name, {}) for name in ("train", "inference"))
    if "error" in training:
        rows["first step"] = f"{FAILED}{training['error']}"
    elif training:
        peak = training["peak_mb"]
        rows |= {
            "compiled": "yes" if training["compiled"] else "no",
            "layout": training["layout"],
            "precision": training["dtype"],
            "first step": f"{training['first_s']:.2f} s",
            "later step": f"{training['later_s']:.4f} s",
            "peak memory": NOTHING if peak is None else f"{peak:.0f} MB",
        }
        if training["synchronizations"] is not None:
            steps = training["counted_steps"]
            rows["synchronizations in a step"] = f"{sum(training['synchronizations'].values()) / steps:.1f}"
            counts = sorted(training["synchronizations"].items(), key=lambda item: -item[1])
            lines += [f"{count / steps:.1f} in a step: `{line}`" for line, count in counts]
    if "error" in inference:
        rows["agreement with float32 on the CPU"] = f"{FAILED}{inference['error']}"
    elif inference:
        if inference["synchronizations"] is not None:
            rows["synchronizations in a second query"] = str(sum(inference["synchronizations"].values()))
            counts = sorted(inference["synchronizations"].items(), key=lambda item: -item[1])
            lines += [f"{count} in a second query: `{line}`" for line, count in counts]
        if "dice" in inference:
            rows["agreement with float32 on the CPU"] = (
                f"Dice {inference['dice']:.4f}, margins to {inference['difference']:.3g} of {inference['largest']:.3g}"
            )
    return rows, lines


def variants(bundle: str, on_gpu: bool) -> dict[str, dict[str, Any]]:
    """Settings of each column of a bundle's table: the defaults on a GPU, each precision on a CPU."""
    configs = [step for step in ("train", "inference") if step in read_method(bundle).steps]
    if on_gpu:
        return {"defaults": {}}
    if "dtype" not in setting_names(bundle_folder(bundle), configs):
        return {"float32": {}}
    return {name: {"dtype": f"$torch.{name}"} for name in ("bfloat16", "float32")}


def check_bundle(
    bundle: str, quick: bool, phantoms: Mapping[str, Phantom], folder: Path, threads: int, processes: ChildProcesses
) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Check a bundle; return rows and lines of each column."""
    on_gpu = torch.cuda.is_available()
    metadata = json.loads((bundle_folder(bundle) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    columns = {}
    for name, settings in variants(bundle, on_gpu).items():
        place = folder / bundle / name
        place.mkdir(parents=True)
        small = {**(SMALL_IMAGES if quick else {}), **settings}
        counted = COUNTED_STEPS if on_gpu else 0
        check = BundleCheck(bundle, small, phantoms[metadata["data_type"]], place, threads, counted)
        columns[name] = check.run(processes)
    return columns


def table(bundle: str, columns: Mapping[str, tuple[Mapping[str, str], list[str]]]) -> str:
    """Describe a bundle in Markdown."""
    texts = [[rows[row].replace("|", "\\|") for rows, _ in columns.values()] for row in ROWS]
    body = markdown_table(["", *columns], [[row, *cells] for row, cells in zip(ROWS, texts, strict=True)])
    lines = [f"- {line}" for _, found in columns.values() for line in found]
    return "\n\n".join([f"### {bundle}", body, *(["\n".join(lines)] if lines else [])])


def has_failed(columns: Mapping[str, tuple[Mapping[str, str], list[str]]]) -> bool:
    return any(text.startswith(FAILED) for rows, _ in columns.values() for text in rows.values())


def heading(on_gpu: bool) -> str:
    device = "" if on_gpu else " No GPU is at hand: everything runs on the CPU, and synchronizations are not counted."
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, MONAI {monai.__version__}"
    return f"{datetime.date.today()}, {machine()}, {versions}, commit {code_version()}.{device}"


def check_bundles(names: list[str], quick: bool, folder: Path) -> bool:
    """Check bundles, one at a time on a GPU and two on a CPU, and print their tables; return whether any failed."""
    parallel = 1 if torch.cuda.is_available() else 2
    threads = max(1, (os.cpu_count() or 1) // parallel)
    phantoms = make_phantoms(folder, quick)
    jobs = {name: partial(check_bundle, name, quick, phantoms, folder, threads) for name in names}
    failures = []

    def ended(name: str, columns: Any, error: BaseException | None) -> None:
        if columns is None:
            columns = {"": ({**dict.fromkeys(ROWS, NOTHING), ROWS[0]: f"{FAILED}{error!r}"}, [])}
        failed = has_failed(columns)
        failures.extend([name] * failed)
        print(f"{name}: {'failed' if failed else 'done'}", file=sys.stderr, flush=True)
        print(f"\n{table(name, columns)}", flush=True)

    run_jobs(jobs, parallel, ended)
    return bool(failures)


def main() -> None:
    arguments = parse_arguments()
    on_gpu = torch.cuda.is_available()
    print(heading(on_gpu), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="gpu_check_"))
    failed = bool(arguments.bundles) and check_bundles(arguments.bundles, arguments.quick, folder)
    if arguments.throughput and not on_gpu:
        print("\n--throughput needs a GPU, and there is none.")
    elif arguments.throughput:
        print(f"\n{throughput(arguments.dataset_dir, folder / 'throughput')}")
    if failed:
        sys.exit(f"The logs are in {folder}.")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
