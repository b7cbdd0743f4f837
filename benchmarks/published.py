# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Published Dice in percent: one shot, five folds, tested in range, by data set, setting and class."""

from __future__ import annotations

METHODS = {
    "SSL-ALPNet": "Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886",
    "best": "the best published, with large pretrained models",
}
PUBLISHED: dict[tuple[str, int], dict[str, dict[str, float]]] = {
    ("mscmr_bssfp", 1): {
        "SSL-ALPNet": {"LV blood pool": 83.99, "LV myocardium": 66.74, "right ventricle": 79.96, "mean": 76.90},
        "best": {"mean": 79.98},
    },
    ("chaos_t2", 1): {
        "SSL-ALPNet": {
            "left kidney": 81.92,
            "right kidney": 85.18,
            "spleen": 72.18,
            "liver": 76.10,
            "mean": 78.84,
        },
        "best": {"mean": 85.96},
    },
    ("chaos_t2", 2): {
        "SSL-ALPNet": {
            "left kidney": 73.63,
            "right kidney": 78.39,
            "spleen": 67.02,
            "liver": 73.05,
            "mean": 73.02,
        },
        "best": {"mean": 81.83},
    },
}
