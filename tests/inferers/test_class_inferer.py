# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.inferers import ClassVolumeInferer, FewShotVolumeInferer, RegistrationInferer, margin_spread


def network(classes=3):
    torch.manual_seed(1)
    return torch.nn.Conv2d(2, classes + 1, 3, padding=1)


@pytest.fixture
def volume():
    torch.manual_seed(0)
    return torch.rand(2, 2, 12, 10, 5)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_a_class_is_where_its_logit_is_the_highest(volume, batch_size):
    margins = ClassVolumeInferer("whole_volume", 3, batch_size=batch_size)(volume, network())
    assert margins.shape == (2, 4, 12, 10, 5)
    assert (margins[:, 0] == 0).all()
    for scan in range(2):
        for place in range(5):
            logits = network()(volume[scan, ..., place][None])[0]
            for c in (1, 2, 3):
                others = torch.stack([logits[k] for k in range(4) if k != c]).amax(0)
                torch.testing.assert_close(margins[scan, c, ..., place], logits[c] - others)
            winner = logits.argmax(0)
            assert torch.equal(margins[scan, ..., place].argmax(0), winner)


def test_slices_are_brought_to_the_networks_size_and_back(volume):
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, image):
            seen.append(tuple(image.shape))
            return network()(image)

    margins = ClassVolumeInferer("whole_volume", 3, image_size=[24, 20], batch_size=3)(volume, Watched())
    assert seen == [(3, 2, 24, 20), (2, 2, 24, 20)] * 2
    assert margins.shape == (2, 4, 12, 10, 5)


def test_a_support_is_accepted_and_every_protocol_gets_the_same(volume):
    inferer = ClassVolumeInferer(["alpnet", "whole_volume"], 3)
    found = inferer(volume, network(), torch.rand(1), None, torch.zeros(2, 1, 12, 10, 5), None)
    assert list(found) == ["alpnet", "whole_volume"]
    alone = ClassVolumeInferer("whole_volume", 3)(volume, network())
    assert all(torch.equal(margins, alone) for margins in found.values())


def test_the_affine_of_the_volume_is_kept(volume):
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    margins = ClassVolumeInferer("whole_volume", 3)(MetaTensor(volume, affine=affine), network())
    assert torch.equal(margins.affine, affine)


def test_bad_input_is_refused(volume):
    with pytest.raises(ValueError, match="num_classes and batch_size must be 1 or more, got 0 and 16"):
        ClassVolumeInferer("whole_volume", 0)
    with pytest.raises(ValueError, match="The network gave 4 channels, not 3: background and 2 classes"):
        ClassVolumeInferer("whole_volume", 2)(volume, network())
    volume[0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="inputs"):
        ClassVolumeInferer("whole_volume", 3)(volume, network())


def test_neighboring_slices_are_mixed_in(volume):
    inferer = ClassVolumeInferer("whole_volume", 3, batch_size=2, neighbor_weight=0.2)
    margins = inferer(volume[:1], network())[0]
    probabilities = network()(volume[0].movedim(3, 0)).softmax(1)
    for place in range(5):
        mean = probabilities[place]
        if 0 < place < 4:
            mean = 0.6 * mean + 0.2 * (probabilities[place - 1] + probabilities[place + 1])
        for c in (1, 2, 3):
            others = torch.stack([mean[k] for k in range(4) if k != c]).amax(0)
            torch.testing.assert_close(margins[c, ..., place], mean[c].log() - others.log(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [-0.1, 0.5])
def test_the_share_of_neighbors_is_checked(weight):
    with pytest.raises(ValueError, match=rf"neighbor_weight is {weight}, must lie from 0 to below 0\.5"):
        ClassVolumeInferer("whole_volume", neighbor_weight=weight)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("neighbor_weight", [0.0, 0.2])
def test_margins_are_log_odds_and_their_spread_is_the_share_of_the_runner_up(volume, classes, neighbor_weight):
    inferer = ClassVolumeInferer("whole_volume", classes, batch_size=2, neighbor_weight=neighbor_weight)
    margins = inferer(volume[:1], network(classes))[0]
    probabilities = network(classes)(volume[0].movedim(3, 0)).softmax(1).detach()
    inner = probabilities[1:-1] + neighbor_weight * (probabilities[:-2] + probabilities[2:] - 2 * probabilities[1:-1])
    ranked = torch.cat([probabilities[:1], inner, probabilities[-1:]]).movedim(0, 3)
    for c in range(1, classes + 1):
        rival = ranked[[k for k in range(classes + 1) if k != c]].amax(0)
        torch.testing.assert_close(margins[c].sigmoid(), ranked[c] / (ranked[c] + rival), rtol=1e-4, atol=1e-5)
    *_, second, first = ranked.sort(0).values
    spread = margin_spread(margins)
    torch.testing.assert_close(spread[0], second / (first + second), rtol=1e-4, atol=1e-5)
    assert len(ranked.argmax(0).unique()) == classes + 1, "every class is somewhere the first"


def test_only_networks_that_know_their_classes_give_log_odds():
    given = {inferer: inferer.log_odds for inferer in (ClassVolumeInferer, FewShotVolumeInferer, RegistrationInferer)}
    assert given == {ClassVolumeInferer: True, FewShotVolumeInferer: False, RegistrationInferer: False}
