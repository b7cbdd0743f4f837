# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from monai.config import NdarrayOrTensor
from monai.data import NibabelWriter

__all__ = ["MaskWriter"]


class MaskWriter(NibabelWriter):
    """Writes a volume of one channel as a NIfTI file of three axes, for ``SaveImage(writer=MaskWriter)``.

    MONAI's writer drops trailing axes of length 1, so that the mask of a single slice would lie on another grid than
    its scan.
    """

    data_obj: Any

    def set_data_array(
        self,
        data_array: NdarrayOrTensor,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take the voxels.

        Args:
            data_array: (1, H, W, D), or (H, W, D) without a ``channel_dim``.
            channel_dim: axis of the channel.
            squeeze_end_dims: of no effect, no axis is dropped but that of the channel.
            kwargs: see ``monai.data.NibabelWriter``.
        """
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        self.data_obj = self.data_obj[..., 0]
