# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from monai.config import PathLike
from monai.inferers import Inferer

from monai_fewshot.data import (
    Fold,
    Scan,
    choose_folds,
    class_numbers,
    fingerprint_scans,
    load_class_names,
    load_scans,
)
from monai_fewshot.metrics import ScanScore
from monai_fewshot.transforms import KeepSupportComponents
from monai_fewshot.utils import Provenance, run_together

from .fold_evaluation import FoldEvaluation
from .trained_model import GivenModel, TrainedModel

__all__ = ["VolumeEvaluation"]


class VolumeEvaluation:
    """Cross-validation on a data set of annotated scans, see :class:`FoldEvaluation`.

    Args:
        dataset_dir: the data set, see :func:`monai_fewshot.data.load_scans`.
        model: the network and its preparation; ``{fold}`` in the name of its checkpoint stands for a fold's number.
        inferer: makes the inferer, given ``num_classes``.
        output_dir: where results are written.
        title: of the report.
        fold: one number or several; None for all folds.
        num_folds: number of folds where the data set names none.
        classes: names or numbers of the classes to evaluate; None for all, or those that the network knows.
        keep_largest: whether each class keeps as many connected components as the support shows, the largest.
        settings: what else the results shall say of how they were made.
    """

    def __init__(
        self,
        dataset_dir: PathLike,
        model: TrainedModel | GivenModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        title: str,
        fold: int | Sequence[int] | None = None,
        num_folds: int = 5,
        classes: str | int | Sequence[str | int] | None = None,
        keep_largest: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset_dir = dataset_dir
        self.folds_model = model
        self.make_inferer = inferer
        self.output_dir = output_dir
        self.title = title
        self.fold = fold
        self.num_folds = num_folds
        self.chosen = classes
        self.keep_largest = keep_largest
        self.settings = dict(settings or {})

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds to evaluate."""
        return choose_folds(self.dataset_dir, self.fold, self.num_folds)

    @cached_property
    def scans(self) -> list[Scan]:
        """All scans of the data set."""
        return load_scans(self.dataset_dir, require_labels=True)

    @cached_property
    def model(self) -> TrainedModel | GivenModel:
        """The networks of the folds."""
        return self.folds_model.of_folds([fold.index for fold in self.folds])

    @cached_property
    def known_classes(self) -> dict[int, str]:
        """Name by number of all classes of the data set."""
        return load_class_names(self.dataset_dir, required=True)

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Name by number, in the data set, of the classes to evaluate, in their order."""
        trained = self.model.classes
        wanted = self.chosen or list((trained or self.known_classes).values())
        names = {number: self.known_classes[number] for number in class_numbers(self.known_classes, wanted)}
        if trained is not None and list(names.values()) != list(trained.values()):
            raise ValueError(
                f"classes are {list(names.values())}, but the network knows {list(trained.values())}: leave classes "
                "out, or train for these."
            )
        return names

    @cached_property
    def evaluation(self) -> FoldEvaluation:
        """Runs over the folds."""
        numbers, names = list(self.class_names), list(self.class_names.values())
        inferer = self.model.inferer(self.make_inferer, len(numbers))
        support = next(scan for scan in self.scans if scan["name"] == self.folds[0].support[0])
        preparation = self.model.preparation.on_axes_of(support)
        provenance = Provenance(
            fingerprint_scans(self.scans),
            dataset_dir=self.dataset_dir,
            fold=self.fold,
            protocols=[protocol.name for protocol in inferer.protocols],
            classes=names,
            image_size=self.model.image_size,
            keep_largest=self.keep_largest,
            checkpoints=list(self.model.checkpoints),
            **self.settings,
        )
        return FoldEvaluation(
            network=self.model.network,
            folds=self.folds,
            scans=self.scans,
            transform=preparation.transform(known_classes=self.known_classes, class_numbers=numbers),
            inferer=inferer,
            class_names=names,
            output_dir=self.output_dir,
            checkpoints=self.model.checkpoints,
            provenance=provenance.state_dict(),
            title=self.title,
            postprocessing=KeepSupportComponents(self.model.parts is not None) if self.keep_largest else None,
        )

    def check(self) -> None:
        """Check the checkpoints and all scans, in all processes or none.

        Raises:
            ValueError: where one does not do; all problems of files are listed.
        """
        run_together(self._check)

    def run(self) -> list[ScanScore]:
        """Evaluate, see :meth:`FoldEvaluation.run`."""
        return self.evaluation.run()

    def _check(self) -> None:
        _ = self.scans, self.class_names, self.model.image_size
        self.model.preparation.check(self.scans, self.known_classes)
