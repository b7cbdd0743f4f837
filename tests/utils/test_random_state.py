# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: NPY002

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import torch

from monai_fewshot.utils import RandomState


@pytest.fixture(autouse=True)
def _keep_generators():
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def _draw():
    return (
        [random.random() for _ in range(3)],
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.randn(1).tolist(),
        torch.rand(3).tolist(),
    )


def test_draws_go_on_where_they_were_saved():
    state = RandomState()
    random.gauss(0, 1), np.random.randn(1)  # leaves a second Gaussian number in each generator
    saved = state.state_dict()
    first = _draw()
    second = _draw()
    assert first != second
    state.load_state_dict(saved)
    assert (_draw(), _draw()) == (first, second)


def test_state_survives_a_file_without_pickled_code():
    file = io.BytesIO()
    torch.save(RandomState().state_dict(), file)
    expected = _draw()
    file.seek(0)
    RandomState().load_state_dict(torch.load(file, weights_only=True))
    assert _draw() == expected


def test_a_state_of_other_gpus_is_passed_over():
    saved = RandomState().state_dict()
    expected = _draw()
    RandomState().load_state_dict({**saved, "cuda": [torch.get_rng_state()] * (torch.cuda.device_count() + 1)})
    assert _draw() == expected
