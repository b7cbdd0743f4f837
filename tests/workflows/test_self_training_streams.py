# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor
from self_training import self_trainer, slices, small_network
from torch.optim.lr_scheduler import PolynomialLR

from monai_fewshot.data import AnnotatedSlices, UnlabeledSlices
from monai_fewshot.handlers import ClassProgress
from monai_fewshot.transforms import IntensityVariation, RandAffineElastic
from monai_fewshot.workflows import episode_loader, fit_schedule, self_training, self_training_streams


def scan(seed, number=6):
    """A scan whose intensities tell it apart from others."""
    made = slices(number, seed=seed)
    return {key: MetaTensor(part.movedim(0, 3)) for key, part in (("image", made.image), ("label", made.label))}


def streams(annotated, unlabeled, **options):
    settings = {
        "num_classes": 2,
        "epoch_length": 3,
        "batch_size": 2,
        "unlabeled_batch_size": 5,
        "strong_geometry": RandAffineElastic(),
        "weak_geometry": RandAffineElastic(),
        "intensity": IntensityVariation(),
    }
    return self_training_streams(annotated, unlabeled, **{**settings, **options})


class TestStreams:
    def test_batches_are_as_many_and_as_large_as_asked(self):
        made = streams([scan(0)], [scan(1), scan(2)])
        own, others = map(list, made)
        assert [len(batch["image"]) for batch in own] == [2] * 3
        assert [len(batch["image"]) for batch in others] == [5] * 3
        assert own[0].keys() == {"image", "label"}
        assert others[0].keys() == {"image", "label", "strong_image", "pasted"}

    def test_which_slices_are_in_which_stream(self):
        scans = [scan(0), scan(1), scan(2, 4)]
        annotated, unlabeled = streams(scans[:1], scans[1:])
        assert torch.equal(annotated.dataset.stack.label, scans[0]["label"].as_tensor().movedim(3, 0))
        assert unlabeled.dataset.stack.scan.tolist() == [0] * 6 + [1] * 4
        annotated, unlabeled = streams(scans[:1], scans[1:], annotated_slices=[4, 2])
        expected = scans[0]["image"].as_tensor().movedim(3, 0).half()
        assert torch.equal(annotated.dataset.stack.image, expected[[2, 4]])
        assert unlabeled.dataset.stack.scan.tolist() == [0] * 6 + [1] * 4 + [2] * 4
        assert torch.equal(unlabeled.dataset.stack.image[10:], expected[[0, 1, 3, 5]])

    def test_seeds_are_labels_of_the_unlabeled_and_what_has_none_is_unknown(self):
        scans = [scan(0), scan(1), scan(2, 4)]
        plain = {"image": scans[1]["image"]}
        label = streams(scans[:1], [plain, scans[2]], annotated_slices=[4, 2])[1].dataset.stack.label
        assert (label[:6] == 255).all()
        assert torch.equal(label[6:10], scans[2]["label"].as_tensor().movedim(3, 0))
        assert (label[10:] == 255).all(), "what the example shows elsewhere is not known"

    def test_the_other_slices_of_the_only_scan_are_unlabeled(self, caplog):
        annotated, unlabeled = streams([scan(0)], [], annotated_slices="labeled")
        assert (len(annotated.dataset.stack.scan), len(unlabeled.dataset.stack.scan)) == (5, 1)
        assert "no scan beside" not in caplog.text

    def test_where_all_is_annotated_there_is_no_second_stream(self, caplog):
        annotated, unlabeled = streams([scan(0)], [])
        assert unlabeled is None
        assert len(annotated.dataset.stack.scan) == 6
        assert "There is no scan beside the annotated one: the network learns from that alone." in caplog.text

    def test_strong_and_weak_transforms_are_as_given(self):
        still = RandAffineElastic(1.0, 0, 0, 0, (1.0, 1.0), 0)
        annotated, unlabeled = streams([scan(0)], [scan(1)], weak_geometry=still)
        stack = unlabeled.dataset.stack.image.float()
        for sample in unlabeled.dataset:
            assert any(torch.allclose(sample["image"], image, atol=1e-3) for image in stack)
            assert not any(torch.allclose(sample["strong_image"], image, atol=1e-1) for image in stack)
        augmentation = annotated.dataset.augmentation
        assert (augmentation.geometry is not still, augmentation.gamma) == (True, None)
        shown = [int(v) for batch in annotated for v in (batch["label"].flatten(1).amax(1) > 0)]
        assert shown == [1, 1, 0] * 2, "classes in turn"

    def test_a_class_that_no_annotated_slice_shows(self):
        with pytest.raises(ValueError, match="No annotated slice shows class 3 of 1 to 3"):
            streams([scan(0)], [scan(1)], num_classes=3)


def small_trainer(epoch_length=2, unlabeled=True):
    network = small_network()
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    schedule = PolynomialLR(optimizer, 30, 0.9)
    parts = [
        episode_loader(samples, size)
        for samples, size in (
            (AnnotatedSlices(slices(), 2 * epoch_length, 2), 2),
            (UnlabeledSlices(slices(9), 3 * epoch_length), 3),
        )
    ]
    progress = ClassProgress(["bright", "dark"], 30)
    made = self_trainer(network, parts[0], parts[1] if unlabeled else None, progress, optimizer, max_epochs=15)
    return made, schedule


class TestFitSchedule:
    @pytest.mark.parametrize(("seconds", "iterations"), [(1.0, 150), (0.3, 500), (20.0, 8), (1e4, 2)])
    def test_steps_that_fit_in_whole_epochs(self, seconds, iterations, monkeypatch, tmp_path, caplog):
        monkeypatch.setattr(self_training, "_seconds_per_step", lambda trainer: seconds)
        trainer, schedule = small_trainer()
        with caplog.at_level(logging.INFO):
            fit_schedule(trainer, schedule, 2.5, tmp_path)
        assert trainer.state.max_epochs == iterations // 2
        assert trainer.progress.num_iterations == schedule.total_iters == iterations
        assert f"A step takes {seconds:.2f} s: {iterations} steps in 2.5 minutes." in caplog.text
        assert ("too few to find much here" in caplog.text) == (iterations < 200)

    def test_none_leaves_the_length(self, tmp_path):
        trainer, schedule = small_trainer()
        fit_schedule(trainer, schedule, None, tmp_path)
        assert (trainer.state.max_epochs, trainer.progress.num_iterations, schedule.total_iters) == (15, 30, 30)

    def test_a_resumed_training_of_some_minutes_keeps_its_length_and_is_not_timed(self, monkeypatch, tmp_path):
        monkeypatch.delattr(self_training, "_seconds_per_step")
        torch.save({"progress": {"num_iterations": 44}}, tmp_path / "checkpoint_epoch=3.pt")
        trainer, schedule = small_trainer()
        fit_schedule(trainer, schedule, None, tmp_path, resume=True)
        assert (trainer.state.max_epochs, trainer.progress.num_iterations, schedule.total_iters) == (15, 30, 30)
        fit_schedule(trainer, schedule, 2.5, tmp_path, resume=True)
        assert (trainer.state.max_epochs, trainer.progress.num_iterations, schedule.total_iters) == (22, 44, 44)
        with pytest.raises(ValueError, match="holds checkpoints of an earlier training"):
            fit_schedule(trainer, schedule, 2.5, tmp_path)

    @pytest.mark.parametrize("minutes", [0, -1, float("nan")])
    def test_minutes_are_above_0(self, minutes, tmp_path):
        with pytest.raises(ValueError, match="must be above 0; 20 is a good choice for a CPU"):
            fit_schedule(*small_trainer(), minutes, tmp_path)

    @pytest.mark.parametrize(("epoch_length", "unlabeled"), [(2, True), (20, True), (1, False)])
    def test_timed_steps_are_those_with_both_streams_and_leave_no_trace(self, epoch_length, unlabeled, monkeypatch):
        trainer, _ = small_trainer(epoch_length, unlabeled)
        times = iter([0, 100, 200, 201, 300, 302, 400, 403, 500, 504])
        monkeypatch.setattr(self_training, "time", SimpleNamespace(perf_counter=lambda: next(times)))
        before = copy.deepcopy((trainer.network.state_dict(), trainer.optimizer.state_dict()))
        losses = []
        trained = trainer.loss_function

        def noted(logits, label, weights=None):
            losses.append(len(label))
            return trained(logits, label, weights)

        trainer.loss_function = noted
        assert self_training._seconds_per_step(trainer) == (1 + 2 + 3 + 4) / 4, "the first step is not counted"
        assert losses == ([2, 3] if unlabeled else [2]) * 5
        after = (trainer.network.state_dict(), trainer.optimizer.state_dict())
        assert all(torch.equal(before[0][name], tensor) for name, tensor in after[0].items())
        assert before[1] == after[1]
        assert (trainer.progress.start, trainer.state.iteration) == (None, 0)
        assert not trainer.progress.dice.any()
        assert all(torch.equal(before[0][n], p) for n, p in trainer.teacher.network.state_dict().items())
        assert all(p.grad is None for p in trainer.network.parameters())
