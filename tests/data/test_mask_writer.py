# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from monai_fewshot.data import MaskWriter

AFFINE = torch.tensor([[-1.4, 0.1, 0, 4], [0.1, 1.6, 0, -3], [0, 0, 7.5, 2], [0, 0, 0, 1]], dtype=torch.float64)


@pytest.mark.parametrize("size", [(5, 4, 3), (5, 4, 1), (5, 1, 1), (1, 4, 3)])
@pytest.mark.parametrize("with_channel", [False, True])
def test_no_axis_is_lost(tmp_path, size, with_channel):
    values = torch.arange(np.prod(size), dtype=torch.uint8).reshape(size)
    mask = MetaTensor(values[None] if with_channel else values, affine=AFFINE, meta={"filename_or_obj": "scan.nii.gz"})
    save = SaveImage(
        tmp_path,
        "seg",
        output_dtype=np.uint8,
        separate_folder=False,
        resample=False,
        writer=MaskWriter,
        channel_dim=0 if with_channel else None,
        print_log=False,
    )
    save(mask)
    written = nibabel.load(tmp_path / "scan_seg.nii.gz")
    assert written.shape == size
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.dataobj, values)
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-6)
