# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the runs of one data set in one setting, beside the published figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from bundle_runs import summary

from monai_fewshot.apps.benchmark import PUBLISHED, deviation_of_defined, markdown_table, mean_of_defined

COLUMNS = {
    "Dice in range": ("alpnet", "dice"),
    "HD95 in range": ("alpnet", "hd95"),
    "Dice whole volume": ("whole_volume", "dice"),
    "HD95 whole volume": ("whole_volume", "hd95"),
}
SHOWN = ("SSL-ALPNet", "best")
"""Methods whose published figures stand beside ours."""
MADE_WITH = ("iterations", "batch_size", "seed")


@dataclass(frozen=True)
class Group:
    """What networks are trained on and tested for.

    Attributes:
        dataset_dir: data set in the Decathlon layout.
        excluded: classes that training does not see, the ones then tested (setting 2); none: all are (setting 1).
    """

    dataset_dir: Path
    excluded: tuple[str, ...] = ()

    def run_name(self, fold: int, seed: int) -> str:
        """Folder of a run."""
        return "_".join([self.dataset_dir.name, *self.excluded, f"fold{fold}", f"seed{seed}"]).replace(" ", "_")


@dataclass(frozen=True)
class Comparison:
    """The runs of one data set in one setting.

    Attributes:
        data: name of the data set.
        setting: 1, or 2 where the tested classes were excluded from training.
        groups: the group whose networks are tested for a class, by the class's name.
        folds: those asked for.
        seeds: those asked for.
        results: what runs gave, by the name of their folder; runs that are not there have not been done.
    """

    data: str
    setting: int
    groups: Mapping[str, Group | None]
    folds: Sequence[int]
    seeds: Sequence[int]
    results: Mapping[str, Mapping[str, Any]]

    def runs(self, fold: int, seed: int) -> list[Mapping[str, Any]]:
        """The runs of a fold that have been done, one for each group."""
        names = dict.fromkeys(group.run_name(fold, seed) for group in self.groups.values() if group is not None)
        return [self.results[name] for name in names if name in self.results]

    def value(self, name: str, column: str, fold: int, seed: int) -> float | None:
        """A class's Dice in percent or HD95 in mm, NaN where undefined, None where it has not been run."""
        group, (protocol, metric) = self.groups[name], COLUMNS[column]
        run = None if group is None else self.results.get(group.run_name(fold, seed))
        row = None if run is None else summary(run, protocol).get(name)
        if row is None:
            return None
        return math.nan if row[metric] is None else row[metric] * (100 if metric == "dice" else 1)

    def fold_value(self, names: Iterable[str], column: str, fold: int, seeds: Sequence[int]) -> float | None:
        """Mean over classes, then seeds; None where a class has not been run with any of the seeds."""
        by_seed = [[self.value(name, column, fold, seed) for name in names] for seed in seeds]
        complete = [mean_of_defined([v for v in values if v is not None]) for values in by_seed if None not in values]
        return mean_of_defined(complete) if complete else None

    def over_folds(self, names: Sequence[str], column: str) -> dict[str, Any]:
        """Mean and standard deviation over the folds that have been run, and how many these are."""
        values = [self.fold_value(names, column, fold, self.seeds) for fold in self.folds]
        done = [value for value in values if value is not None]
        return {"mean": mean_of_defined(done) if done else None, "sd": deviation_of_defined(done), "folds": len(done)}

    def minutes(self, fold: int, seed: int) -> list[float]:
        """Training time of the fold's networks that have been trained."""
        return [run["training_seconds"] / 60 for run in self.runs(fold, seed)]

    def undefined_hd95(self) -> int:
        """How many scans and classes have no HD95 in range or on the whole volume."""
        return sum(
            summary(run, protocol).get("mean", {}).get("undefined_hd95", 0)
            for fold, seed in product(self.folds, self.seeds)
            for run in self.runs(fold, seed)
            for protocol in dict(COLUMNS.values())
        )

    def record(self) -> dict[str, Any]:
        """The figures of the tables, for JSON."""
        rows = {**{name: [name] for name in self.groups}, "mean": list(self.groups)}
        return {
            "data": self.data,
            "setting": self.setting,
            "folds": list(self.folds),
            "seeds": list(self.seeds),
            "over_folds": {
                row: {column: self.over_folds(names, column) for column in COLUMNS} for row, names in rows.items()
            },
            "by_fold": {
                str(fold): {
                    row: {column: self.fold_value(names, column, fold, self.seeds) for column in COLUMNS}
                    for row, names in rows.items()
                }
                for fold in self.folds
            },
            "training_minutes": {
                str(fold): {str(seed): self.minutes(fold, seed) for seed in self.seeds} for fold in self.folds
            },
            "mean_dice_by_seed": self.mean_dice_by_seed(),
            "published": PUBLISHED.get((self.data, self.setting), {}),
        }

    def mean_dice_by_seed(self) -> dict[str, float]:
        """Mean Dice in range over all folds, for the seeds of which all have been run."""
        by_seed = {
            str(seed): [self.fold_value(self.groups, "Dice in range", fold, [seed]) for fold in self.folds]
            for seed in self.seeds
        }
        return {
            seed: mean_of_defined([v for v in values if v is not None])
            for seed, values in by_seed.items()
            if None not in values
        }


def markdown(comparison: Comparison) -> str:
    """Tables by class and by fold."""
    record = comparison.record()
    done = record["over_folds"]["mean"]["Dice in range"]["folds"]
    notes = [f"{done} of {len(comparison.folds)} folds have been run; ± is the standard deviation over folds."]
    by_seed = record["mean_dice_by_seed"]
    if len(comparison.seeds) > 1:
        notes[0] += f" Each figure is the mean of seeds {', '.join(map(str, comparison.seeds))}."
        spread = deviation_of_defined(list(by_seed.values()))
        if spread is not None:
            notes[0] += f" The mean Dice in range varies by {spread:.1f} (standard deviation over seeds)."
    undefined = comparison.undefined_hd95()
    if undefined:
        notes[0] += f" {undefined} values of HD95, where nothing was segmented, are left out."
    parts = [
        f"### {comparison.data}, setting {comparison.setting}",
        *notes,
        _class_table(record),
        _fold_table(record),
        _made_with(comparison),
    ]
    return "\n\n".join(part for part in parts if part)


def _class_table(record: Mapping[str, Any]) -> str:
    published = record["published"]
    rows = []
    for name, columns in record["over_folds"].items():
        figures = [f"{published.get(method, {}).get(name, math.nan):.2f}".replace("nan", "-") for method in SHOWN]
        rows.append([name, *(_with_spread(figure) for figure in columns.values()), *figures])
    return markdown_table(["class", *COLUMNS, *(f"{method}, published" for method in SHOWN)], rows)


def _fold_table(record: Mapping[str, Any]) -> str:
    rows = []
    for fold, by_class in record["by_fold"].items():
        whole = by_class["mean"]
        minutes = [" + ".join(f"{m:.1f}" for m in seed) for seed in record["training_minutes"][fold].values() if seed]
        rows.append(
            [
                fold,
                *(_figure(columns["Dice in range"]) for columns in by_class.values()),
                *(_figure(whole[column]) for column in list(COLUMNS)[1:]),
                "; ".join(minutes) or "not run",
            ]
        )
    names = [f"Dice {name}" for name in record["over_folds"]]
    return markdown_table(["fold", *names, *list(COLUMNS)[1:], "training min"], rows)


def _made_with(comparison: Comparison) -> str:
    """What made the runs: each property with all its values."""
    found: dict[str, dict[str, None]] = {}
    for run in (run for cell in product(comparison.folds, comparison.seeds) for run in comparison.runs(*cell)):
        made_by = run["provenance"]
        training: dict[str, Any] = next(iter(made_by["training"].values()))["settings"]
        facts = {"image_size": made_by["settings"].get("image_size")} | {key: training.get(key) for key in MADE_WITH}
        facts |= {key: made_by["versions"].get(key) for key in ("torch", "monai")}
        facts |= {key: run.get(key) for key in ("machine", "commit")}
        facts |= {f"{key} values": _extra(run.get(key, {})) for key in ("train", "evaluate")}
        for key, value in facts.items():
            if value not in (None, {}, ""):
                found.setdefault(key, {})[str(value)] = None
    return (
        "Made with " + "; ".join(f"{key} {' and '.join(values)}" for key, values in found.items()) + "."
        if found
        else ""
    )


def _extra(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key not in ("seed", "exclude_classes", "classes")}


def _with_spread(figure: Mapping[str, Any]) -> str:
    return _figure(figure["mean"]) + ("" if figure["sd"] is None else f" ± {figure['sd']:.1f}")


def _figure(value: float | None) -> str:
    if value is None:
        return "not run"
    return "undefined" if math.isnan(value) else f"{value:.1f}"
