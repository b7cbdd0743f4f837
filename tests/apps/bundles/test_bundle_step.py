# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from monai_fewshot.apps.bundles.bundle_step import Step


@pytest.mark.parametrize(
    "value",
    [
        Path("/data/study #1"),
        Path("/data/plain, {a} @home"),
        ["/data/it's #1 @ home", "/data/b"],
        "nifti",
        None,
        20.5,
        True,
        [1, 2],
    ],
)
def test_words_mean_the_value(value):
    *_, word = Step("ssl_alpnet", ("train",), {"name": value}).words()
    read = ConfigParser({"name": DefaultParseValue(word)}).get_parsed_content("name")
    assert read == (str(value) if isinstance(value, Path) else value)
