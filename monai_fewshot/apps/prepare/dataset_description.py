# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_fewshot.data.scans.folds import cross_validation_folds

from .cases.case import Case

__all__ = ["DatasetDescription", "patient_folds"]


@dataclass(frozen=True)
class DatasetDescription:
    """What ``dataset.json`` says of a prepared data set beside its scans.

    Args:
        name: of the data set.
        modality: "MR", "CT", ...
        class_names: name by number, without background.
        text: where the scans come from and what was done to them.
        licence: under which the scans may be used; "" where it is not known.
        reference: whom to cite, and the address.
    """

    name: str
    modality: str
    class_names: Mapping[int, str] = field(default_factory=dict)
    text: str = ""
    licence: str = ""
    reference: str = ""

    def content(self, files: Mapping[str, Sequence[str]], folds: Sequence[Any]) -> dict[str, Any]:
        """Make the content of ``dataset.json``.

        Args:
            files: image and, where there is one, label of every scan by its name, relative to the folder.
            folds: as ``patient_folds`` makes them; empty for none.

        Returns:
            The content, but for what made it.
        """
        entries = [dict(zip(("image", "label"), files[name], strict=False)) for name in sorted(files)]
        content = {
            "name": self.name,
            "description": self.text,
            "licence": self.licence,
            "reference": self.reference,
            "tensorImageSize": "3D",
            "modality": {"0": self.modality},
            "labels": {"0": "background", **{str(n): self.class_names[n] for n in sorted(self.class_names)}},
            "numTraining": len(entries),
            "numTest": 0,
            "training": entries,
            "test": [],
        }
        return {**content, "folds": list(folds)} if folds else content


def patient_folds(cases: Iterable[Case], num_folds: int = 5) -> list[dict[str, Any]]:
    """Divide the patients of a data set into folds, as :func:`monai_fewshot.data.cross_validation_folds` divides scans.

    The scans of a patient are queries of one fold together. The support is the first annotated scan of the next part's
    first patient, whose other scans are not trained on either. Scans without annotation are trained on only.

    Args:
        cases: the scans.
        num_folds: number of folds, from 2 to the number of patients with an annotated scan; 0 for none.

    Returns:
        Dictionaries of the lists ``query`` and ``support``, and of ``train`` where it is not all other scans.

    Raises:
        ValueError: where the patients cannot make that many folds.

    Example:
        >>> from pathlib import Path
        >>> patient_folds([Case(name, (), (Path("a"),), name[0]) for name in ("a1", "a2", "b1", "b2", "c1")], 2)[0]
        {'query': ['a1', 'a2', 'b1', 'b2'], 'support': ['c1']}
    """
    cases = sorted(cases, key=lambda case: case.name)
    annotated: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.label:
            annotated[case.patient].append(case.name)
    if not num_folds:
        return []
    if not 2 <= num_folds <= len(annotated):
        raise ValueError(
            f"num_folds is {num_folds}; give 2 to {len(annotated)}, the number of patients with an annotated scan, "
            "or 0 for a data set without folds."
        )
    patients = {names[0]: patient for patient, names in annotated.items()}
    folds = cross_validation_folds(patients, num_folds)
    return [_fold(cases, annotated, [patients[q] for q in fold.query], patients[fold.support[0]]) for fold in folds]


def _fold(
    cases: Sequence[Case], annotated: Mapping[str, Sequence[str]], query: Sequence[str], support: str
) -> dict[str, Any]:
    fold: dict[str, Any] = {
        "query": [name for patient in query for name in annotated[patient]],
        "support": list(annotated[support][:1]),
    }
    rest = [case.name for case in cases if case.name not in {*fold["query"], *fold["support"]}]
    train = [case.name for case in cases if case.patient not in {*query, support}]
    return fold if train == rest else {**fold, "train": train}
