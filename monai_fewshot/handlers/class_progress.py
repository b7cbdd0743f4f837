# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_fewshot.utils import IGNORED, process_rank, sum_over_processes

__all__ = ["ClassProgress"]

logger = logging.getLogger(__name__)
MEMORY = 0.95
"""Share of the former value in a running mean."""
MIN_PIXELS = 20
"""Pixels of a class below which a batch says nothing of it."""
CHECK_INTERVAL = 10
"""Iterations between two looks at whether all classes are found; each waits for the device."""


class ClassProgress:
    """Follow how well each class is found, to know when and how far a teacher can be believed.

    A class that the teacher does not find is lost: it says background with confidence, and the student learns that. So
    the unlabeled slices wait until the student finds every class in annotated slices under strong transforms, or until
    a share of the training is over. All classes need the same confidence: thresholds by class (FlexMatch, NeurIPS 2021)
    let false finds through and were worse on abdominal MR.

    Args:
        class_names: of the N classes.
        num_iterations: of the whole training.
        device: of the figures.
        start_dice: Dice that all classes must reach before unlabeled slices are learned from.
        latest_start: share of the training after which they are, whatever is found.
        confidence: probability above which a teacher is believed.

    Attributes:
        dice: (N,), running mean of the Dice on annotated slices.
        start: the iteration when unlabeled slices were first learned from; None before.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        num_iterations: int,
        device: torch.device | str = "cpu",
        start_dice: float = 0.7,
        latest_start: float = 0.4,
        confidence: float = 0.9,
    ) -> None:
        for name, value in {"start_dice": start_dice, "latest_start": latest_start, "confidence": confidence}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, must lie from 0 to below 1.")
        self.class_names = list(class_names)
        self.num_iterations = num_iterations
        self.start_dice = start_dice
        self.latest_start = latest_start
        self.confidence = confidence
        self.dice = torch.zeros(len(self.class_names), device=device)
        self.start: int | None = None

    def attach(self, engine: Engine) -> None:
        """Tell of classes that are not found: after every epoch from the start on, and, as a warning, at the end."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self, logging.INFO)
        engine.add_event_handler(Events.COMPLETED, self, logging.WARNING)

    def __call__(self, engine: Engine, level: int = logging.WARNING) -> None:
        """Name the classes that are not found.

        Args:
            engine: the trainer.
            level: of the message; what is not found yet may still be found.
        """
        lost = self.lost()
        if lost and self.start is not None and process_rank() == 0:
            logger.log(
                level,
                "Hardly found even in the annotated slices: %s. Masks will lack what is not found; more annotated "
                "slices of it, or a longer training, help.",
                ", ".join(f"{name} (Dice {dice:.2f})" for name, dice in lost.items()),
            )

    def lost(self) -> dict[str, float]:
        """Name and Dice of the classes that are found less than half."""
        pairs = zip(self.class_names, self.dice.tolist(), strict=True)
        return {name: dice for name, dice in pairs if dice < 0.5}

    @torch.no_grad()
    def compare(self, logits: torch.Tensor, label: torch.Tensor) -> None:
        """Take note of what the student finds in annotated slices.

        Args:
            logits: (B, N+1, H, W).
            label: (B, 1, H, W).
        """
        classes = torch.arange(1, len(self.dice) + 1, device=logits.device).view(1, -1, 1, 1)
        found = (logits.max(1, keepdim=True).indices == classes) & (label != IGNORED)
        truth = label == classes
        counts = torch.stack([mask.sum((0, 2, 3)) for mask in (found & truth, truth, found)])
        both, sizes, all_found = sum_over_processes(counts.float())
        dice = 2 * both / (sizes + all_found).clamp(min=1)
        self.dice = torch.where(sizes >= MIN_PIXELS, MEMORY * self.dice + (1 - MEMORY) * dice, self.dice)

    def believe(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Tell what to believe of what a teacher says.

        Args:
            probabilities: (B, N+1, H, W).

        Returns:
            (B, 1, H, W): the most probable class, 255 where it is not probable enough.
        """
        highest, winner = probabilities.max(1, keepdim=True)
        return winner.masked_fill(highest <= self.confidence, IGNORED)

    def has_started(self, iteration: int) -> bool:
        """Decide whether unlabeled slices are learned from.

        Args:
            iteration: number of the step, from 1.
        """
        if self.start is None and iteration % CHECK_INTERVAL == 0:
            late = iteration > self.latest_start * self.num_iterations
            if late or bool((self.dice > self.start_dice).all()):
                self.start = iteration
        return self.start is not None

    def state_dict(self) -> dict[str, Any]:
        """All figures."""
        return {name: getattr(self, name) for name in ("dice", "start", "num_iterations")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the length of the training is that of this one."""
        self.dice = state["dice"].to(self.dice.device)
        self.start = state["start"]
