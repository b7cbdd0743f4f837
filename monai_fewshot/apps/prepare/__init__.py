# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .cases import Case, Problem
from .dataset_description import DatasetDescription
from .runner import prepare_dataset

__all__ = ["Case", "DatasetDescription", "Problem", "prepare_dataset"]
