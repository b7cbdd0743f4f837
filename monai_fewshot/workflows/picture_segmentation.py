# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from monai.config import PathLike
from monai.inferers import Inferer
from monai.transforms import (
    Compose,
    SaveImaged,
)
from monai.utils import CommonKeys

from monai_fewshot.data import (
    ImageMaskWriter,
    check_images,
    load_image_set,
    pending_scans,
    support_images,
    without_labels,
)

from .segmentation import Segmentation, check_support_files
from .trained_model import TrainedModel

__all__ = ["PictureSegmentation"]


class PictureSegmentation(Segmentation):
    """Segments every 2D picture of a folder, using annotated pictures as the example, and writes masks as PNG files.

    Args:
        dataset_dir: the pictures, see :func:`monai_fewshot.data.load_image_set`.
        model: the network, and how pictures are prepared for it.
        inferer: makes the inferer, given ``num_classes``.
        output_dir: where masks are written.
        support_image: the annotated picture, or several.
        support_label: their masks.
        layout: of ``dataset_dir``.
        binary_masks: whether all that is not 0 in a mask is one class; else masks hold class numbers.
        mask_threshold: gray level above which a pixel of a binary mask is foreground.
        postfix: what follows the picture's name in the name of its mask.
        overwrite: whether to segment pictures anew that have a mask.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, for the check of the device.
    """

    def __init__(
        self,
        dataset_dir: PathLike,
        model: TrainedModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        support_image: PathLike | Sequence[PathLike],
        support_label: PathLike | Sequence[PathLike],
        layout: str = "auto",
        binary_masks: bool = True,
        mask_threshold: int | None = None,
        postfix: str = "seg",
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dataset_dir, model, inferer, output_dir, overwrite, keep_largest, dtype)
        self.support = (support_image, support_label, binary_masks, mask_threshold)
        self.layout = layout
        self.postfix = postfix

    @cached_property
    def supports(self) -> list[dict[str, Any]]:
        """The annotated pictures."""
        check_support_files(*self.support[:2])
        return support_images(*self.support)

    @cached_property
    def pending(self) -> list[dict[str, Any]]:
        """The pictures that have no mask yet."""
        images = without_labels(load_image_set(self.dataset_dir, self.layout).images)
        return pending_scans(images, self.output_dir, self.postfix, self.overwrite, ".png")

    @cached_property
    def transform(self) -> Compose:
        """Reads and prepares a picture."""
        return self.model.preparation.transform()

    def writing(self) -> list[Callable[[Any], Any]]:
        """Write a mask."""
        return [
            SaveImaged(
                CommonKeys.PRED,
                output_dir=self.output_dir,
                output_postfix=self.postfix,
                output_ext=".png",
                output_dtype=np.uint8,
                writer=partial(ImageMaskWriter, highest=max(self.classes)),
                separate_folder=False,
                resample=False,
            )
        ]

    def check(self) -> None:
        """Check the device, the checkpoint, the output folder and all files, before anything is segmented.

        Raises:
            ValueError: where a setting or a file does not do; all problems of files are listed.
        """
        super().check()
        check_images([*self.supports, *self.pending], self.model.preparation.channels)
