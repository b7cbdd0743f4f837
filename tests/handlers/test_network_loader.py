# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from monai_fewshot.handlers import NetworkLoader


def test_weights_are_there_when_the_engine_runs(tmp_path):
    trained, network = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"model": trained.state_dict()}, tmp_path / "model.pt")
    seen = []
    engine = Engine(lambda *_: seen.append(network.weight.detach().clone()))
    NetworkLoader(network, tmp_path / "model.pt").attach(engine)
    assert not torch.equal(network.weight, trained.weight)
    engine.run([0])
    assert torch.equal(seen[0], trained.weight)


def test_weights_that_do_not_fit_stop_the_engine(tmp_path):
    torch.save({"model": nn.Linear(2, 3).state_dict()}, tmp_path / "model.pt")
    engine = Engine(lambda *_: None)
    NetworkLoader(nn.Linear(2, 2), tmp_path / "model.pt").attach(engine)
    with pytest.raises(ValueError, match=r"model\.pt is of another network"):
        engine.run([0])
