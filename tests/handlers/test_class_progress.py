# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.metrics import DiceHelper

from monai_fewshot.handlers import ClassProgress

NAMES = ["liver", "spleen"]
SIZE = (12, 12)


def one_hot(decided, num_classes=3):
    return 10 * F.one_hot(decided[:, 0].long(), num_classes).movedim(3, 1).float()


def random_labels(seed, number=4):
    return torch.randint(0, 3, (number, 1, *SIZE), generator=torch.Generator().manual_seed(seed)).float()


def rows(probabilities):
    """Those of all pixels, one by one."""
    return probabilities.movedim(1, 3).flatten(0, 2).tolist()


def ours(caplog):
    """What this project logged; other tests may have made ignite talk."""
    return [record for record in caplog.records if record.name.startswith("monai_fewshot")]


def progress(**options):
    return ClassProgress(NAMES, 100, **options)


class TestDice:
    def test_it_is_the_running_mean_of_the_batches_dice(self):
        found, expected = progress(), np.zeros(2)
        for seed in range(5):
            label, decided = random_labels(seed), random_labels(100 + seed)
            decided = torch.where(torch.rand(decided.shape) < 0.7, label, decided)
            found.compare(one_hot(decided), label)
            whole = [tensor.flatten(0, 2)[None] for tensor in (decided, label)]
            masks = [torch.stack([(t == c) for c in range(3)], 1).float() for t in whole]
            dice = DiceHelper(include_background=False, reduction="none", softmax=False)(*masks)[0]
            expected = 0.95 * expected + 0.05 * dice.numpy()[0]
        np.testing.assert_allclose(found.dice, expected, rtol=1e-5)
        assert found.dice.min() > 0.1

    def test_a_class_of_few_pixels_leaves_it_as_it_was(self):
        label = torch.zeros(1, 1, *SIZE)
        label[0, 0, 0, :] = 1
        label[0, 0, 1, :8] = 1
        label[0, 0, 4:6, :] = 2
        label[0, 0, 4, :5] = 0
        found = progress()
        found.compare(one_hot(label), label)
        assert found.dice.tolist() == pytest.approx([0.05, 0.0]), "20 pixels, and 19"

    def test_what_is_found_where_nothing_is_known_is_not_wrong(self):
        label = random_labels(0)
        decided = label.clone()
        label[:, :, :6] = 255
        found = progress()
        found.compare(one_hot(decided), label)
        assert found.dice.tolist() == pytest.approx([0.05, 0.05])


class TestStart:
    def test_it_waits_until_every_class_is_found(self):
        found = progress(start_dice=0.6, latest_start=0.9)
        found.dice = torch.tensor([0.95, 0.55])
        assert not any(found.has_started(iteration) for iteration in range(1, 41))
        found.dice = torch.tensor([0.95, 0.61])
        begun = [iteration for iteration in range(41, 60) if found.has_started(iteration)]
        assert begun == list(range(50, 60))
        assert found.start == 50
        found.dice = torch.zeros(2)
        assert found.has_started(61), "once it has begun it goes on"
        assert found.start == 50

    @pytest.mark.parametrize(("share", "start"), [(0.0, 10), (0.25, 30), (0.3, 40), (0.95, 100)])
    def test_at_the_latest_it_begins_after_a_share_of_the_training(self, share, start):
        found = progress(latest_start=share)
        begun = [iteration for iteration in range(1, 101) if found.has_started(iteration)]
        assert begun == list(range(start, 101))


class TestBelieve:
    @pytest.mark.parametrize("confidence", [0.6, 0.9])
    def test_the_most_probable_class_where_it_is_more_probable_than_asked(self, confidence):
        probabilities = 3 * torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
        probabilities = probabilities.softmax(1)
        believed = progress(confidence=confidence).believe(probabilities)
        expected = [p.index(max(p)) if max(p) > confidence else 255 for p in rows(probabilities)]
        assert believed.shape == (2, 1, *SIZE)
        assert believed.flatten().tolist() == expected
        assert {*expected} == {0, 1, 2, 255}


class TestReports:
    def test_classes_that_are_not_found_are_named_after_every_epoch_once_it_has_begun_and_at_the_end(self, caplog):
        found, engine = progress(), Engine(lambda *_: None)
        found.attach(engine)
        found.dice = torch.tensor([0.8, 0.123])
        with caplog.at_level(logging.INFO, "monai_fewshot"):
            engine.run([0], max_epochs=1)
            assert not ours(caplog), "not before the start"
            found.start = 10
            engine.run([0], max_epochs=3)
        assert [record.levelname for record in ours(caplog)] == ["INFO", "INFO", "WARNING"]
        assert "Hardly found even in the annotated slices: spleen (Dice 0.12). Masks will lack" in caplog.text
        assert "liver" not in caplog.text
        caplog.clear()
        found.dice = torch.tensor([0.8, 0.51])
        engine.run([0], max_epochs=5)
        assert not ours(caplog)

    def test_a_class_that_is_found_in_the_end_is_no_warning(self, caplog):
        found, engine = progress(), Engine(lambda *_: None)
        found.attach(engine)
        found.start, found.dice = 10, torch.tensor([0.8, 0.123])

        @engine.on(Events.EPOCH_STARTED(once=2))
        def _find():
            found.dice = torch.tensor([0.8, 0.7])

        with caplog.at_level(logging.INFO, "monai_fewshot"):
            engine.run([0], max_epochs=2)
        assert [record.levelname for record in ours(caplog)] == ["INFO"]

    def test_a_state_goes_on(self):
        found, other = progress(), ClassProgress(NAMES, 7)
        found.compare(one_hot(random_labels(0)), random_labels(0))
        found.start = 30
        other.load_state_dict(found.state_dict())
        assert (other.start, other.num_iterations) == (30, 7)
        assert torch.equal(other.dice, found.dice)
        assert other.has_started(31)

    @pytest.mark.parametrize("name", ["start_dice", "latest_start", "confidence"])
    def test_bad_shares(self, name):
        for value in (1.0, -0.1):
            with pytest.raises(ValueError, match=f"{name} is {value}, must lie from 0 to below 1"):
                progress(**{name: value})
