# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from monai_fewshot.apps.prepare.sources.hashing import hash_file
from monai_fewshot.data import Scan
from monai_fewshot.utils import Provenance, write_atomically

__all__ = ["ExampleOrigin", "ModelOrigin", "origin_of_example"]

FILE = "segment.json"
HASH_SHOWN = 8


@dataclass(frozen=True)
class ExampleOrigin:
    """An annotated scan by its content.

    Attributes:
        name: of the scan.
        sha256: of the content of its image and label.
    """

    name: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:HASH_SHOWN]})"


@dataclass(frozen=True)
class ModelOrigin:
    """What made the model of a folder of masks; ``segment.json`` beside the model holds it.

    Attributes:
        method: its name.
        examples: the annotated scans.
        classes: name by number.
        minutes: of the training; None where the method has a length of its own.
        seed: of the training.
        annotated_slices: which slices of the examples are annotated; None for all.
        seed_labels: folder of the first labels of other scans; None for none.
        trained: whether the training has come to its end.
    """

    method: str
    examples: tuple[ExampleOrigin, ...]
    classes: Mapping[int, str]
    minutes: float | None
    seed: int
    annotated_slices: int | str | Sequence[int] | None = None
    seed_labels: str | None = None
    trained: bool = False

    def write(self, folder: Path) -> None:
        """Write ``segment.json``."""
        content = {**asdict(self), "versions": Provenance("").state_dict()["versions"]}
        write_atomically(folder / FILE, json.dumps(content, indent=1))

    def when_trained(self) -> ModelOrigin:
        """The same, with the training at its end."""
        return replace(self, trained=True)

    @classmethod
    def read(cls, folder: Path) -> ModelOrigin | None:
        """Read ``segment.json``, None where there is none.

        Raises:
            ValueError: where it is not one.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                method=str(content["method"]),
                examples=tuple(ExampleOrigin(item["name"], item["sha256"]) for item in content["examples"]),
                classes={int(number): str(name) for number, name in content["classes"].items()},
                minutes=content["minutes"],
                seed=int(content["seed"]),
                annotated_slices=content["annotated_slices"],
                seed_labels=content["seed_labels"],
                trained=bool(content["trained"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not tell what made the model ({type(error).__name__}: {error}): remove {folder} to make "
                "it anew, or name another output folder."
            ) from error

    def contradictions(self, wanted: ModelOrigin, minutes: float | None, seed: int | None) -> list[str]:
        """Tell in what another model is wanted than this one.

        Args:
            wanted: the model that is wanted.
            minutes: those that the caller names; None where any will do.
            seed: likewise.

        Returns:
            A line each, with both values.
        """
        pairs: list[tuple[str, Any, Any]] = [
            ("method", self.method, wanted.method),
            ("example", _listed(self.examples), _listed(wanted.examples)),
            ("classes", _named(self.classes), _named(wanted.classes)),
            ("annotated slices", self.annotated_slices or "all", wanted.annotated_slices or "all"),
            ("seed labels", self.seed_labels or "none", wanted.seed_labels or "none"),
        ]
        if minutes is not None:
            pairs.append(("minutes", self.minutes, minutes))
        if seed is not None:
            pairs.append(("seed", self.seed, seed))
        if sorted(item.sha256 for item in self.examples) == sorted(item.sha256 for item in wanted.examples):
            pairs = [pair for pair in pairs if pair[0] != "example"]
        return [f"{name}: the model has {there}, now it is {here}" for name, there, here in pairs if there != here]


def origin_of_example(scan: Scan) -> ExampleOrigin:
    """Hash the content of an annotated scan; what its files are called does not matter.

    Args:
        scan: with ``name``, ``image`` and ``label``.
    """
    digest = hashlib.sha256()
    for key in ("image", "label"):
        files = [Path(path) for path in ensure_tuple(scan[key])]
        inner = [file for path in files for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        digest.update(f"{key} {len(inner)}\n".encode())
        for file in inner:
            digest.update(hash_file(file).encode())
    return ExampleOrigin(scan["name"], digest.hexdigest())


def _listed(examples: Sequence[ExampleOrigin]) -> str:
    return ", ".join(map(str, examples))


def _named(classes: Mapping[int, str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in sorted(classes.items()))
