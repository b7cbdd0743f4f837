# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .array_cache import ArrayCache, array_key
from .atomic_write import WriteError, atomic_path, write_atomically, write_errors
from .checkpoints import (
    checkpoint_to_resume,
    checkpoints_by_age,
    latest_checkpoint,
    load_network,
    load_whole,
    not_finite,
    read_checkpoint,
    save_checkpoint,
)
from .checksums import check_zip
from .definitions import build, define, definition_of
from .device_settings import check_device_settings, compiler_error
from .devices import device_tensor
from .enums import IGNORED, EpisodeKeys
from .error_texts import (
    did_you_mean,
    file_of,
    list_differences,
    list_values,
    reason_of,
    root_cause,
    same_reason_at_first,
    without_frames,
)
from .folder_lock import lock_folder, locked_file, unlock_folder
from .later_import import later_import
from .precision import autocast, default_dtype
from .processes import (
    agree_on_file,
    end_process_group,
    gather_in_all,
    gather_in_first,
    mean_over_processes,
    num_processes,
    process_device,
    process_rank,
    run_in_first,
    run_together,
    share_of_batch,
    start_process_group,
    sum_over_processes,
    whole_batch,
)
from .provenance import Provenance
from .random_state import RandomState
from .spatial import pixels_per_slice, resize_slices

__all__ = [
    "IGNORED",
    "ArrayCache",
    "EpisodeKeys",
    "Provenance",
    "RandomState",
    "WriteError",
    "agree_on_file",
    "array_key",
    "atomic_path",
    "autocast",
    "build",
    "check_device_settings",
    "check_zip",
    "checkpoint_to_resume",
    "checkpoints_by_age",
    "compiler_error",
    "default_dtype",
    "define",
    "definition_of",
    "device_tensor",
    "did_you_mean",
    "end_process_group",
    "file_of",
    "gather_in_all",
    "gather_in_first",
    "later_import",
    "latest_checkpoint",
    "list_differences",
    "list_values",
    "load_network",
    "load_whole",
    "lock_folder",
    "locked_file",
    "mean_over_processes",
    "not_finite",
    "num_processes",
    "pixels_per_slice",
    "process_device",
    "process_rank",
    "read_checkpoint",
    "reason_of",
    "resize_slices",
    "root_cause",
    "run_in_first",
    "run_together",
    "same_reason_at_first",
    "save_checkpoint",
    "share_of_batch",
    "start_process_group",
    "sum_over_processes",
    "unlock_folder",
    "whole_batch",
    "without_frames",
    "write_atomically",
    "write_errors",
]
