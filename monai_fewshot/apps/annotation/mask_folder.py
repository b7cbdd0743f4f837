# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from monai.config import PathLike

from monai_fewshot.apps.command.methods import serving_method
from monai_fewshot.apps.command.model_origin import ModelOrigin
from monai_fewshot.apps.command.scan_sources import list_scans
from monai_fewshot.apps.command.segment_steps import SegmentSteps
from monai_fewshot.apps.command.segmented_scans import changed_masks, problems_of_changed_scans, read_request
from monai_fewshot.apps.prepare.sources.hashing import hash_file
from monai_fewshot.data import Scan
from monai_fewshot.data.layouts.scan_files import is_picture

from .rounds import RefineRound, read_rounds

__all__ = ["MaskFolder", "same_image"]


def same_image(scan: Scan, path: PathLike) -> bool:
    """Tell whether a file, or the folder of a DICOM series, is the image of a scan, or a copy of it.

    Args:
        scan: with ``image``.
        path: the file or folder.
    """
    image = scan["image"]
    own, other = Path(image if isinstance(image, str) else Path(image[0]).parent), Path(path)
    if own.resolve() == other.resolve():
        return True
    are_files = own.is_file() and other.is_file() and own.stat().st_size == other.stat().st_size
    return are_files and hash_file(own) == hash_file(other)


@dataclass(frozen=True)
class MaskFolder:
    """A folder of masks that ``monai-fewshot segment`` has written.

    Attributes:
        steps: what is run of the method that made the masks.
        origin: what made the model.
    """

    steps: SegmentSteps
    origin: ModelOrigin

    @classmethod
    def open(cls, masks: PathLike, device: str | None = None) -> MaskFolder:
        """Read what is noted in a folder.

        Args:
            masks: the folder.
            device: to compute on; None for a GPU where there is one.

        Raises:
            FileNotFoundError: where it is not there, holds no model or does not tell where the scans are.
            ValueError: where its training was interrupted, or a note is damaged.
        """
        folder = Path(masks).expanduser().absolute()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is no folder: name the folder of masks, --output of monai-fewshot segment."
            )
        origin = ModelOrigin.read(folder / "model")
        if origin is None:
            raise FileNotFoundError(
                f"{folder} holds no model (model/segment.json): name the folder of masks, --output of monai-fewshot "
                "segment."
            )
        if not origin.trained:
            raise ValueError(
                f"The training of the model in {folder / 'model'} was interrupted: let monai-fewshot segment come to "
                "its end first."
            )
        request = read_request(folder / "model")
        steps = SegmentSteps(
            source=request["scans"],
            pairs=[(image, label) for image, label in request["examples"]],
            output=folder,
            method=serving_method(request["method"]),
            minutes=origin.minutes,
            class_names=request["class_names"],
            annotated_slices=origin.annotated_slices,
            seed_labels=origin.seed_labels,
            formats=request["formats"],
            device=device,
            seed=origin.seed,
            flag_below=request["flag_below"],
            probabilities=request["probabilities"],
        )
        return cls(steps, origin)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.steps.folder

    @cached_property
    def rounds(self) -> list[RefineRound]:
        """Earlier refinements, the first one first."""
        return read_rounds(self.path)

    @cached_property
    def scans(self) -> dict[str, Scan]:
        """The scans that have a mask, by name.

        Raises:
            FileNotFoundError: where the folder of the scans is not there any more.
            ValueError: where a scan has changed since it was segmented.
        """
        no_scans = [self.path, *(label for _, label in self.steps.pairs)]
        if not Path(self.steps.source).exists():
            raise FileNotFoundError(
                f"The scans of these masks are not in {self.steps.source} any more: put them back, or run the "
                "monai-fewshot segment of these masks with their new place."
            )
        found, _ = list_scans(self.steps.source, no_scans, is_picture(Path(self.steps.pairs[0][0])))
        masks = self.steps.files.masks()
        kept = [scan for scan in found if scan["name"] in masks]
        if changed := problems_of_changed_scans(self.steps.model_folder, kept, masks):
            lines = "\n".join(f"  {each.file}: {each.problem}. {each.remedy}" for each in changed)
            raise ValueError(f"Scans are not those that were segmented:\n{lines}")
        if not kept:
            raise ValueError(f"None of the scans in {self.steps.source} has a mask in {self.path}: segment them first.")
        return {scan["name"]: scan for scan in kept}

    @property
    def classes(self) -> dict[int, str]:
        """Name by number of all classes."""
        return dict(self.rounds[-1].classes if self.rounds else self.origin.classes)

    def mask(self, name: str) -> Path:
        """The mask of a scan, in the first of its formats."""
        return self.steps.files.masks()[name][0]

    def edited(self) -> dict[str, Path]:
        """Find the masks that somebody has changed in the folder itself, by name of the scan.

        Raises:
            ValueError: where two files of one scan were changed.
        """
        found = {}
        for name, files in self.steps.files.masks().items():
            changed = changed_masks(self.steps.model_folder, files)
            if len(changed) > 1:
                raise ValueError(f"{changed[0]} and {changed[1]} were both changed: keep the changes of one of them.")
            if changed and name in self.scans:
                found[name] = changed[0]
        return found
