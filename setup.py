# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["monai_fewshot*"]), "monai_fewshot.bundles"],
    package_dir={"monai_fewshot.bundles": "bundles"},
)
