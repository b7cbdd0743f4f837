# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from monai_fewshot.utils import write_atomically

__all__ = ["Correction", "RefineRound", "corrected_scans", "latest_corrections", "read_rounds"]

FOLDER, FILE = "rounds", "round.json"


@dataclass(frozen=True)
class Correction:
    """A mask that a person has corrected.

    Attributes:
        scan: name of the scan.
        sha256: of the content of the person's file.
        file: the copy of that file.
        label: the mask with the class numbers of the model, on the grid of the scan.
        slices: numbers of the slices that count as annotated, from 0, along the axis that the network cuts scans along;
            None for all.
    """

    scan: str
    sha256: str
    file: Path
    label: Path
    slices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RefineRound:
    """One refinement of a folder of masks; ``rounds/N/round.json`` in it holds this.

    Attributes:
        folder: of the round: its network, ``before`` with masks and network as they were, ``corrected``, ``labels``.
        corrections: new in this round.
        classes: name by number of all classes from this round on.
        touched_only: whether only touched slices count as annotated.
        minutes: of the training.
        is_trained: whether the training has come to its end.
        is_done: whether all masks are made anew.
    """

    folder: Path
    corrections: tuple[Correction, ...]
    classes: Mapping[int, str]
    touched_only: bool
    minutes: float
    is_trained: bool = False
    is_done: bool = False

    @property
    def number(self) -> int:
        """Number of the round, from 1."""
        return int(self.folder.name)

    @property
    def before(self) -> Path:
        """Folder of the masks and the network before the round."""
        return self.folder / "before"

    @property
    def model(self) -> Path:
        """The network that the round has trained."""
        return self.folder / "model.pt"

    def write(self) -> RefineRound:
        """Write ``round.json``; paths in it are relative to its folder."""
        content = asdict(self)
        del content["folder"]
        for correction in content["corrections"]:
            for key in ("file", "label"):
                correction[key] = correction[key].relative_to(self.folder).as_posix()
        write_atomically(self.folder / FILE, json.dumps(content, indent=1))
        return self

    def changed(self, **changes: bool) -> RefineRound:
        """Write the round with ``is_trained`` or ``is_done`` changed."""
        return replace(self, **changes).write()  # type: ignore[arg-type]

    @classmethod
    def read(cls, folder: Path) -> RefineRound:
        """Read ``round.json``.

        Raises:
            ValueError: where it is damaged.
        """
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            corrections = tuple(
                Correction(
                    scan=item["scan"],
                    sha256=item["sha256"],
                    file=folder / item["file"],
                    label=folder / item["label"],
                    slices=None if item["slices"] is None else tuple(item["slices"]),
                )
                for item in content.pop("corrections")
            )
            classes = {int(number): str(name) for number, name in content.pop("classes").items()}
            return cls(folder=folder, corrections=corrections, classes=classes, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{folder / FILE} is damaged ({type(error).__name__}: {error}). Restore it from a copy; the corrected "
                f"masks of the round are in {folder / 'corrected'}."
            ) from error


def rounds_folder(output: Path) -> Path:
    """Folder of all rounds of a folder of masks."""
    return output / FOLDER


def read_rounds(output: Path) -> list[RefineRound]:
    """Read the rounds of a folder of masks, the first one first; one that was interrupted before it began is none.

    Args:
        output: the folder of masks.

    Raises:
        ValueError: where one is damaged.
    """
    folders = [file.parent for file in rounds_folder(output).glob(f"*/{FILE}") if file.parent.name.isdecimal()]
    return [RefineRound.read(folder) for folder in sorted(folders, key=lambda folder: int(folder.name))]


def latest_corrections(rounds: Sequence[RefineRound]) -> dict[str, Correction]:
    """The last correction of each scan, by its name."""
    return {correction.scan: correction for each in rounds for correction in each.corrections}


def corrected_scans(output: Path) -> set[str]:
    """Names of the scans of a folder of masks whose mask a person has corrected."""
    return set(latest_corrections(read_rounds(output)))
