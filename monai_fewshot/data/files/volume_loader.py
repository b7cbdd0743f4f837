# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from monai.config import PathLike
from monai.data import MetaTensor
from monai.transforms import LoadImage

from .nifti_files import ScanNiftiReader, is_nifti

__all__ = ["VolumeLoader"]


class VolumeLoader:
    """Loads a file of a volume in millimeters, as ``monai.transforms.LoadImage`` does.

    Axes of length 1 beyond the third are dropped. It is not for use in several threads at once, as MONAI's readers keep
    the name of the file they are at.
    """

    def __init__(self) -> None:
        self.load = LoadImage(image_only=True, ensure_channel_first=True)

    def __call__(self, path: PathLike) -> MetaTensor:
        """Load a file.

        Args:
            path: of NIfTI, NRRD, MetaImage or what else MONAI reads.

        Returns:
            (C, H, W, D), float32; (C, H, W) for a file of two axes.

        Raises:
            NiftiHeaderError: where a NIfTI file does not tell the distance of its voxels.
        """
        volume = self.load(path, reader=ScanNiftiReader()) if is_nifti(path) else self.load(path)
        while volume.ndim > 4 and volume.shape[-1] == 1:
            volume = volume[..., 0]
        return volume
