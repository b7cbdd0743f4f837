# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from monai.config import PathLike
from monai.data import DataLoader

from monai_fewshot.data import AnnotatedSlices, SliceStack, UnlabeledSlices, choose_annotated, take_slices
from monai_fewshot.engines import SelfTrainer
from monai_fewshot.transforms import (
    BoxPaste,
    ClassIntensity,
    EpisodeAugmentation,
    IntensityVariation,
    RandAffineElastic,
    RandColorJitter,
)
from monai_fewshot.utils import (
    IGNORED,
    checkpoint_to_resume,
    mean_over_processes,
    process_rank,
    read_checkpoint,
    run_together,
)

from .training import episode_loader

__all__ = ["Streams", "fit_schedule", "self_training_streams"]

logger = logging.getLogger(__name__)
PROBED_STEPS = 4
"""Steps that are timed, after one that is not."""
FEW_STEPS = 200
"""Steps below which masks are hardly worth looking at."""


class Streams(NamedTuple):
    """What a network is self-trained on.

    Attributes:
        annotated: loads batches of :class:`~monai_fewshot.data.AnnotatedSlices`.
        unlabeled: loads batches of :class:`~monai_fewshot.data.UnlabeledSlices`; None where every slice is annotated.
    """

    annotated: DataLoader
    unlabeled: DataLoader | None

    @property
    def unlabeled_stack(self) -> SliceStack | None:
        """All unlabeled slices."""
        return None if self.unlabeled is None else self.unlabeled.dataset.stack


def self_training_streams(
    annotated: Sequence[Mapping[Hashable, Any]],
    unlabeled: Sequence[Mapping[Hashable, Any]],
    num_classes: int,
    epoch_length: int,
    batch_size: int,
    unlabeled_batch_size: int,
    strong_geometry: RandAffineElastic,
    weak_geometry: RandAffineElastic,
    intensity: IntensityVariation | RandColorJitter,
    mix: BoxPaste | None = None,
    class_intensity: ClassIntensity | None = None,
    annotated_slices: int | str | Sequence[int] | Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    max_slices: int | None = None,
    **settings: Any,
) -> Streams:
    """Cut scans into slices, annotated and not, and load them as a :class:`~monai_fewshot.engines.SelfTrainer` does.

    Args:
        annotated: the annotated scans.
        unlabeled: all others; there may be none. Labels that they have are taken for seeds.
        num_classes: number of classes.
        epoch_length: steps of an epoch.
        batch_size: annotated slices of a step, of all processes together.
        unlabeled_batch_size: likewise of the others.
        strong_geometry: transform of annotated slices.
        weak_geometry: transform of unlabeled slices.
        intensity: transform of annotated slices, and of the strong form of unlabeled ones.
        mix: draws the boxes that are pasted into unlabeled slices; default :class:`~monai_fewshot.transforms.BoxPaste`.
        class_intensity: changes the contrast between the classes of annotated slices; default
            :class:`~monai_fewshot.transforms.ClassIntensity`.
        annotated_slices: see :func:`monai_fewshot.data.choose_annotated`; the others count as unlabeled.
        seed: of all draws.
        max_slices: how many slices of the unlabeled scans to keep at most; None for all.
        settings: see :meth:`~monai_fewshot.data.SliceStack.from_scans`.

    Raises:
        ValueError: where a class shows in no annotated slice, or there is no slice of the numbers asked for.
    """
    stack = SliceStack.from_scans(annotated, "label", **settings)
    known = choose_annotated(stack, annotated_slices)
    samples = AnnotatedSlices(
        take_slices(stack, known),
        epoch_length * batch_size,
        num_classes,
        seed,
        EpisodeAugmentation(strong_geometry, None, intensity),
        balanced=True,
        class_intensity=class_intensity or ClassIntensity(),
    )
    label_key = "label" if any("label" in scan for scan in unlabeled) else None
    left = sorted({*range(len(stack.scan))} - {*known})
    others = None
    if left:
        others = take_slices(stack, left)
        others = replace(others, label=torch.full_like(others.label, IGNORED))
    if unlabeled:
        others = SliceStack.from_scans(
            unlabeled, label_key, max_slices=max_slices, seed=seed, further=others, **settings
        )
    if others is None:
        if process_rank() == 0:
            logger.warning("There is no scan beside the annotated one: the network learns from that alone.")
        return Streams(episode_loader(samples, batch_size), None)
    unlabeled_samples = UnlabeledSlices(
        others,
        epoch_length * unlabeled_batch_size,
        EpisodeAugmentation(weak_geometry, None),
        EpisodeAugmentation(None, None, intensity),
        mix or BoxPaste(),
        seed,
    )
    return Streams(episode_loader(samples, batch_size), episode_loader(unlabeled_samples, unlabeled_batch_size))


def fit_schedule(
    trainer: SelfTrainer,
    lr_scheduler: torch.optim.lr_scheduler.PolynomialLR,
    minutes: float | None,
    folder: PathLike,
    resume: bool = False,
    few_steps: int = FEW_STEPS,
) -> None:
    """Make a training as long as can be done in some minutes, at the speed of its first steps.

    A few steps with both streams are timed on copies that are thrown away. A training of some minutes that is resumed
    keeps its number of steps: the learning rate and the weights of its losses follow that.

    Args:
        trainer: about to run.
        lr_scheduler: of its optimizer.
        minutes: of the training, above 0; None leaves its length as it is.
        folder: where its checkpoints are.
        resume: whether it goes on with the newest of them.
        few_steps: steps below which there is a warning; one that goes on from a trained network needs few.

    Raises:
        ValueError: where minutes is not above 0.
    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes}, must be above 0; 20 is a good choice for a CPU.")
    epoch_length = len(trainer.data_loader)
    checkpoint = run_together(checkpoint_to_resume, folder, resume)
    if minutes is None:
        return
    if checkpoint is not None:
        iterations = read_checkpoint(checkpoint)["progress"]["num_iterations"]
        if process_rank() == 0:
            logger.info("The resumed training keeps its length of %d steps.", iterations)
    else:
        seconds = mean_over_processes(torch.tensor(_seconds_per_step(trainer), device=trainer.state.device)).item()
        iterations = max(1, round(60 * minutes / seconds / epoch_length)) * epoch_length
        if process_rank() == 0:
            logger.info("A step takes %.2f s: %d steps in %g minutes.", seconds, iterations, minutes)
        if iterations < few_steps and process_rank() == 0:
            least = math.ceil(few_steps * seconds / 60)
            logger.warning(
                "%g minutes are %d steps, too few to find much here: take %d minutes or more.",
                minutes,
                iterations,
                least,
            )
    trainer.state.max_epochs = iterations // epoch_length
    trainer.progress.num_iterations = lr_scheduler.total_iters = iterations


def _seconds_per_step(trainer: SelfTrainer) -> float:
    """Time steps of a trainer's copy, in which unlabeled slices count from the first one on."""
    parts = (getattr(trainer.network, "module", trainer.network), trainer.optimizer, trainer.progress)
    network, optimizer, progress = copy.deepcopy(parts)
    progress.start = 0
    device = trainer.state.device
    probe = SelfTrainer(
        device, 1, trainer.data_loader, trainer.unlabeled, network, trainer.teacher, optimizer, trainer.loss_function,
        progress, trainer.inferer,
    )  # fmt: skip
    batches = _endless(trainer.data_loader)
    if trainer.unlabeled is not None:
        probe._batches = _endless(trainer.unlabeled)
    seconds = []
    for step in range(PROBED_STEPS + 1):
        begin = time.perf_counter()
        probe.state.iteration = step + 1
        probe._iteration(probe, next(batches))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return sum(seconds[1:]) / PROBED_STEPS


def _endless(loader: DataLoader) -> Iterator[Any]:
    while True:
        yield from loader
