# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine

from monai_fewshot.handlers import FiniteLoss


def _run(losses):
    trainer = Engine(lambda _engine, loss: {"loss": torch.tensor(loss)})
    FiniteLoss().attach(trainer)
    trainer.run(losses)


def test_some_losses_that_are_not_finite_pass():
    _run(([math.nan] * 10 + [1.0]) * 3)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([1.0] * 5 + [math.inf] * 30, "losses of 15 steps in a row, from step 6 on, .*Take a lower learning rate"),
        ([math.nan] * 25, "losses of 20 steps in a row, from step 1 on, .*extreme values in the images"),
    ],
)
def test_many_in_a_row_stop_the_training_with_a_diagnosis(losses, message):
    with pytest.raises(RuntimeError, match=message):
        _run(losses)
