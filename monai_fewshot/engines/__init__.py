# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
from .prepare_batch import PrepareBatchEpisode

__all__ = ["PrepareBatchEpisode"]
