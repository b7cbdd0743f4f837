# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools
import logging

import pytest
import torch
from monai.networks.nets import BasicUNet

from monai_fewshot.data import ExemplarSamples, SliceStack
from monai_fewshot.engines import ExemplarTraining, PrepareBatchSamples, pseudo_labels
from monai_fewshot.losses import ExemplarLoss, PrototypeContrastLoss
from monai_fewshot.networks.nets import EmbeddingNetwork
from monai_fewshot.transforms import NormalizeChannels, RandExemplarSynthesis
from monai_fewshot.utils import Provenance


def slices(number, seed):
    """Slices with a bright and a dark square on gray."""
    torch.manual_seed(seed)
    image = 0.5 + 0.02 * torch.randn(number, 1, 32, 32)
    label = torch.zeros(number, 1, 32, 32, dtype=torch.uint8)
    for place in range(number):
        for value, level in ((1, 1.0), (2, 0.0)):
            row, column = 16 * (value - 1) + torch.randint(0, 7, (1,)).item(), torch.randint(0, 22, (1,)).item()
            image[place, 0, row : row + 9, column : column + 9] = level
            label[place, 0, row : row + 9, column : column + 9] = value
    return SliceStack(image, label, torch.arange(number))


EXEMPLAR, OTHERS = slices(1, 0), slices(6, 1)


def network():
    torch.manual_seed(2)
    return EmbeddingNetwork(BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 16, 8)), "down_2")


def training(folder, **settings):
    contrast = PrototypeContrastLoss(generator=torch.Generator().manual_seed(0))
    samples = functools.partial(ExemplarSamples, EXEMPLAR, 8, RandExemplarSynthesis(2))
    plain = {
        "network": network(),
        "samples": samples,
        "unlabeled": OTHERS,
        "loss": ExemplarLoss(contrast=contrast),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.01),
        "folder": folder,
        "max_epochs": 2,
        "batch_size": 2,
    }
    return ExemplarTraining(**{**plain, **settings})


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def equal(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run = training(folder, max_epochs=20, has_truth=True, provenance=Provenance("data", seed=3))
    logger = logging.getLogger("monai_fewshot.engines.exemplar_training")
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.INFO
    run.run()
    logger.removeHandler(handler)
    logger.level = level
    return run, folder, texts


def test_stages_leave_their_models_and_the_quality_of_pseudo_labels(trained):
    run, folder, texts = trained
    assert sorted(path.name for path in folder.iterdir()) == ["stage_1", "stage_2"]
    assert equal(run.network.state_dict(), weights(folder / "stage_2" / "model.pt"))
    assert not equal(weights(folder / "stage_1" / "model.pt"), weights(folder / "stage_2" / "model.pt"))
    assert torch.load(folder / "stage_2" / "model.pt", weights_only=True)["provenance"]["settings"] == {"seed": 3}
    assert any("After stage 1 100.0 % of the pixels are pseudo-labeled" in text for text in texts)
    (quality,) = (text for text in texts if "Dice of the pseudo-labels" in text)
    first = network()
    first.load_state_dict(weights(folder / "stage_1" / "model.pt"))
    found = pseudo_labels(first, OTHERS).label
    for value, shown in zip((1, 2), quality.rpartition(": ")[2].split(", "), strict=True):
        one, other = found == value, OTHERS.label == value
        expected = 2 * (one & other).sum().item() / (one.sum() + other.sum()).item()
        assert float(shown) == pytest.approx(expected, abs=1e-3)


def test_one_exemplar_is_enough_for_squares(trained):
    run, _, _ = trained
    found = pseudo_labels(run.network, OTHERS).label
    both = ((found == OTHERS.label) & (found > 0)).sum()
    assert 2 * both / ((found > 0).sum() + (OTHERS.label > 0).sum()) > 0.8


def test_both_stages_begin_with_the_same_weights_and_the_second_learns_from_pseudo_labels(tmp_path):
    seen, starts = [], []

    def samples(unlabeled=None):
        seen.append(unlabeled)
        starts.append({name: tensor.clone() for name, tensor in run.network.state_dict().items()})
        return ExemplarSamples(EXEMPLAR, 4, RandExemplarSynthesis(2), unlabeled)

    run = training(tmp_path, samples=samples, rounds=2, max_epochs=1)
    run.run()
    assert len(seen) == 3
    assert seen[0] is None
    assert all(torch.equal(stack.image, OTHERS.image) for stack in seen[1:])
    assert not torch.equal(seen[1].label, OTHERS.label)
    assert equal(starts[0], starts[1])
    assert equal(starts[0], starts[2])
    assert equal(starts[0], network().state_dict())


@pytest.mark.parametrize("stage", [1, 2])
def test_an_interrupted_stage_goes_on_where_it_stopped(stage, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training(whole).run()

    calls = []

    class Loss(ExemplarLoss):
        def forward(self, input, target):
            calls.append(target.shape[1])
            if calls.count(stage + 1) == 6:
                raise KeyboardInterrupt
            return super().forward(input, target)

    def loss(kind=ExemplarLoss):
        return kind(contrast_weight=0.0)

    training(whole / "plain", loss=loss()).run()
    with pytest.raises(KeyboardInterrupt):
        training(parts, loss=loss(Loss)).run()
    assert not (parts / f"stage_{stage}" / "model.pt").exists()
    training(parts, loss=loss(), resume=True).run()
    last = "stage_2/model.pt"
    assert equal(weights(whole / "plain" / last), weights(parts / last))
    stamp = (parts / last).stat().st_mtime_ns
    training(parts, loss=loss(), resume=True).run()
    assert (parts / last).stat().st_mtime_ns == stamp


def test_a_training_is_not_overwritten(tmp_path):
    training(tmp_path, rounds=0, max_epochs=1).run()
    with pytest.raises(ValueError, match="holds checkpoints of an earlier training"):
        training(tmp_path, rounds=0, max_epochs=1).run()


def test_pixels_of_low_confidence_are_ignored():
    class Fixed(torch.nn.Module):
        def forward(self, image):
            return torch.cat([torch.zeros_like(image), image], dim=1)

    image = torch.tensor([-3.0, -0.1, 0.1, 3.0]).view(1, 1, 2, 2)
    stack = SliceStack(image, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1))
    assert pseudo_labels(Fixed(), stack).label.flatten().tolist() == [0, 0, 1, 1]
    assert pseudo_labels(Fixed(), stack, 0.9).label.flatten().tolist() == [0, 255, 255, 1]
    shifted = pseudo_labels(Fixed(), stack, normalize=NormalizeChannels([-1.0], [1.0]))
    assert shifted.label.flatten().tolist() == [0, 1, 1, 1]


def test_images_of_samples_stand_in_a_row():
    batch = {"image": torch.rand(2, 3, 1, 4, 4), "label": torch.rand(2, 3, 1, 4, 4)}
    image, label = PrepareBatchSamples()(batch, "cpu")
    assert torch.equal(image, torch.cat([batch["image"][0], batch["image"][1]]))
    assert torch.equal(label, batch["label"])


@pytest.mark.parametrize("settings", [{"rounds": -1}, {"min_confidence": 1.0}])
def test_numbers_out_of_range_are_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="rounds must be 0 or more and min_confidence from 0 to below 1, got "):
        training(tmp_path, **settings)
