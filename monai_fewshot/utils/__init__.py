# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .enums import EpisodeKeys

__all__ = ["EpisodeKeys"]
