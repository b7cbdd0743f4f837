# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import sys

from monai_fewshot.apps.fire_calls import fire_calls

from .dataset import make_phantom_dataset
from .study import make_phantom_studies

if __name__ == "__main__":
    name, words = "monai_fewshot.apps.phantom", sys.argv[1:]
    studies = words[:1] == ["studies"]
    maker = make_phantom_studies if studies else make_phantom_dataset
    (call,) = fire_calls(maker, words[studies:], name + " studies" * studies)
    print(call())
