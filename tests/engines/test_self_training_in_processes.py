# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Self-training in two processes against one."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
EPOCH_LENGTH = 12
