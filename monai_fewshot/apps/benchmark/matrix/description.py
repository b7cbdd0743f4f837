# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fewshot.apps.bundles import BundleMethod, LearnsFrom

__all__ = ["Budget", "DataSet", "Matrix", "MatrixMethod", "Row"]


@dataclass(frozen=True)
class Budget:
    """How long a network is trained; without iterations or minutes as long as its bundle says.

    Attributes:
        iterations: of each stage.
        minutes: of the training alone; the iterations are found by timing some.
        epochs: that the iterations are divided into.
        probe_iterations: of the shorter of the two trainings that are timed.
    """

    iterations: int | None = None
    minutes: float | None = None
    epochs: int = 5
    probe_iterations: int = 20

    def settings(self, iterations: int | None) -> dict[str, int]:
        """Overrides for a training of so many iterations; None leaves it as it is."""
        if iterations is None:
            return {}
        epochs = min(self.epochs, iterations)
        return {"epoch_length": -(-iterations // epochs), "max_epochs": epochs}


@dataclass(frozen=True)
class MatrixMethod:
    """A row of the table: a method and how it is run.

    Attributes:
        name: of the entry, and of its folder.
        title: in tables.
        method: a bundle or a variant of one.
        settings: overrides by the names of steps, ``train`` and ``evaluate``.
        budget: of the training.
        datasets: data sets it is run on; None for all.
        for_dataset: overrides by the names of steps, by the names of single data sets.
    """

    name: str
    title: str
    method: BundleMethod
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budget: Budget = Budget()
    datasets: tuple[str, ...] | None = None
    for_dataset: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def learns_from(self) -> LearnsFrom:
        """What the training sees; that decides what the settings of data sets mean to the method."""
        return self.method.learns_from

    @property
    def is_trained(self) -> bool:
        """Whether there is a training."""
        return self.learns_from != LearnsFrom.NOTHING

    @property
    def sees_tested_classes(self) -> bool:
        """Whether the settings make no difference, because no class is hidden from the method."""
        return self.learns_from not in (LearnsFrom.IMAGES, LearnsFrom.OTHER_CLASSES)


@dataclass(frozen=True)
class DataSet:
    """A data set and what is tested on it.

    Attributes:
        name: of the entry, and of folders.
        title: in tables.
        path: folder in the Decathlon layout.
        all_classes: names of all its classes.
        classes: those that are tested.
        groups: classes that are hidden from training together, for setting 2 and for methods that learn from other
            classes.
        settings: 1, 2 or both.
        folds: numbers of the folds.
        published: name under which :data:`PUBLISHED` has it.
        fingerprint: of its files.
    """

    name: str
    title: str
    path: Path
    all_classes: tuple[str, ...]
    classes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    settings: tuple[int, ...]
    folds: tuple[int, ...]
    published: str
    fingerprint: str = ""


@dataclass(frozen=True)
class Row:
    """Cells that make one row of a table: one method, trained on one data set in one setting, tested on one."""

    method: MatrixMethod
    train: DataSet
    test: DataSet
    setting: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Tested classes: of a row across data sets those that both have, by their names."""
        if self.train is self.test:
            return self.test.classes
        there = {name.casefold() for name in self.train.classes}
        return tuple(name for name in self.test.all_classes if name.casefold() in there)

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds that both data sets have."""
        return tuple(fold for fold in self.train.folds if fold in self.test.folds)


@dataclass(frozen=True)
class Matrix:
    """All that a benchmark's YAML file asks for.

    Attributes:
        methods: in the order of the table.
        datasets: in the order of the tables.
        across: pairs (trained on, tested on) of names of data sets.
        seeds: of the trainings.
        reference: name of the method that the others are compared with; None for no comparison.
        output_dir: folder of everything that is written.
        title: of the pages.
        parallel: trainings at a time, on each device where there are some.
        threads: of each.
        devices: numbers of the GPUs to share out; none for what torch finds.
    """

    methods: tuple[MatrixMethod, ...]
    datasets: tuple[DataSet, ...]
    across: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    reference: str | None
    output_dir: Path
    title: str = "Few-shot segmentation"
    parallel: int = 1
    threads: int = 1
    devices: tuple[int, ...] = ()

    def rows(self) -> Iterator[Row]:
        """Rows, table after table: each data set in each setting, then the pairs of data sets."""
        by_name = {data.name: data for data in self.datasets}
        pairs = [(data, data) for data in self.datasets]
        pairs += [(by_name[train], by_name[test]) for train, test in self.across]
        for train, test in pairs:
            for setting in train.settings if train is test else train.settings[:1]:
                for method in self._methods_on(train, test):
                    yield Row(method, train, test, setting)

    def _methods_on(self, train: DataSet, test: DataSet) -> Iterable[MatrixMethod]:
        for method in self.methods:
            allowed = method.datasets is None or {train.name, test.name} <= set(method.datasets)
            if allowed and (train is test or method.is_trained):
                yield method

    def seeds_of(self, method: MatrixMethod) -> tuple[int, ...]:
        """Seeds; of a method that is not trained the first alone."""
        return self.seeds if method.is_trained else self.seeds[:1]
