# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .bundle_folders import bundle_folder, bundle_names
from .method import BundleMethod, LearnsFrom, WorksOn, read_method, read_methods

__all__ = [
    "BundleMethod",
    "LearnsFrom",
    "WorksOn",
    "bundle_folder",
    "bundle_names",
    "read_method",
    "read_methods",
]
