# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import sys

import fire

from .dataset import make_phantom_dataset
from .study import make_phantom_studies

if __name__ == "__main__":
    if sys.argv[1:2] == ["studies"]:
        fire.Fire(make_phantom_studies, sys.argv[2:], "monai_fewshot.apps.phantom studies")
    else:
        fire.Fire(make_phantom_dataset)
