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
from monai.utils import StrEnum

import monai_fewshot
from monai_fewshot.data import TaskPools
from monai_fewshot.meta import InnerLoop
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


class _Kind(StrEnum):
    NEAR = "near"


def _loaded(state):
    file = io.BytesIO()
    torch.save({"provenance": state}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["provenance"]


def test_names_of_an_enumeration_are_plain_text_that_checkpoints_hold():
    inner = InnerLoop(2, 0.1, "adam")
    settings = {"kind": _Kind.NEAR, "pools": [TaskPools.MIXED], "inner": vars(inner), "nested": {_Kind.NEAR: 1}}
    state = Provenance("abc", **settings).state_dict()
    plain = {"steps": 2, "lr": 0.1, "optimizer": "adam", "proximal": 0.0, "tolerance": 0.0}
    assert state["settings"] == {"kind": "near", "pools": ["mixed"], "inner": plain, "nested": {"near": 1}}
    assert type(inner.optimizer) is not str
    for text in (state["settings"]["kind"], state["settings"]["pools"][0], state["settings"]["inner"]["optimizer"]):
        assert type(text) is str
    assert all(type(key) is str for key in state["settings"]["nested"])
    assert _loaded(state) == state


def test_values_of_a_parsed_config():
    parser = ConfigParser(
        {"sizes": [64, 64], "p": {"_target_": "monai_fewshot.utils.Provenance", "data": "d", "sizes": "@sizes"}}
    )
    assert parser.get_parsed_content("p").state_dict()["settings"] == {"sizes": [64, 64]}
