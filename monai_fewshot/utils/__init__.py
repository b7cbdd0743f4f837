# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .array_cache import ArrayCache, array_key
from .atomic_write import write_atomically
from .checkpoints import checkpoint_to_resume, latest_checkpoint, load_network, read_provenance
from .enums import EpisodeKeys
from .precision import autocast, default_dtype
from .processes import gather_or_raise, num_processes, process_rank, share_of_batch
from .provenance import Provenance
from .random_state import RandomState
from .spatial import pixels_per_slice, resize_slices

__all__ = [
    "ArrayCache",
    "EpisodeKeys",
    "Provenance",
    "RandomState",
    "array_key",
    "autocast",
    "checkpoint_to_resume",
    "default_dtype",
    "gather_or_raise",
    "latest_checkpoint",
    "load_network",
    "num_processes",
    "pixels_per_slice",
    "process_rank",
    "read_provenance",
    "resize_slices",
    "share_of_batch",
    "write_atomically",
]
