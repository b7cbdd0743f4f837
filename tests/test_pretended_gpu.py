# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Training steps and inference on a pretended GPU: no tensor is on the wrong device, and nothing waits for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "helpers" / "pretended_gpu.py"
CASES = (
    *("ALPNet", "PANet", "ADNet", "SE-Net", "MaskSplit", "surrogate task", "ELSNet", "meta-learning"),
    *("a query volume", "a mistake: a tensor on the host", "a mistake: a list as an index"),
)


@pytest.fixture(scope="module")
def outcome():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_case_was_run(outcome):
    assert tuple(outcome) == CASES


@pytest.mark.parametrize("case", [case for case in CASES if "mistake" not in case])
def test_nothing_waits_for_the_device(outcome, case):
    assert outcome[case] == {"waits": [], "error": None}


def test_mistakes_are_found(outcome):
    elsewhere, listed = (outcome[case] for case in CASES if "mistake" in case)
    assert "two devices, gpu:0 and cpu" in elsewhere["error"]
    assert listed == {"waits": ["a copy to gpu (the test)"], "error": None}
