# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Settings of the device are checked by every configuration that runs, before anything else."""

from __future__ import annotations

import re

import pytest
from image_bundles import refusal


@pytest.mark.parametrize(
    ("names", "setting", "reason"),
    [
        (("train",), {"dtype": "float16"}, "--dtype float16 .* Use float32 or bfloat16"),
        (("train",), {"channels_last": "yes"}, "--channels_last is 'yes'"),
        (("train",), {"compile": "yes"}, "--compile is 'yes'"),
        (("train",), {"device": "gpu0"}, "--device is 'gpu0', which is not here. Devices that would work: cpu"),
        (("evaluate",), {"dtype": "double"}, "--dtype double does not work on cpu"),
        (("inference",), {"device": "cuda:99"}, "--device is 'cuda:99'"),
    ],
)
@pytest.mark.parametrize("bundle", ["ssl_alpnet", "supervised"])
@pytest.mark.default_dtype
def test_before_data_are_read(bundle, names, setting, reason, tmp_path):
    """The folder of the data does not exist, which is not what the error says."""
    message = refusal(bundle, *names, dataset_dir=str(tmp_path / "nothing"), **setting)
    assert re.search(reason, message), message
