# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from monai_fewshot.apps.bundles import BundleMethod, LearnsFrom, WorksOn, read_method
from monai_fewshot.apps.bundles.bundle_step import unknown_settings
from monai_fewshot.apps.entries import Entry, read_entries
from monai_fewshot.data import class_numbers, fingerprint_scans, load_class_names, load_folds, load_scans
from monai_fewshot.utils import did_you_mean

from .description import Budget, DataSet, Matrix, MatrixMethod

__all__ = ["read_matrix"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
STEPS = ("train", "evaluate")


def read_matrix(path: Path) -> Matrix:
    """Read a benchmark's YAML file and check it against the bundles and data sets it names.

    Variables such as ``$DATA`` in paths are replaced by those of the environment. Relative paths are relative to the
    current folder.

    Args:
        path: the file; ``docs/benchmark.md`` tells what may stand in it.

    Returns:
        What it asks for.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: with all that is wrong, a line each, which begins with the entry.
    """
    root = read_entries(path)
    default = _budget(root, Budget())
    methods = tuple(_method(name, entry, default) for name, entry in root.entries("methods"))
    datasets = tuple(_dataset(name, entry) for name, entry in root.entries("datasets"))
    for key, found in (("methods", methods), ("datasets", datasets)):
        if not found:
            root.note(key, "is empty; name at least one.")
    parallel = _positive(root, "parallel", 1)
    matrix = Matrix(
        methods=tuple(method for method in methods if method is not None),
        datasets=datasets,
        across=_pairs(root, datasets),
        seeds=root.get_list("seeds", int, (0,)),
        reference=root.get("reference", str),
        output_dir=_path(root, "output_dir", "benchmark_output"),
        title=root.get("title", str, "Few-shot segmentation"),
        parallel=parallel,
        threads=_positive(root, "threads", max(1, (os.cpu_count() or 1) // parallel)),
        devices=root.get_list("devices", int),
    )
    root.check_keys()
    _check_together(root, matrix)
    root.raise_problems(f"{path} cannot be run, and nothing was")
    return matrix


def _path(entry: Entry, key: str, default: str | None = None) -> Path:
    text = os.path.expandvars(entry.get(key, str, default, required=default is None) or "")
    if "$" in text:
        entry.note(key, f"{text} has a variable that the environment lacks; set it.")
    return Path(text).expanduser().absolute()


def _positive(entry: Entry, key: str, default: int) -> int:
    value = entry.get(key, int, default)
    if value < 1:
        entry.note(key, f"is {value}; give 1 or more.")
        return 1
    return value


def _budget(outer: Entry, default: Budget) -> Budget:
    if outer.values.get("budget") is None:
        outer.get("budget", dict)
        return default
    entry = outer.entry("budget")
    budget = Budget(
        iterations=entry.get("iterations", int),
        minutes=entry.get("minutes", float),
        epochs=_positive(entry, "epochs", default.epochs),
        probe_iterations=_positive(entry, "probe_iterations", default.probe_iterations),
    )
    entry.check_keys()
    if (budget.iterations is None) == (budget.minutes is None):
        outer.note("budget", "give either iterations or minutes.")
    elif min(budget.iterations or 1, budget.minutes or 1) <= 0:
        outer.note("budget", "give more than 0 iterations or minutes.")
    return budget


def _method(name: str, entry: Entry, default: Budget) -> MatrixMethod | None:
    """Read a row; None where its bundle does not say what it is."""
    _check_name(entry, name)
    told, title = entry.get("bundle", str, name), entry.get("title", str)
    budget, datasets = _budget(entry, default), entry.get_list("datasets", str) or None
    parts = {"": entry, **dict(entry.entries("for_dataset"))}
    settings = {data: {step: part.get(step, dict, {}) for step in STEPS} for data, part in parts.items()}
    for part in parts.values():
        part.check_keys()
    try:
        method = read_method(told)
    except (OSError, ValueError) as error:
        entry.note("bundle", str(error))
        return None
    steps = ", ".join(method.steps)
    if method.works_on == WorksOn.IMAGES or len(method.training) > 1:
        entry.note(
            "bundle", f"{told} works on {method.works_on} by {steps}; name a method for scans with one training."
        )
        return None
    for data, part in parts.items():
        for step, values in settings[data].items():
            if step in method.steps:
                _check_settings(part, step, method, values)
            elif values:
                part.note(step, f"is of no use to {told}, whose steps are {steps}; leave it out.")
    if method.training and method.learns_from != LearnsFrom.IMAGES:
        _check_settings(entry, "train", method, ["classes"])
    return MatrixMethod(name, title or method.title, method, settings.pop(""), budget, datasets, settings)


def _check_settings(entry: Entry, step: str, method: BundleMethod, names: Iterable[str]) -> None:
    """Note settings that no configuration file of a step has."""
    for problem in unknown_settings(method.bundle, method.steps[step], names):
        entry.note(step, problem)


def _dataset(name: str, entry: Entry) -> DataSet:
    _check_name(entry, name)
    path = _path(entry, "path")
    data = DataSet(
        name=name,
        title=entry.get("title", str, name),
        path=path,
        all_classes=(),
        classes=entry.get_list("classes", str),
        groups=tuple(map(tuple, entry.get_list("groups", list))),
        settings=entry.get_list("settings", int, (1,)),
        folds=entry.get_list("folds", int),
        published=entry.get("published", str, name),
    )
    entry.check_keys()
    try:
        names = load_class_names(path, required=True)
        there = tuple(fold.index for fold in load_folds(path))
        fingerprint = fingerprint_scans(load_scans(path, require_labels=True))
    except (OSError, ValueError) as error:
        entry.note("path", str(error))
        return data
    for key, classes in (("classes", data.classes), *(("groups", group) for group in data.groups)):
        try:
            class_numbers(names, classes)
        except ValueError as error:
            entry.note(key, str(error))
    if unknown := set(data.folds) - set(there):
        entry.note("folds", f"there is no fold {sorted(unknown)}; the data set has {list(there)}.")
    every = tuple(names.values())
    _check_groups(entry, data, data.classes or every)
    return replace(
        data, all_classes=every, classes=data.classes or every, folds=data.folds or there, fingerprint=fingerprint
    )


def _check_groups(entry: Entry, data: DataSet, tested: tuple[str, ...]) -> None:
    if unknown := set(data.settings) - {1, 2}:
        entry.note("settings", f"there is no setting {sorted(unknown)}; give 1, 2 or both.")
    if 2 in data.settings and not data.groups:
        entry.note("groups", "setting 2 needs them: which classes are hidden from training together, and then tested.")
    grouped = [name for group in data.groups for name in group]
    if data.groups and sorted(grouped) != sorted(tested):
        entry.note("groups", f"must hold each tested class once; these are {', '.join(tested)}.")


def _check_name(entry: Entry, name: str) -> None:
    if not NAME.fullmatch(name):
        entry.problems.append(f"{entry.name}: the name becomes a folder's; use letters, digits and _ . + - alone.")


def _pairs(root: Entry, datasets: tuple[DataSet, ...]) -> tuple[tuple[str, str], ...]:
    by_name = {data.name: data for data in datasets}
    pairs = []
    for place, pair in enumerate(root.get_list("across", dict)):
        entry = Entry(pair, f"across.{place}", root.problems)
        names = (entry.get("train", str, required=True), entry.get("test", str, required=True))
        entry.check_keys()
        for key, name in zip(("train", "test"), names, strict=True):
            if name is not None and name not in by_name:
                entry.note(key, f"there is no data set {name!r}{did_you_mean(name, by_name)}")
        if set(names) <= set(by_name):
            _check_pair(entry, by_name[names[0]], by_name[names[1]])
            pairs.append(names)
    return tuple(pairs)


def _check_pair(entry: Entry, train: DataSet, test: DataSet) -> None:
    if train is test:
        entry.note("test", "is the data set that is trained on; name another.")
    missing = {name.casefold() for name in train.classes} - {name.casefold() for name in test.all_classes}
    if missing:
        entry.note("train", f"{test.name} lacks {', '.join(sorted(missing))}; restrict the classes of {train.name}.")
    if train.classes and not set(train.folds) & set(test.folds):
        entry.note("test", "both must have a fold of the same number.")


def _check_together(root: Entry, matrix: Matrix) -> None:
    names = [data.name for data in matrix.datasets]
    there = list(map(str, root.values.get("methods") or ()))
    if matrix.reference is not None and matrix.reference not in there:
        root.note("reference", f"there is no method {matrix.reference!r}{did_you_mean(matrix.reference, there)}")
    titles: dict[str, str] = {}
    for method in matrix.methods:
        entry = Entry({}, f"methods.{method.name}", root.problems)
        if (other := titles.setdefault(method.title, method.name)) != method.name:
            entry.note("title", f"{method.title!r} is that of {other} too; give each row its own.")
        for key, found in (("datasets", method.datasets or ()), ("for_dataset", method.for_dataset)):
            for name in found:
                if name not in names:
                    entry.note(key, f"there is no data set {name!r}{did_you_mean(name, names)}")
        for data in matrix.datasets:
            on_it = method.datasets is None or data.name in method.datasets
            if on_it and 2 in data.settings and not method.sees_tested_classes:
                _check_settings(entry, "train", method.method, ["exclude_classes"])
            if on_it and method.learns_from == LearnsFrom.OTHER_CLASSES and len(data.groups) < 2:
                root.problems.append(
                    f"datasets.{data.name}.groups: {method.name} learns from other classes than the tested ones, so at "
                    "least two groups of classes are needed; or leave the data set out of the method's datasets."
                )
