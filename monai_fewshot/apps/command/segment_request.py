# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from monai.config import PathLike

from monai_fewshot.apps.bundles import BundleMethod
from monai_fewshot.apps.bundles.bundle_step import setting_names
from monai_fewshot.data import Scan
from monai_fewshot.data.layouts.scan_files import is_picture
from monai_fewshot.handlers import OutputFiles
from monai_fewshot.utils import check_device_settings

from .methods import check_extras
from .model_origin import ModelOrigin, origin_of_example
from .scan_sources import Example
from .survey import Survey

__all__ = ["DEFAULT_METHOD", "FLAG_BELOW", "SegmentRequest", "default_minutes"]

DEFAULT_METHOD = "self_training"
FLAG_BELOW = 0.7
MINUTES = {"cpu": 20.0, "cuda": 5.0}
SHORT_MINUTES = 2.0


def default_minutes(device: str | None = None) -> float:
    """Minutes of training where none are given."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    return MINUTES.get(kind, MINUTES["cpu"])


@dataclass(frozen=True)
class SegmentRequest:
    """What :func:`~monai_fewshot.apps.command.segment` is asked for, and whether it can be done."""

    source: PathLike
    pairs: Sequence[Example]
    output: PathLike
    method: BundleMethod
    minutes: float | None
    class_names: Sequence[str] | None
    annotated_slices: int | str | Sequence[int] | None
    seed_labels: PathLike | None
    formats: str | Sequence[str] | None
    device: str | None
    seed: int | None
    flag_below: float
    probabilities: bool

    @cached_property
    def folder(self) -> Path:
        """Folder of all that is written."""
        return Path(self.output).expanduser().absolute()

    @cached_property
    def model_folder(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @cached_property
    def pictures(self) -> bool:
        """Whether 2D pictures are segmented, as the example is one."""
        return bool(self.pairs) and is_picture(Path(self.pairs[0][0]))

    @cached_property
    def seeds(self) -> str | None:
        """Folder of the first labels."""
        return None if self.seed_labels is None else str(Path(self.seed_labels).expanduser().absolute())

    @cached_property
    def files(self) -> OutputFiles:
        """Masks, previews and, of scans, measurements."""
        formats = self.formats or ("png" if self.pictures else "nifti")
        return OutputFiles(
            self.folder,
            formats=formats,
            measurements=not self.pictures,
            previews=True,
            probabilities=self.probabilities,
            flag_below=self.flag_below,
        )

    @cached_property
    def known(self) -> set[str]:
        """Settings of all steps of the method."""
        steps = self.method.steps
        return {
            name
            for step in (*self.method.training, "inference")
            for name in setting_names(self.method.bundle, steps[step])
        }

    def check_settings(self) -> None:
        """Check what can be checked without reading a scan.

        Raises:
            ValueError: for a setting that the method does not take, or that is out of its range.
        """
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"--minutes is {self.minutes:g}: give more than 0.")
        if self.minutes is not None and "minutes" not in self.known:
            training = "its training has a length of its own" if self.method.training else "it trains nothing"
            raise ValueError(f"The method {self.method.name} takes no --minutes, {training}: leave --minutes out.")
        if self.annotated_slices is not None and "annotated_slices" not in self.known:
            raise ValueError(
                f"The method {self.method.name} takes no --annotated-slices, it needs all slices of the example: take "
                f"{DEFAULT_METHOD}, or annotate them all."
            )
        if self.seed_labels is not None and "seed_labels" not in self.known:
            raise ValueError(
                f"The method {self.method.name} takes no --seed-labels, it learns from no other masks than the "
                f"example's: take {DEFAULT_METHOD}."
            )
        if self.probabilities and "probabilities" not in self.known:
            raise ValueError(
                f"The method {self.method.name} gives scores and no probabilities: leave --probabilities out, or take "
                f"{DEFAULT_METHOD}."
            )
        if self.pictures and "channels" not in self.known:
            raise ValueError(f"The method {self.method.name} segments scans, no 2D pictures: take {DEFAULT_METHOD}.")
        if self.device is not None:
            check_device_settings(self.device)
        check_extras(self.method)
        source = Path(self.source).expanduser().absolute()
        if source.resolve() == self.folder.resolve():
            raise ValueError(
                f"{self.folder} holds the scans: name another --output, so that masks are not taken for scans."
            )

    def origin(self, examples: Sequence[Scan], survey: Survey, before: ModelOrigin | None) -> ModelOrigin:
        """Tell what makes the model; an existing one must have been made so.

        Raises:
            ValueError: where it was not, or masks are there without a model.
        """
        takes_minutes = "minutes" in self.known
        minutes = (self.minutes or default_minutes(self.device)) if takes_minutes else None
        made_of = tuple(origin_of_example(scan) for scan in examples)
        origin = ModelOrigin(
            self.method.name, made_of, survey.classes, minutes, self.seed or 0, self.annotated_slices, self.seeds
        )
        if before is None:
            if masks := self.files.masks():
                raise ValueError(
                    f"{self.folder} holds {len(masks)} mask(s), but no model that made them: name another --output, or "
                    "remove them."
                )
            return origin
        if contradictions := before.contradictions(origin, self.minutes, self.seed):
            lines = "\n".join(f"  {line}" for line in contradictions)
            raise ValueError(
                f"{self.model_folder} holds a model that does not fit:\n{lines}\n"
                "Name another --output for another model, or give what the model has, to use it. Or remove "
                f"{self.folder}, to make model and masks anew."
            )
        return before

    def time_warnings(self, origin: ModelOrigin) -> list[str]:
        """Say where a training is too short."""
        if origin.trained or origin.minutes is None or origin.minutes >= SHORT_MINUTES:
            return []
        default = default_minutes(self.device)
        return [f"{origin.minutes:g} minute(s) of training are too short to be of use; the default is {default:g}."]
