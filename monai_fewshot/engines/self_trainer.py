# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import IterationEvents, Trainer
from monai.inferers import Inferer, SimpleInferer
from monai.utils import CommonKeys
from torch.optim import Optimizer
from torch.utils.data.distributed import DistributedSampler

from monai_fewshot.handlers import ClassProgress, Teacher
from monai_fewshot.utils import IGNORED, num_processes, process_rank, whole_batch

__all__ = ["SelfTrainer"]


class SelfTrainer(Trainer):
    """Trains a segmentation network on annotated slices, and on others that its own moving average labels.

    From annotated slices it learns alone until every class is found (:class:`~monai_fewshot.handlers.ClassProgress`).
    Then the teacher, the moving average of the network's weights, labels weakly transformed slices that nobody has
    annotated, and the network has to say the same of their strong form, into which a box of another slice is pasted:
    of an annotated one for one half of the batch, of the next unlabeled one for the other. Pixels that the teacher is
    not sure of do not count.

    MONAI's and ignite's events fire as in ``monai.engines.SupervisedTrainer``, so that their handlers work unchanged.
    ``state.output`` has ``loss``, and its parts ``annotated_loss`` and ``unlabeled_loss``, and ``believed``, the share
    of the unlabeled pixels that count; the last two are 0 before the unlabeled slices begin.

    Based on: Yang et al., "Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation" (UniMatch),
    CVPR 2023, https://arxiv.org/abs/2208.09910, with the teacher of Tarvainen and Valpola, NeurIPS 2017,
    https://arxiv.org/abs/1703.01780.

    Args:
        device: of the network.
        max_epochs: number of epochs.
        train_data_loader: annotated slices, ``image`` (B, C, H, W) and ``label`` (B, 1, H, W) with 0 background, 1..N
            the classes, 255 what is unknown, such as :class:`~monai_fewshot.data.AnnotatedSlices`.
        unlabeled_data_loader: as many batches of :class:`~monai_fewshot.data.UnlabeledSlices`; None to learn from
            annotated slices alone.
        network: from images (B, C, H, W) to logits (B, N+1, H, W).
        teacher: its moving average; attach it, for it is a handler.
        optimizer: of the network's parameters.
        loss_function: of logits, labels and weights of the classes, such as
            :class:`~monai_fewshot.losses.PresentClassesLoss`.
        progress: when to begin, and which pixels count.
        inferer: runs the networks; default MONAI's ``SimpleInferer``.
        class_weights: (N+1,), of the classes in annotated slices, background first, such as
            :meth:`~monai_fewshot.data.AnnotatedSlices.class_weights`: whole until every class is found, then more and
            more alike, for what helps to find a small class makes it too large in the end. None for equal ones.
        seeded: whether unlabeled slices are learned from until then too, by the labels they have: those of any other
            method. 255 is what is unknown.
        weight: of the unlabeled slices.
        ramp: share of the training over which the weight rises.
        max_norm: of the gradient, which is scaled down to it.
        train_handlers: as in MONAI.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader,
        unlabeled_data_loader: DataLoader | None,
        network: torch.nn.Module,
        teacher: Teacher,
        optimizer: Optimizer,
        loss_function: Callable[..., torch.Tensor],
        progress: ClassProgress,
        inferer: Inferer | None = None,
        class_weights: torch.Tensor | None = None,
        seeded: bool = False,
        weight: float = 1.0,
        ramp: float = 0.1,
        max_norm: float = 5.0,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            handlers=train_handlers,
            decollate=False,
        )
        self.network = network
        self.teacher = teacher
        self.optimizer = optimizer
        self.loss_function = loss_function
        self.progress = progress
        self.inferer = inferer or SimpleInferer()
        self.class_weights = class_weights
        self.seeded = seeded
        self.weight = weight
        self.ramp = ramp
        self.max_norm = max_norm
        self.unlabeled = unlabeled_data_loader
        self._batches: Iterator[Mapping[str, torch.Tensor]] | None = None
        self.add_event_handler(Events.EPOCH_STARTED, lambda engine: engine._begin_epoch())

    def _begin_epoch(self) -> None:
        self._batches = None
        if self.unlabeled is not None and isinstance(self.unlabeled.sampler, DistributedSampler):
            self.unlabeled.sampler.set_epoch(self.state.epoch)

    def _iteration(self, engine: SelfTrainer, batchdata: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Take one step."""
        image, label = (
            batchdata[key].to(engine.state.device, non_blocking=engine.non_blocking)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
        )
        engine.state.output = {CommonKeys.IMAGE: image, CommonKeys.LABEL: label}
        images, target = image, None
        all_found = self.progress.has_started(engine.state.iteration)
        if self.unlabeled is not None and (all_found or self.seeded):
            self._batches = self._batches or iter(self.unlabeled)
            mixed, target = self._mix(next(self._batches), image, label, all_found)
            images = torch.cat([image, mixed])
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.inferer(images, self.network)
        own, others = logits[: len(image)], logits[len(image) :]
        engine.state.output[CommonKeys.PRED] = own
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        annotated = loss = self.loss_function(own, label, self._class_weights())
        unlabeled = believed = torch.zeros_like(loss)
        if target is not None:
            unlabeled = self.loss_function(others, target)
            believed = (target != IGNORED).float().mean()
            loss = annotated + self._current_weight() * unlabeled
        figures = {
            CommonKeys.LOSS: loss,
            "annotated_loss": annotated,
            "unlabeled_loss": unlabeled,
            "believed": believed,
        }
        engine.state.output.update({str(key): figure.detach() for key, figure in figures.items()})
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
        self.progress.compare(own.detach(), label)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _current_weight(self) -> float:
        since = self.state.iteration - (self.progress.start or 0)
        return self.weight * min(1.0, 0.1 + since / max(1.0, self.ramp * self.progress.num_iterations))

    def _class_weights(self) -> torch.Tensor | None:
        if self.class_weights is None or self.progress.start is None:
            return self.class_weights
        left = self.progress.num_iterations - self.state.iteration
        return self.class_weights ** (left / max(1, self.progress.num_iterations - self.progress.start))

    @torch.no_grad()
    def _mix(
        self, batch: Mapping[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor, taught: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Label a batch, and paste boxes into it.

        Args:
            batch: of unlabeled slices.
            image: annotated slices (B, C, H, W), strongly transformed.
            label: their labels.
            taught: whether the teacher labels the batch; else its seeds do.

        Returns:
            Images and labels, with 255 where nothing is to be believed.
        """
        weak, target, strong, pasted = (
            batch[key].to(image.device, non_blocking=self.non_blocking)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL, "strong_image", "pasted")
        )
        if taught:
            probabilities = self.inferer(weak, self.teacher.network).float().softmax(1)
            target = self.progress.believe(probabilities).to(label.dtype)
        source, source_target = self._pasted(image, strong), self._pasted(label, target)
        return torch.where(pasted, source, strong), torch.where(pasted, source_target, target)

    @staticmethod
    def _pasted(annotated: torch.Tensor, unlabeled: torch.Tensor) -> torch.Tensor:
        """What boxes are filled with: annotated slices for half of the whole batch, then the next unlabeled ones."""
        given, others = whole_batch(annotated), whole_batch(unlabeled)
        half = len(others) // 2
        source = torch.cat([given[torch.arange(half, device=given.device) % len(given)], others.roll(1, 0)[half:]])
        return source[process_rank() :: num_processes()]
