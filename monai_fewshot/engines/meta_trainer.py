# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from ignite.metrics import Metric
from monai.engines import IterationEvents, Trainer
from monai.utils import CommonKeys
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_fewshot.meta import MetaGradient, MetaStep
from monai_fewshot.networks.blocks import check_episode
from monai_fewshot.networks.nets import MetaLearnedSegmenter
from monai_fewshot.utils import EpisodeKeys, num_processes

__all__ = ["MetaTrainer"]

logger = logging.getLogger(__name__)
SHOWN = 5


class MetaTrainer(Trainer):
    """Learns the weights from which a network adapts well, one batch of tasks an iteration.

    The meta-gradient of :class:`~monai_fewshot.meta.MetaGradient` goes to the optimizer as if ``backward`` had
    been called; MONAI's and ignite's events fire as in ``monai.engines.SupervisedTrainer``, so that their handlers work
    unchanged. In a process group every process has tasks of its own, and gradients are averaged over the tasks of all;
    the network needs no wrapper.

    A task whose losses or gradients are not finite is logged and left out; a meta-step without a sound task leaves the
    weights as they are.

    ``state.output`` has ``loss``, the mean loss of adapted parameters on the queries; ``support_loss``, that on the
    support before the first inner step, where there is one; ``skipped``, the number of tasks left out; and what the
    meta-gradient reports besides, such as ``cg_residual``. All are averages over all processes.

    Args:
        device: where tasks are moved to.
        max_epochs: number of epochs.
        train_data_loader: batches of E tasks with B queries, as of :class:`~monai_fewshot.data.TaskEpisodes` and
            :func:`~monai_fewshot.data.collate_episodes`, of a ``torch.utils.data.DataLoader``.
        network: what is learned, on the device.
        optimizer: of the network's parameters.
        meta_gradient: how.
        max_skipping: a training stops where this many meta-steps in a row had to leave out a task.
        epoch_length: iterations an epoch; default all of the loader.
        non_blocking: whether copies to the device may overlap with computation.
        key_train_metric: as in MONAI.
        additional_metrics: as in MONAI, where there is a key metric.
        metric_cmp_fn: whether a new value of the key metric is better than the best so far; by default, where it is
            lower, as losses are.
        train_handlers: as in MONAI.

    Raises:
        ValueError: during the run, where supports and queries do not fit together.
        RuntimeError: during the run, where too many meta-steps in a row had to leave out a task, with a diagnosis.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: DataLoader,
        network: MetaLearnedSegmenter,
        optimizer: Optimizer,
        meta_gradient: MetaGradient,
        max_skipping: int = 10,
        epoch_length: int | None = None,
        non_blocking: bool = False,
        key_train_metric: dict[str, Metric] | None = None,
        additional_metrics: dict[str, Metric] | None = None,
        metric_cmp_fn: Callable[[Any, Any], bool] = operator.lt,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            key_metric=key_train_metric,
            additional_metrics=additional_metrics,
            metric_cmp_fn=metric_cmp_fn,
            handlers=train_handlers,
            decollate=False,
        )
        self.network = network
        self.optimizer = optimizer
        self.meta_gradient = meta_gradient
        self.max_skipping = max_skipping
        self._skipping = 0

    def _iteration(self, engine: MetaTrainer, batchdata: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Take one meta-step."""
        moved = {
            key: batchdata[key].to(engine.state.device, non_blocking=engine.non_blocking)
            for key in (
                EpisodeKeys.IMAGE,
                EpisodeKeys.LABEL,
                EpisodeKeys.SUPPORT_IMAGE,
                EpisodeKeys.SUPPORT_LABEL,
            )
        }
        image, label, support_image, support_label = moved.values()
        check_episode(support_image, support_label, image)
        engine.state.output = {str(key): tensor for key, tensor in moved.items()}
        engine.network.train()
        step = engine.meta_gradient(
            engine.network.task_loss,
            engine.network.start,
            (support_image, support_label),
            tuple(x.unflatten(0, (len(support_image), -1)) for x in (image, label)),
            engine.network.rate_factors,
        )
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        gradients, figures = self._over_processes(step)
        engine.state.output.update(figures)
        self._report(step, batchdata[EpisodeKeys.NUMBER].tolist(), int(figures["skipped"]))
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        parameters = [*engine.network.start.values(), *engine.network.rate_factors.values()]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if figures["skipped"] < figures["tasks"]:
            engine.optimizer.step()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _over_processes(self, step: MetaStep) -> tuple[list[torch.Tensor], dict[str, Any]]:
        """Average gradients and figures over the sound tasks of all processes."""
        gradients = [*step.parameters.values(), *step.rates.values()]
        figures = {CommonKeys.LOSS: step.query_loss, **step.diagnostics}
        if step.inner_losses.shape[1]:
            figures["support_loss"] = step.inner_losses[:, 0]
        sound = step.sound.sum()
        sums = [torch.where(step.sound, figure, 0.0).sum() for figure in figures.values()]
        flat = torch.cat([(gradient * sound).flatten() for gradient in gradients])
        total = torch.cat([flat, torch.stack([*sums, sound.to(flat), flat.new_full((), len(step.sound))])])
        if num_processes() > 1:
            dist.all_reduce(total)
        flat, tail = total[: len(flat)], total[len(flat) :]
        means = (flat / tail[-2].clamp(min=1)).split([gradient.numel() for gradient in gradients])
        named: dict[str, Any] = dict(zip(map(str, figures), tail[:-2] / tail[-2], strict=True))
        sound_tasks, tasks = map(int, tail[-2:].tolist())
        named |= {"tasks": tasks, "skipped": tasks - sound_tasks}
        return [mean.view_as(gradient) for mean, gradient in zip(means, gradients, strict=True)], named

    def _report(self, step: MetaStep, numbers: Sequence[int], skipped: int) -> None:
        bad = (~step.sound).nonzero().flatten().tolist() if skipped else []
        histories = [f"task {numbers[i]}: {_history(step, i)}" for i in bad[:SHOWN]]
        for history in histories:
            logger.warning("Left out, for not all of its losses and gradients are finite, %s", history)
        self._skipping = self._skipping + 1 if skipped else 0
        if self._skipping >= self.max_skipping:
            raise RuntimeError(
                f"{self._skipping} meta-steps in a row had tasks whose losses or gradients are not finite; the last, "
                f"{'; '.join(histories) or 'in another process'}. {_diagnosis(step, bad, self.meta_gradient)}"
            )


def _history(step: MetaStep, index: int) -> str:
    inner = ", ".join(f"{value:.3g}" for value in step.inner_losses[index].tolist())
    return f"inner losses {inner or 'none'}; loss on the query {step.query_loss[index].item():.3g}"


def _diagnosis(step: MetaStep, bad: Sequence[int], meta_gradient: MetaGradient) -> str:
    inner = meta_gradient.inner
    first = step.inner_losses[bad, :1] if bad else step.inner_losses[:, :1]
    if not first.isfinite().all():
        return (
            "The loss is not finite before the first inner step: the images hold values that are not, or the learned "
            "weights have diverged. Check the images, or take a lower learning rate, and resume from an earlier epoch."
        )
    if not step.inner_losses[bad].isfinite().all():
        return (
            f"The inner loop diverges: {inner.steps} steps of {inner.optimizer} with lr {inner.lr:g} are too long. "
            "Take a lower lr or fewer steps."
        )
    return (
        f"The inner loop ends, but what follows is not finite: its {inner.steps} steps of {inner.optimizer} with lr "
        f"{inner.lr:g} are at the edge of diverging. Take a lower lr, or first-order meta-gradients."
    )
