# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from monai_fewshot.apps.command.segment_request import default_minutes


def test_the_default_time_of_training_follows_the_device(monkeypatch):
    assert (default_minutes("cpu"), default_minutes("cuda:1")) == (20, 5)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert default_minutes() == 5
