# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import platform
from datetime import datetime, timezone
from pathlib import Path

import monai
import numpy as np
import torch
from monai.bundle import ConfigParser

import monai_fewshot
from monai_fewshot.utils import Provenance


def test_says_what_made_a_result():
    before = datetime.now(timezone.utc).replace(microsecond=0)
    state = Provenance("abc123", seed=3, fold=None, lr=0.001).state_dict()
    assert state["data"] == "abc123"
    assert state["settings"] == {"seed": 3, "fold": None, "lr": 0.001}
    assert before <= datetime.fromisoformat(state["started"]) <= datetime.now(timezone.utc)
    assert state["versions"] == {
        "monai_fewshot": monai_fewshot.__version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def test_holds_in_json_and_in_checkpoints():
    settings = {
        "size": (128, 128),
        "path": Path("/x"),
        "nested": {1: [torch.device("cpu"), None, True]},
        "dtype": np.uint8,
    }
    state = Provenance("abc", **settings).state_dict()
    plain = {"size": [128, 128], "path": "/x", "nested": {"1": ["cpu", None, True]}, "dtype": str(np.uint8)}
    assert state["settings"] == plain
    assert json.loads(json.dumps(state)) == state
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == state


def test_values_of_a_parsed_config():
    parser = ConfigParser(
        {"sizes": [64, 64], "p": {"_target_": "monai_fewshot.utils.Provenance", "data": "d", "sizes": "@sizes"}}
    )
    assert parser.get_parsed_content("p").state_dict()["settings"] == {"sizes": [64, 64]}
