# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What the parts of exemplar learning are worth, and SSL-ALPNet from the same annotated scan.

    python benchmarks/exemplar_learning.py --dataset_dirs ACDC CHAOS --results docs/results/elsnet.md

The rows are those of table 3 and of the left half of table 4 of En and Guo (BMVC 2022): with and without synthetic
images, the contrast of prototypes in either stage, and unlabeled images. All networks of a row are trained from one
annotated slice of the fold's support scan, which the seed draws, as it does the first weights. Whole volumes of the
fold's query scans are segmented slice by slice. Rows that share a first stage share its network. Organs are pasted onto
unlabeled slices, and all organs by one transform; other rows have the paper's backgrounds, its arrangement, where every
organ moves for itself, and five annotated slices of the scan. SSL-ALPNet is trained on the same unlabeled scans, and
its support is that scan. The same command goes on after an interruption.

Scans of sets whose in-plane sizes differ are first cut to squares about their center (CUT), so that all methods see
pixels of one shape; what is cut off counts for no method.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from bundle_command import Cell
from image_cells import mean_and_spread, run_and_report
from monai.transforms import ResizeWithPadOrCrop

from monai_fewshot.apps.bundles import Step
from monai_fewshot.data import load_class_names, load_folds, load_scans
from monai_fewshot.utils import write_atomically

CONTRAST, NO_SYNTHESIS = {"contrast_weight": 0.01}, {"synthesis": None}
NO_CONTRAST = {"contrast_weight": 0.0}
EPOCH_LENGTH = 50
AUGMENTATION = {"acdc": {"geometry#flip": [0.5, 0.5]}}
"""Flips, as in the paper, where left and right organs are not to be told apart, by the name of the folder."""
CUT = {"acdc": 192}
"""Voxels in plane of scans that are cut, by the name of the folder; all of ACDC's hearts lie within, by all labels."""


@dataclass(frozen=True)
class FirstStage:
    """How a network is trained from annotated slices alone, and what is trained after it.

    Attributes:
        row: name of the row of the network itself.
        settings: of the training.
        then: settings of second stages, by name of their row.
    """

    row: str
    settings: dict[str, Any]
    then: dict[str, dict[str, Any]]


STAGES = {
    "exemplar": FirstStage("exemplar only", {**NO_SYNTHESIS, **NO_CONTRAST}, {}),
    "contrast": FirstStage(
        "+ contrast, no synthesis", {**NO_SYNTHESIS, **CONTRAST}, {"all but synthesis": {**NO_SYNTHESIS, **CONTRAST}}
    ),
    "synthesis": FirstStage("+ synthesis", NO_CONTRAST, {"all but contrast in stage 1": CONTRAST}),
    "both": FirstStage(
        "+ synthesis + contrast in stage 1", CONTRAST, {"all but contrast in stage 2": NO_CONTRAST, "all": CONTRAST}
    ),
    "organ-free": FirstStage(
        "+ synthesis, black and organ-free backgrounds",
        {**NO_CONTRAST, "backgrounds": "organ_free", "synthesis#black_prob": 0.5},
        {},
    ),
    "free": FirstStage("+ synthesis, free arrangement", {**NO_CONTRAST, "synthesis#arrangement": "free"}, {}),
    "several": FirstStage("+ synthesis, five annotated slices", {**NO_CONTRAST, "num_support_slices": 5}, {}),
}
SSL_ALPNET = "SSL-ALPNet, same scan"
PUBLISHED = {
    "exemplar only": 14.2,
    "+ synthesis": 27.3,
    "+ synthesis + contrast in stage 1": 35.5,
    "all but synthesis": 35.9,
    "all but contrast in stage 1": 34.5,
    "all but contrast in stage 2": 39.0,
    "all": 41.0,
}
"""Dice on ACDC, table 4 of the paper; there of MT-UNet, and of other patients."""


class Key(NamedTuple):
    """What a cell is of."""

    data: str
    stage: str
    seed: int


class CopyFirstStage(Step):
    """Puts the first stage of one training where another one goes on from it."""

    def command(self) -> list[str]:
        """Words of the command line."""
        code = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
        return [sys.executable, "-c", code, str(self.settings["source"]), str(self.settings["target"])]


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_dirs", type=Path, nargs="+", required=True, help="in the Decathlon layout")
    parser.add_argument("--output_dir", type=Path, default=Path("exemplar_output"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=[*STAGES, SSL_ALPNET], default=[*STAGES, SSL_ALPNET])
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--iterations", type=int, default=500, help="of each stage, a multiple of 50")
    parser.add_argument("--alpnet_iterations", type=int, default=600, help="of SSL-ALPNet, a multiple of 50")
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="Markdown file with the marker lines")
    parser.add_argument("--report_only", action="store_true")
    return parser.parse_args(words)


def prepare(arguments: argparse.Namespace) -> dict[str, Path]:
    """Folder of each data set by its name, cut where it must be."""
    return {
        data.name: _cut(arguments, data) if data.name in CUT else data.absolute() for data in arguments.dataset_dirs
    }


def _cut(arguments: argparse.Namespace, data: Path) -> Path:
    folder, size = arguments.output_dir.absolute() / "data" / data.name, CUT[data.name]
    if (folder / "dataset.json").is_file():
        return folder
    entries = []
    for scan in load_scans(data, require_labels=True):
        entries.append({"name": scan["name"]})
        for key in ("image", "label"):
            path = folder / key / f"{scan['name']}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = nibabel.load(scan[key])
            array = ResizeWithPadOrCrop((size, size, -1))(np.asarray(volume.dataobj)[None])[0]
            nibabel.save(nibabel.Nifti1Image(np.asarray(array, volume.get_data_dtype()), volume.affine), path)
            entries[-1][key] = f"{key}/{path.name}"
    content = {
        "labels": {"0": "background", **load_class_names(data)},
        "folds": [{"query": fold.query, "support": fold.support} for fold in load_folds(data)],
        "training": entries,
    }
    write_atomically(folder / "dataset.json", json.dumps(content, indent=1))
    return folder


def planned(arguments: argparse.Namespace, folders: dict[str, Path]) -> dict[Key, Cell]:
    """Cells, seed after seed."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    cells = {}
    for seed in seeds:
        for name, folder in folders.items():
            for stage in arguments.stages:
                key = Key(name, stage, seed)
                cells[key] = (_alpnet_cell if stage == SSL_ALPNET else _exemplar_cell)(arguments, folder, key)
    return cells


def _exemplar_cell(arguments: argparse.Namespace, data: Path, key: Key) -> Cell:
    folder, stage = _folder(arguments, key), STAGES[key.stage]
    common = {"dataset_dir": data, "fold": arguments.fold}
    train = {
        **common,
        "image_size": [arguments.image_size] * 2,
        "seed": key.seed,
        "resume": True,
        "compare_pseudo_labels": True,
        "epoch_length": EPOCH_LENGTH,
        "max_epochs": arguments.iterations // EPOCH_LENGTH,
        **AUGMENTATION.get(key.data, {}),
    }
    rows = {stage.row: stage.settings, **stage.then}
    first = folder / _name(stage.row) / "stage_1"
    steps: list[Step] = []
    for row, settings in rows.items():
        place = folder / _name(row)
        if row != stage.row:
            steps.append(CopyFirstStage("elsnet", ("copy",), {"source": first, "target": place / "stage_1"}))
        rounds = {"ckpt_dir": place, "rounds": int(row != stage.row)}
        steps.append(Step("elsnet", ("train",), {**train, **settings, **rounds}))
        evaluate = {**common, "checkpoint": place / "model.pt", "output_dir": folder / f"eval_{_name(row)}"}
        steps.append(Step("elsnet", ("evaluate",), evaluate))
    return Cell(folder, tuple(steps), tuple(f"eval_{_name(row)}" for row in rows))


def _alpnet_cell(arguments: argparse.Namespace, data: Path, key: Key) -> Cell:
    folder = _folder(arguments, key)
    common = {"dataset_dir": data, "fold": arguments.fold}
    train = {
        **common,
        "seed": key.seed,
        "ckpt_dir": folder / "model",
        "cache_dir": arguments.output_dir.absolute() / "superpixels",
        "resume": True,
        "epoch_length": EPOCH_LENGTH,
        "max_epochs": arguments.alpnet_iterations // EPOCH_LENGTH,
        "val_interval": arguments.alpnet_iterations // EPOCH_LENGTH,
    }
    evaluate = {**common, "checkpoint": folder / "model" / "model.pt", "output_dir": folder / "eval"}
    return Cell(folder, (Step("ssl_alpnet", ("train",), train), Step("ssl_alpnet", ("evaluate",), evaluate)))


def _folder(arguments: argparse.Namespace, key: Key) -> Path:
    return arguments.output_dir.absolute() / _name(f"{key.data} {key.stage} seed{key.seed}")


def _name(words: str) -> str:
    return words.replace(" ", "_").replace(",", "").replace("+_", "")


def rows_of(stage: str) -> dict[str, str]:
    """Folder of the evaluation of each row that a cell makes."""
    if stage == SSL_ALPNET:
        return {SSL_ALPNET: "eval"}
    return {row: f"eval_{_name(row)}" for row in (STAGES[stage].row, *STAGES[stage].then)}


def table(arguments: argparse.Namespace, cells: dict[Key, Cell]) -> str:
    """Mean and standard deviation over seeds, and the paired gain over the exemplar alone, for each data set."""
    parts = [_data_table(arguments, data, cells) for data in arguments.dataset_dirs]
    done = [result for cell in cells.values() if (result := cell.results()) is not None]
    minutes = statistics.fmean(result["minutes"] for result in done) if done else 0.0
    return "\n\n".join(parts) + (
        f"\n\n{len(done)} of {len(cells)} cells of one to three networks, {minutes:.1f} min each on "
        f"{arguments.threads} thread(s) of a CPU; fold {arguments.fold}; {arguments.iterations} iterations of 4 "
        f"samples a stage, {arguments.image_size} x {arguments.image_size} pixels; SSL-ALPNet "
        f"{arguments.alpnet_iterations} iterations of 4 episodes; ± is the standard deviation over seeds."
    )


def _data_table(arguments: argparse.Namespace, data: Path, cells: dict[Key, Cell]) -> str:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for key, cell in cells.items():
        result = cell.results()
        if key.data == data.name and result is not None:
            for row, evaluation in rows_of(key.stage).items():
                found.setdefault(row, {})[key.seed] = result["evaluations"][evaluation]
    classes = list(load_class_names(data).values())
    published = PUBLISHED if data.name == "acdc" else {}
    lines = [
        f"**{data.name}**",
        "",
        f"| trained from | seeds | Dice, whole volume | {' | '.join(classes)} | gain over exemplar only | HD95 "
        "| Dice, in range | published |",
        "| --- " * (len(classes) + 7) + "|",
    ]
    order = [*(row for stage in STAGES.values() for row in (stage.row, *stage.then)), SSL_ALPNET]
    lines += [_line(row, found, classes, published.get(row)) for row in sorted(found, key=order.index)]
    return "\n".join(lines)


def _line(
    row: str, found: dict[str, dict[int, dict[str, Any]]], classes: Sequence[str], published: float | None
) -> str:
    seeds = found[row]
    whole = {seed: result["whole_volume"] for seed, result in seeds.items()}

    def percent(name: str, protocol: str = "whole_volume") -> str:
        return mean_and_spread([100 * result[protocol][name]["dice"] for result in seeds.values()])

    base = found.get("exemplar only", {})
    gains = [
        100 * (whole[seed]["mean"]["dice"] - base[seed]["whole_volume"]["mean"]["dice"])
        for seed in seeds
        if seed in base
    ]
    gain = mean_and_spread(gains, sign=True) if gains and row != "exemplar only" else ""
    far = mean_and_spread([result["mean"]["hd95"] for result in whole.values()])
    undefined = sum(result["mean"]["undefined_hd95"] for result in whole.values())
    far += f", {undefined} undefined" if undefined else ""
    by_class = " | ".join(map(percent, classes))
    columns = [row, str(len(seeds)), percent("mean"), by_class, gain, far, percent("mean", "alpnet")]
    return f"| {' | '.join(columns)} | {published or '-'} |"


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(words)
    cells = planned(arguments, prepare(arguments))
    return run_and_report(arguments, list(cells.values()), lambda: table(arguments, cells), "exemplar_learning")


if __name__ == "__main__":
    sys.exit(main())
