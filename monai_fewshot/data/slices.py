# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from monai.utils import convert_to_tensor
from tqdm import tqdm

from monai_fewshot.utils import resize_slices

from .exclusion import slices_with_classes

__all__ = ["SliceStack"]


class SliceStack(NamedTuple):
    """Slices of several volumes in three tensors, for episodes to be drawn from.

    Attributes:
        image: (S, C, H, W), float32.
        label: (S, 1, H, W), int32: pseudo-labels or labels.
        scan: (S,), the number of the scan that a slice is of.
    """

    image: torch.Tensor
    label: torch.Tensor
    scan: torch.Tensor

    @classmethod
    def from_scans(
        cls,
        scans: Iterable[Mapping[Hashable, torch.Tensor]],
        label_key: str = "pseudo_label",
        image_size: Sequence[int] | None = None,
        exclude_classes: Sequence[int] = (),
        device: torch.device | str = "cpu",
    ) -> SliceStack:
        """Cut volumes into slices along their last axis.

        Args:
            scans: dictionaries with ``image`` (C, H, W, D) and a label (1, H, W, D).
            label_key: key of the label.
            image_size: in-plane size to which slices are brought, images with antialiased bilinear interpolation and
                labels by the nearest neighbor; None keeps their own, which must then be the same for all.
            exclude_classes: numbers of tested classes; slices that hold any of them, by the scan's ``label``, are
                left out (the field's setting 2). Empty for setting 1.
            device: where the slices shall lie.

        Raises:
            ValueError: where no slice is left, or slices differ in channels or size.
        """
        images, labels, numbers = [], [], []
        for number, scan in enumerate(tqdm(scans, "reading scans", disable=None)):
            image, label = (
                convert_to_tensor(scan[key], track_meta=False).movedim(3, 0) for key in ("image", label_key)
            )
            if exclude_classes:
                keep = ~slices_with_classes(convert_to_tensor(scan["label"], track_meta=False), exclude_classes)
                image, label = image[keep], label[keep]
            if image_size is not None:
                image = resize_slices(image.float(), image_size)
                label = resize_slices(label, image_size, mode="nearest")
            images.append(image.float())
            labels.append(label.to(torch.int32))
            numbers.append(torch.full((len(image),), number))
        if not images or not sum(map(len, images)):
            raise ValueError("No training slice is left: there are no scans, or every slice is excluded.")
        shapes = sorted({tuple(image.shape[1:]) for image in images})
        if len(shapes) > 1:
            raise ValueError(
                f"Slices of the scans differ in channels or in-plane size: {', '.join(map(str, shapes))}. "
                "Give an image_size, and scans of equally many channels."
            )
        return cls(torch.cat(images).to(device), torch.cat(labels).to(device), torch.cat(numbers))
