# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_fewshot.data import Scan, load_scans

from .mask_folder import MaskFolder, same_image
from .rounds import Correction

__all__ = ["RoundExamples"]


class RoundExamples:
    """What a refined network learns from: the first examples, and the scans whose masks were corrected.

    Where the scan of a first example was corrected itself, its correction takes the place of the example.

    Args:
        masks: the folder of masks.
        corrections: the last correction of each scan, by its name; for the names of the images alone, None will do.
    """

    def __init__(self, masks: MaskFolder, corrections: Mapping[str, Correction | None]) -> None:
        self.masks = masks
        self.corrections = corrections

    @cached_property
    def first(self) -> list[int]:
        """Places of the first examples that are not corrected."""
        taken = [self.masks.scans[name] for name in self.corrections]
        pairs = self.masks.steps.pairs
        return [place for place, (image, _) in enumerate(pairs) if not any(same_image(scan, image) for scan in taken)]

    @cached_property
    def images(self) -> list[str]:
        """Image of each example."""
        first = [str(self.masks.steps.pairs[place][0]) for place in self.first]
        return first + [_image_path(self.masks.scans[name]) for name in self.corrections]

    def check(self) -> None:
        """Check that the files of all examples are there.

        Raises:
            FileNotFoundError: where an example has gone.
            ValueError: where the DICOM files of a corrected scan do not lie in a folder of their own.
        """
        for path in [*self.images, *(str(self.masks.steps.pairs[place][1]) for place in self.first)]:
            if not Path(path).exists():
                raise FileNotFoundError(
                    f"{path}, from which the network has learned, is gone: put it back, or run the monai-fewshot "
                    "segment of these masks with its new place."
                )

    def settings(self) -> dict[str, Any]:
        """Settings of a training: the examples, and which of their slices are annotated."""
        corrections = [correction for correction in self.corrections.values() if correction is not None]
        labels = [str(self.masks.steps.pairs[place][1]) for place in self.first]
        parts = _parts(self.masks.origin.annotated_slices, len(self.masks.steps.pairs))
        slices = [parts[place] for place in self.first]
        slices += [None if each.slices is None else list(each.slices) for each in corrections]
        return {
            "support_image": self.images,
            "support_label": labels + [str(each.label) for each in corrections],
            "annotated_slices": None if all(part is None for part in slices) else slices,
        }


def _parts(chosen: Any, number: int) -> list[Any]:
    """Which slices are annotated, for each of the first examples."""
    if not isinstance(chosen, Sequence) or isinstance(chosen, str):
        return [chosen] * number
    is_nested = any(part is None or isinstance(part, Sequence) for part in chosen)
    return list(chosen) if is_nested else [list(chosen)]


def _image_path(scan: Scan) -> str:
    """File of a scan, or the folder of a DICOM series, which must then hold no other."""
    image = scan["image"]
    if isinstance(image, str):
        return image
    folders = {Path(file).parent for file in image}
    if len(folders) > 1 or len(load_scans(next(iter(folders)))) > 1:
        raise ValueError(
            f"The DICOM series {scan['name']} shares its folder with others, or lies in several: a corrected series "
            "needs a folder of its own. Convert it to NIfTI, or copy it into one, and segment that folder."
        )
    return str(next(iter(folders)))
