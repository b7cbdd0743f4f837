# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Few-shot medical image segmentation for MONAI."""

__version__ = "0.1.0"
