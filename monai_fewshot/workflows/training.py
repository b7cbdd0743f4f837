# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike
from monai.data import DataLoader, DistributedSampler
from monai.engines import PrepareBatch, PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer, Trainer
from monai.handlers import (
    LrScheduleHandler,
    MeanDice,
    StatsHandler,
    TensorBoardImageHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
    from_engine,
)
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import AsDiscreted
from monai.utils import CommonKeys, set_determinism

from monai_fewshot.data import EpisodeSampler, NumberedSamples, check_output_dir, collate_episodes
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.handlers import (
    BestModelSaver,
    FinalModelSaver,
    FiniteLoss,
    MeanLossOverProcesses,
    TotalProgress,
    TrainingCheckpoints,
)
from monai_fewshot.inferers import AutocastInferer
from monai_fewshot.networks import average_gradients
from monai_fewshot.utils import (
    EpisodeKeys,
    Provenance,
    check_device_settings,
    lock_folder,
    num_processes,
    process_rank,
    run_in_first,
    run_together,
    share_of_batch,
    start_process_group,
)

from .trained_model import ModelRecord

__all__ = ["episode_loader", "episode_trainer", "episode_validator", "start_run", "training_handlers"]

EPISODE = {EpisodeKeys.IMAGE, EpisodeKeys.LABEL, EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL}


def start_run(
    device: torch.device | str,
    seed: int,
    output_dir: PathLike,
    dtype: torch.dtype | str | None = None,
    channels_last: bool | None = None,
    compile: bool | None = None,
    batch_size: int = 0,
) -> None:
    """Begin a run: join the other processes of torchrun, check what the run depends on, seed all generators.

    Args:
        device: what to compute on.
        seed: of the global generators.
        output_dir: where the run writes.
        dtype: see :func:`monai_fewshot.utils.check_device_settings`.
        channels_last: likewise.
        compile: likewise.
        batch_size: samples that processes share out, for a training, which then has the folder for itself; 0 for other
            runs.

    Raises:
        ValueError: where the device cannot serve a setting, processes would have unequal shares of a batch, or another
            training is running in the folder.
        OSError: where the folder cannot be written to.
    """
    start_process_group()
    run_together(check_device_settings, device, dtype, channels_last, compile)
    set_determinism(seed=seed)
    share_of_batch(batch_size)
    run_in_first(check_output_dir, output_dir)
    if batch_size:
        run_in_first(lock_folder, output_dir)


def episode_loader(dataset: NumberedSamples, batch_size: int) -> DataLoader:
    """Load batches of episodes, or of other numbered samples, for training; processes share out each batch.

    Args:
        dataset: draws the episodes, on the device.
        batch_size: of all processes together.
    """
    sampler = EpisodeSampler(dataset)
    size = share_of_batch(batch_size)
    return DataLoader(dataset, batch_size=size, sampler=sampler, num_workers=0, collate_fn=collate_episodes)


def episode_trainer(
    max_epochs: int,
    device: torch.device | str,
    dataset: NumberedSamples,
    batch_size: int,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[..., torch.Tensor],
    handlers: Sequence[Any],
    dtype: torch.dtype = torch.float32,
    inferer: Inferer | None = None,
    prepare_batch: PrepareBatch | None = None,
    accumulation_steps: int = 1,
) -> SupervisedTrainer:
    """Make the trainer of a network that learns from episodes; in a process group its gradients are averaged.

    Args:
        max_epochs: number of epochs.
        device: of the network.
        dataset: draws the episodes; its length is that of an epoch.
        batch_size: episodes of a step, of all processes together.
        network: on its device.
        optimizer: of its parameters.
        loss: of the network's output and what ``prepare_batch`` makes of the labels.
        handlers: such as :func:`training_handlers` makes.
        dtype: of the network's convolutions and matrix products.
        inferer: runs the network; by default in the precision ``dtype``.
        prepare_batch: by default :class:`~monai_fewshot.engines.PrepareBatchEpisode`.
        accumulation_steps: batches whose gradients are added up for one step.
    """
    return SupervisedTrainer(
        device=torch.device(device),
        max_epochs=max_epochs,
        train_data_loader=episode_loader(dataset, batch_size),
        network=average_gradients(network, torch.device(device)),
        optimizer=optimizer,
        loss_function=loss,
        inferer=inferer or AutocastInferer(SimpleInferer(), dtype),
        prepare_batch=prepare_batch or PrepareBatchEpisode(),
        train_handlers=list(handlers),
        decollate=False,
        accumulation_steps=accumulation_steps,
        optim_set_to_none=True,
    )


def episode_validator(
    device: torch.device | str,
    dataset: NumberedSamples,
    batch_size: int,
    network: torch.nn.Module,
    dtype: torch.dtype = torch.float32,
    inferer: Inferer | None = None,
    ways: int = 1,
    prepare_batch: PrepareBatch | None = None,
) -> SupervisedEvaluator:
    """Make the evaluator of a training's validation episodes: mean Dice of the foreground, ``val_dice``.

    Args:
        device: of the network.
        dataset: the episodes; processes share them out.
        batch_size: episodes at a time.
        network: on its device.
        dtype: of the network's convolutions and matrix products.
        inferer: runs the network; by default in the precision ``dtype``.
        ways: number of foreground classes of an episode.
        prepare_batch: by default hands over the support beside the image.
    """
    sampler = DistributedSampler(dataset, even_divisible=False, shuffle=False) if num_processes() > 1 else None
    return SupervisedEvaluator(
        device=torch.device(device),
        val_data_loader=DataLoader(
            dataset, batch_size=batch_size, sampler=sampler, num_workers=0, collate_fn=collate_episodes
        ),
        network=network,
        inferer=inferer or AutocastInferer(SimpleInferer(), dtype),
        prepare_batch=prepare_batch or PrepareBatchExtraInput([EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL]),
        postprocessing=AsDiscreted([CommonKeys.PRED, CommonKeys.LABEL], argmax=[True, False], to_onehot=ways + 1),
        key_val_metric={
            "val_dice": MeanDice(
                include_background=False, output_transform=from_engine([CommonKeys.PRED, CommonKeys.LABEL])
            )
        },
    )


def training_handlers(
    folder: PathLike,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    lr_scheduler: Any,
    settings: ModelRecord,
    provenance: Provenance,
    validator: SupervisedEvaluator | None = None,
    val_interval: int = 1,
    resume: bool = False,
    log_interval: int = 10,
    further: Mapping[str, Any] | None = None,
    kept: torch.nn.Module | None = None,
) -> list[Any]:
    """Make what every training has: schedule, validation, progress, logs, checkpoints that resume, the best network.

    The validator's network at the best validation, or the last network, or ``kept``, where no validation counted, is
    ``model.pt`` in the folder. Losses or weights that are not finite end the training. Logs for TensorBoard are in its
    folder ``logs``. In a process group all processes take part, and the first one writes.

    Args:
        folder: of checkpoints and logs.
        network: that is trained.
        optimizer: its optimizer.
        lr_scheduler: changes the learning rate after every step.
        settings: what checkpoints tell of the network and the preparation of scans.
        provenance: what else they tell.
        validator: of :func:`episode_validator`; None for a training without validation.
        val_interval: epochs between two validations.
        resume: whether to go on with the newest checkpoint in the folder.
        log_interval: steps between two points of the curve of the loss; reading a loss waits for the device.
        further: other handlers by name, which have a state.
        kept: what the training is for, where that is not the trained network itself, such as its moving average.
    """
    log_dir = str(Path(folder) / "logs")
    first = process_rank() == 0
    records = {"settings": settings, "provenance": provenance}
    objects = {"model": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler, **records, **(further or {})}
    final = {"model": kept or (network if validator is None else validator.network), **records}
    handlers: list[Any] = [
        QuietInOthers(),
        MeanLossOverProcesses(),
        FiniteLoss(),
        LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False),
    ]
    if validator is not None:
        objects["best_model"] = BestModelSaver(str(folder), final)
        for handler in [QuietInOthers(), *(_validation_logs(log_dir) if first else []), objects["best_model"]]:
            handler.attach(validator)
        handlers.append(ValidationHandler(val_interval, validator, epoch_level=True))
    if first:
        handlers += [
            TotalProgress(),
            StatsHandler(iteration_log=False),
            TensorBoardStatsHandler(log_dir=log_dir, iteration_log=log_interval, output_transform=_scalars),
        ]
    end = FinalModelSaver(str(folder), final, unless=objects.get("best_model"))
    return [*handlers, *(further or {}).values(), end, TrainingCheckpoints(folder, objects, resume)]


class QuietInOthers:
    """Let an engine's messages come from the first process alone."""

    def attach(self, engine: Trainer | SupervisedEvaluator) -> None:
        """Set the level of its messages."""
        if process_rank() > 0:
            engine.logger.setLevel("WARNING")


def _validation_logs(log_dir: str) -> list[Any]:
    return [
        StatsHandler(iteration_log=False),
        TensorBoardStatsHandler(log_dir=log_dir, iteration_log=False),
        TensorBoardImageHandler(
            log_dir=log_dir,
            batch_transform=from_engine([CommonKeys.IMAGE, CommonKeys.LABEL]),
            output_transform=from_engine(CommonKeys.PRED),
        ),
    ]


def _scalars(output: Mapping[str, Any]) -> dict[str, float]:
    """Pick the loss, and what a trainer adds to it, of an output."""
    values = {name: value for name, value in output.items() if name not in EPISODE and name != CommonKeys.PRED}
    return {f"train_{name}" if name == CommonKeys.LOSS else name: float(value) for name, value in values.items()}
