# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils import ImageMetaKey, convert_to_tensor
from torch.utils.data import Dataset

from monai_fewshot.data.scans.scan_folder import Scan
from monai_fewshot.utils import EpisodeKeys

__all__ = ["ScanEpisodes"]


class ScanEpisodes(Dataset):
    """One episode a query scan, all with the same support scans, for a volume inferer.

    The support is loaded once, and the classes that it shows become 1, 2, ... in ascending order. Load with a batch
    size of 1 and ``collate_fn=list_data_collate`` (MONAI's default).

    Args:
        queries: scans to be segmented.
        supports: annotated scans, one or several.
        transform: loads and normalizes a scan; it must take scans with and without ``label``.

    Attributes:
        classes: numbers of the classes that the supports show, ascending, as their labels have them.

    Raises:
        ValueError: where there is no support, or one of the supports has no label.
    """

    def __init__(
        self, queries: Sequence[Scan], supports: Sequence[Scan], transform: Callable[[Scan], dict[str, Any]]
    ) -> None:
        unlabeled = [scan["name"] for scan in supports if EpisodeKeys.LABEL not in scan]
        if not supports or unlabeled:
            raise ValueError(
                f"A support needs an image and a label; without label: {', '.join(unlabeled)}."
                if unlabeled
                else "There is no support scan: name one annotated scan at least."
            )
        self.queries = queries
        self.transform = transform
        loaded = [transform(scan) for scan in supports]
        labels = [convert_to_tensor(scan[EpisodeKeys.LABEL], torch.float32, track_meta=False) for scan in loaded]
        shown = torch.cat([torch.zeros(1), *(label.unique() for label in labels)]).unique()
        self.classes = [int(value) for value in shown[1:]]
        self.support = {
            EpisodeKeys.SUPPORT_IMAGE: _stack([scan[EpisodeKeys.IMAGE] for scan in loaded]),
            EpisodeKeys.SUPPORT_LABEL: _stack([torch.searchsorted(shown, label).float() for label in labels]),
            EpisodeKeys.SUPPORT_AFFINE: torch.stack([_affine(scan[EpisodeKeys.IMAGE]) for scan in loaded]),
        }

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load a query scan.

        The image's meta-data name it after the scan, so that writers call their files so, a DICOM series included;
        they take off one suffix, which is why it has one.

        Returns:
            What ``transform`` makes of the scan, and ``support_image`` (K, C, H, W, D) with ``support_label``
            (K, 1, H, W, D), or lists of K tensors where the supports differ in size, and their ``support_affine``
            (K, 4, 4), from array indices to mm.
        """
        scan = self.transform(self.queries[index])
        image = scan[EpisodeKeys.IMAGE]
        if isinstance(image, MetaTensor):
            image.meta[ImageMetaKey.FILENAME_OR_OBJ] = f"{scan['name']}.nii.gz"
        return {**scan, **self.support}


def _stack(images: Sequence[MetaTensor]) -> torch.Tensor | list[torch.Tensor]:
    plain = [convert_to_tensor(image, track_meta=False) for image in images]
    return torch.stack(plain) if len({image.shape for image in plain}) == 1 else plain


def _affine(image: torch.Tensor) -> torch.Tensor:
    return image.affine.double() if isinstance(image, MetaTensor) else torch.eye(4, dtype=torch.float64)
