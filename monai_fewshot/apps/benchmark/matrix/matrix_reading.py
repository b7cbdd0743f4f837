# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_fewshot.data import class_numbers, fingerprint_scans, load_class_names, load_folds, load_scans

from .bundle_step import BUNDLES, first_part, setting_names
from .description import Budget, DataSet, LearnsFrom, Matrix, MatrixMethod, Part
from .yaml_entries import Entry, did_you_mean, read_yaml

__all__ = ["read_matrix"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
NEEDS = {LearnsFrom.OTHER_CLASSES: "classes", LearnsFrom.SUPPORT: "classes", LearnsFrom.ALL_LABELS: "classes"}


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
    root = read_yaml(path)
    bundles = _path(root, "bundles_dir", str(BUNDLES))
    if not bundles.is_dir():
        root.note("bundles_dir", f"there is no folder {bundles}; name that of the project's bundles.")
    default = _budget(root, Budget())
    methods = tuple(_method(name, entry, bundles, default) for name, entry in root.entries("methods"))
    datasets = tuple(_dataset(name, entry) for name, entry in root.entries("datasets"))
    for key, found in (("methods", methods), ("datasets", datasets)):
        if not found:
            root.note(key, "is empty; name at least one.")
    parallel = _positive(root, "parallel", 1)
    matrix = Matrix(
        methods=methods,
        datasets=datasets,
        across=_pairs(root, datasets),
        seeds=root.get_list("seeds", int, (0,)),
        reference=root.get("reference", str),
        output_dir=_path(root, "output_dir", "benchmark_output"),
        title=root.get("title", str, "Few-shot segmentation"),
        parallel=parallel,
        threads=_positive(root, "threads", max(1, (os.cpu_count() or 1) // parallel)),
        devices=root.get_list("devices", int),
        bundles=bundles,
    )
    root.check_keys()
    _check_together(root, matrix)
    if root.problems:
        lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(root.problems))
        raise ValueError(f"{path} cannot be run, and nothing was:\n{lines}")
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


def _method(name: str, entry: Entry, bundles: Path, default: Budget) -> MatrixMethod:
    _check_name(entry, name)
    bundle = entry.get("bundle", str, name)
    if bundles.is_dir() and not (bundles / bundle / "configs").is_dir():
        there = [folder.parent.name for folder in bundles.glob("*/configs")]
        entry.note("bundle", f"there is no bundle {bundle} in {bundles}{did_you_mean(bundle, there)}")
    kind = entry.get("learns_from", str, required=True)
    if kind is not None and kind not in list(LearnsFrom):
        entry.note("learns_from", f"is {kind!r}{did_you_mean(kind, list(LearnsFrom))}")
    learns_from: Any = LearnsFrom(kind) if kind in list(LearnsFrom) else LearnsFrom.IMAGES
    trained = learns_from != LearnsFrom.NOTHING
    if not trained and "train" in entry.values:
        entry.note("train", "is of no use to a method that learns_from nothing; leave it out.")
    for_dataset = {data: _overrides(inner) for data, inner in entry.entries("for_dataset")}
    method = MatrixMethod(
        name=name,
        title=entry.get("title", str, name),
        bundle=bundle,
        learns_from=learns_from,
        train=_part(entry, "train", bundles / bundle, for_dataset) if trained else None,
        evaluate=_part(entry, "evaluate", bundles / bundle, for_dataset),
        budget=_budget(entry, default),
        datasets=entry.get_list("datasets", str) or None,
        for_dataset=for_dataset,
    )
    entry.get("train", dict)
    entry.check_keys()
    if method.train is not None and learns_from in NEEDS:
        _check_settings(entry, "learns_from", bundles / bundle, method.train, [NEEDS[learns_from]])
    return method


def _overrides(entry: Entry) -> dict[str, Mapping[str, Any]]:
    found = {key: entry.get(key, dict, {}) for key in ("train", "evaluate")}
    entry.check_keys()
    return found


def _part(outer: Entry, key: str, bundle: Path, for_dataset: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Part:
    entry = outer.entry(key)
    part = Part(entry.get_list("configs", str, (key,)), entry.get("settings", dict, {}))
    entry.check_keys()
    _check_settings(entry, "settings", bundle, part, list(part.settings))
    for data, overrides in for_dataset.items():
        inner = Entry({}, f"{outer.name}.for_dataset.{data}", outer.problems)
        _check_settings(inner, key, bundle, part, list(overrides[key]))
    return part


def _check_settings(entry: Entry, key: str, bundle: Path, part: Part, names: list[str]) -> None:
    """Note configuration files that are not there, and settings that none of them has."""
    for config in part.configs:
        file = bundle / "configs" / f"{config}.json"
        if not file.is_file():
            if bundle.is_dir():
                there = [path.stem for path in (bundle / "configs").glob("*.json")]
                entry.note("configs", f"{bundle.name} has no configs/{config}.json{did_you_mean(config, there)}")
            return
    known = setting_names(bundle, part.configs)
    for name in names:
        first = first_part(str(name))
        if first not in known:
            files = ", ".join(f"{config}.json" for config in part.configs)
            entry.note(key, f"{bundle.name} has no setting {first!r} in {files}{did_you_mean(first, known)}")


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
    if matrix.reference is not None and matrix.reference not in [method.name for method in matrix.methods]:
        there = [method.name for method in matrix.methods]
        root.note("reference", f"there is no method {matrix.reference!r}{did_you_mean(matrix.reference, there)}")
    for method in matrix.methods:
        entry = Entry({}, f"methods.{method.name}", root.problems)
        for key, found in (("datasets", method.datasets or ()), ("for_dataset", method.for_dataset)):
            for name in found:
                if name not in names:
                    entry.note(key, f"there is no data set {name!r}{did_you_mean(name, names)}")
        for data in matrix.datasets:
            on_it = method.datasets is None or data.name in method.datasets
            if on_it and 2 in data.settings and method.train is not None and not method.sees_tested_classes:
                _check_settings(entry, "train", matrix.bundles / method.bundle, method.train, ["exclude_classes"])
            if on_it and method.learns_from == LearnsFrom.OTHER_CLASSES and len(data.groups) < 2:
                root.problems.append(
                    f"datasets.{data.name}.groups: {method.name} learns from other classes than the tested ones, so at "
                    "least two groups of classes are needed; or leave the data set out of the method's datasets."
                )
