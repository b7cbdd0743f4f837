# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.networks import start_from
from monai_fewshot.networks.nets import PixelShuffleNetwork


def network(num_classes):
    return PixelShuffleNetwork(
        torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.Conv2d(6, 4 * (num_classes + 1), 1))
    )


def saved(path, model, classes):
    torch.save({"model": model.state_dict(), "settings": {"preparation": {"classes": classes}}}, path)
    return path


def test_the_same_classes_take_all_weights(tmp_path):
    before, after = network(2), network(2)
    file = saved(tmp_path / "model.pt", before, {1: "liver", 4: "spleen"})
    assert start_from(after, file, {1: "liver", 4: "spleen"}) is after
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(before(image), after(image))


def test_known_classes_give_the_same_logits_beside_a_new_one(tmp_path):
    before, after = network(2), network(3)
    file = saved(tmp_path / "model.pt", before, {1: "liver", 4: "spleen"})
    start_from(after, file, {1: "liver", 2: "cyst", 4: "spleen"})
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(after(image)[:, [0, 1, 3]], before(image))


def test_without_a_checkpoint_nothing_is_changed():
    one = network(1)
    weights = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    assert all(
        torch.equal(tensor, weights[name]) for name, tensor in start_from(one, None, {1: "a"}).state_dict().items()
    )


def test_networks_that_do_not_fit(tmp_path):
    file = saved(tmp_path / "model.pt", network(2), {1: "liver", 4: "spleen"})
    with pytest.raises(ValueError, match="knows classes that are not learned now: 4 spleen"):
        start_from(network(1), file, {1: "liver"})
    other = PixelShuffleNetwork(torch.nn.Conv2d(4, 16, 1))
    with pytest.raises(ValueError, match=r"is of another network: 6 tensors differ, such as network\.0\.bias"):
        start_from(other, file, {1: "liver", 2: "cyst", 4: "spleen"})
    torch.save({"model": {}}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="does not tell its classes"):
        start_from(network(1), tmp_path / "weights.pt", {1: "liver"})
