# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .atomic_write import write_atomically
from .enums import EpisodeKeys
from .spatial import resize_slices

__all__ = ["EpisodeKeys", "resize_slices", "write_atomically"]
