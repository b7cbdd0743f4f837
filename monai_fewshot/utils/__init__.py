# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .array_cache import ArrayCache, array_key
from .atomic_write import write_atomically
from .enums import EpisodeKeys
from .spatial import resize_slices

__all__ = ["ArrayCache", "EpisodeKeys", "array_key", "resize_slices", "write_atomically"]
