# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

import fire

from .dataset import make_phantom_dataset

if __name__ == "__main__":
    fire.Fire(make_phantom_dataset)
