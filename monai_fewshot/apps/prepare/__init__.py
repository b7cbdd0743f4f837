# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .cases import Case, Problem

__all__ = ["Case", "Problem"]
