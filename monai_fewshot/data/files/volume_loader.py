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

    Axes of length 1 beyond the third are dropped. Several threads may load at once, formats that are read by ITK
    excepted: each call has readers of its own, as those of MONAI keep the name of the file they are at.
    """

    def __call__(self, path: PathLike) -> MetaTensor:
        """Load a file.

        Args:
            path: of NIfTI, NRRD, MetaImage or what else MONAI reads.

        Returns:
            (C, H, W, D), float32; (C, H, W) for a file of two axes.

        Raises:
            NiftiHeaderError: where a NIfTI file does not tell the distance of its voxels.
        """
        load = LoadImage(image_only=True, ensure_channel_first=True)
        volume = load(path, reader=ScanNiftiReader()) if is_nifti(path) else load(path)
        while volume.ndim > 4 and volume.shape[-1] == 1:
            volume = volume[..., 0]
        return volume
