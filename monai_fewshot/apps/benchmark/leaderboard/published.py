# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

__all__ = ["PUBLISHED", "SOURCES"]

SOURCES = {
    "SE-Net": "Roy et al., Medical Image Analysis 2020, https://arxiv.org/abs/1902.01314",
    "PANet": "Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391",
    "ALPNet, annotated training": "Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886",
    "SSL-PANet": "Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886",
    "SSL-ALPNet": "Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886",
    "ADNet": "Hansen et al., Medical Image Analysis 2022, https://arxiv.org/abs/2203.02048",
    "Q-Net": "Shen et al., IntelliSys 2023, https://arxiv.org/abs/2208.11451",
    "RPT": "Zhu et al., MICCAI 2023, https://arxiv.org/abs/2309.04825",
    "best": "the best published, with large pretrained models",
}
"""Papers of the methods. Figures of SE-Net, PANet and ALPNet on these data sets were published with SSL-ALPNet."""

PUBLISHED: dict[tuple[str, int], dict[str, dict[str, float]]] = {
    ("mscmr_bssfp", 1): {
        "SE-Net": {"mean": 32.03},
        "PANet": {"mean": 42.96},
        "ALPNet, annotated training": {"mean": 60.34},
        "SSL-PANet": {"mean": 62.25},
        "SSL-ALPNet": {"LV blood pool": 83.99, "LV myocardium": 66.74, "right ventricle": 79.96, "mean": 76.90},
        "ADNet": {"mean": 75.76},
        "Q-Net": {"mean": 78.15},
        "RPT": {"mean": 79.19},
        "best": {"mean": 79.98},
    },
    ("chaos_t2", 1): {
        "SE-Net": {"mean": 42.51},
        "PANet": {"mean": 38.53},
        "ALPNet, annotated training": {"mean": 51.28},
        "SSL-PANet": {"mean": 63.17},
        "SSL-ALPNet": {
            "left kidney": 81.92,
            "right kidney": 85.18,
            "spleen": 72.18,
            "liver": 76.10,
            "mean": 78.84,
        },
        "ADNet": {"mean": 78.51},
        "Q-Net": {"mean": 81.02},
        "RPT": {"mean": 82.44},
        "best": {"mean": 85.96},
    },
    ("chaos_t2", 2): {
        "SE-Net": {"mean": 50.66},
        "PANet": {"mean": 46.33},
        "ALPNet, annotated training": {"mean": 50.43},
        "SSL-PANet": {"mean": 54.85},
        "SSL-ALPNet": {
            "left kidney": 73.63,
            "right kidney": 78.39,
            "spleen": 67.02,
            "liver": 73.05,
            "mean": 73.02,
        },
        "ADNet": {"mean": 63.20},
        "Q-Net": {"mean": 68.59},
        "RPT": {"mean": 79.04},
        "best": {"mean": 81.83},
    },
    ("sabs", 1): {
        "SE-Net": {"mean": 29.00},
        "PANet": {"mean": 31.86},
        "ALPNet, annotated training": {"mean": 41.63},
        "SSL-PANet": {"mean": 57.88},
        "SSL-ALPNet": {"mean": 73.35},
        "ADNet": {"mean": 72.97},
        "Q-Net": {"mean": 75.5},
        "RPT": {"mean": 77.83},
        "best": {"mean": 86.21},
    },
    ("sabs", 2): {
        "SE-Net": {"mean": 11.91},
        "PANet": {"mean": 29.43},
        "ALPNet, annotated training": {"mean": 35.11},
        "SSL-PANet": {"mean": 44.42},
        "SSL-ALPNet": {"mean": 63.02},
        "Q-Net": {"mean": 64.2},
        "RPT": {"mean": 71.69},
        "best": {"mean": 84.80},
    },
}
"""Published Dice in percent: one shot, five folds, tested in range, by data set, setting, method and class."""
