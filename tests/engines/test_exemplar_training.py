# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import shutil

import pytest
import torch
from exemplar_runs import EXEMPLAR, OTHERS, StoppingLoss, equal, network, training, weights

from monai_fewshot.data import ExemplarSamples, SliceStack
from monai_fewshot.engines import PrepareBatchSamples, pseudo_labels
from monai_fewshot.losses import ExemplarLoss
from monai_fewshot.transforms import NormalizeChannels, RandExemplarSynthesis
from monai_fewshot.utils import Provenance


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    loss = ExemplarLoss(contrast_weight=0.1)
    run = training(folder, max_epochs=20, has_truth=True, records={"provenance": Provenance("data", seed=3)}, loss=loss)
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
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["model.pt", "stage_1", "stage_2"]
    for model in (folder / "stage_2" / "model.pt", folder / "model.pt"):
        assert equal(run.network.state_dict(), weights(model))
    assert not equal(weights(folder / "stage_1" / "model.pt"), weights(folder / "stage_2" / "model.pt"))
    assert torch.load(folder / "stage_2" / "model.pt", weights_only=True)["provenance"]["settings"] == {"seed": 3}
    assert any("After stage 1 100.0 % of the pixels are pseudo-labeled" in text for text in texts)
    (quality,) = (text for text in texts if "Dice of the pseudo-labels, by class: " in text)
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


def test_stages_begin_with_the_same_weights_and_generators_and_learn_from_pseudo_labels_after_the_first(tmp_path):
    seen, starts, generators = [], [], []

    def samples(unlabeled=None):
        seen.append(unlabeled)
        generators.append(torch.get_rng_state())
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
    assert all(torch.equal(generators[0], state) for state in generators[1:])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    training(folder).run()
    return weights(folder / "model.pt")


@pytest.mark.parametrize(("stage", "batch"), [(1, 3), (1, 6), (2, 1), (2, 6), (2, 8)])
def test_an_interrupted_stage_goes_on_where_it_stopped(stage, batch, uninterrupted, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, loss=StoppingLoss(stage, batch)).run()
    assert not (tmp_path / f"stage_{stage}" / "model.pt").exists()
    torch.rand(5)
    training(tmp_path, resume=True).run()
    assert equal(uninterrupted, weights(tmp_path / "model.pt"))


@pytest.mark.parametrize("lost", [["model.pt", "stage_2"], ["model.pt", "stage_2", "stage_1/model.pt"], ["model.pt"]])
def test_a_training_that_stopped_between_its_stages_goes_on(lost, uninterrupted, tmp_path):
    training(tmp_path).run()
    for name in lost:
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    training(tmp_path, resume=True).run()
    assert equal(uninterrupted, weights(tmp_path / "model.pt"))


def test_stages_that_are_done_are_not_repeated(tmp_path):
    training(tmp_path, max_epochs=1).run()
    models = [tmp_path / f"stage_{stage}" / "model.pt" for stage in (1, 2)]
    stamps = [model.stat().st_mtime_ns for model in models]
    training(tmp_path, max_epochs=1, resume=True, loss=StoppingLoss(1, 1)).run()
    assert [model.stat().st_mtime_ns for model in models] == stamps


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
