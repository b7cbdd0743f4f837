# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.utils import file_of, list_values, root_cause


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_each_value_is_listed_once_in_order(kind):
    assert list_values(kind([7.0, 0.0, 0.5, 7.0])) == "0, 0.5, 7"


def test_of_many_values_ten_are_listed_and_all_are_counted():
    assert list_values(np.arange(10).reshape(2, 5)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert list_values(np.arange(11).repeat(3)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (11 values)"


def _chain(*errors):
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors


def test_the_root_cause_is_the_first_error_raised():
    outer, middle, root = _chain(RuntimeError("in a transform"), ValueError("bad scan"), OSError("no such file"))
    assert root_cause(outer) is root
    assert root_cause(root) is root
    assert root_cause(outer, ValueError) is middle
    assert root_cause(outer, (KeyError, OSError)) is root


def test_an_image_is_called_by_its_file():
    image = torch.zeros(1, 2, 2)
    assert file_of(MetaTensor(image, meta={"filename_or_obj": "scans/a.nii.gz"}), "image") == "scans/a.nii.gz"
    assert file_of(MetaTensor(image), "image") == file_of(image, "image") == "image"
