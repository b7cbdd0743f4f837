# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler
from monai.inferers import Inferer, SimpleInferer
from monai.utils import CommonKeys

from monai_fewshot.data import EpisodeSampler, ExemplarSamples, SliceStack
from monai_fewshot.handlers import FiniteLoss, MeanLossOverProcesses, TrainingCheckpoints, check_same_training
from monai_fewshot.networks import average_gradients
from monai_fewshot.utils import (
    agree_on_file,
    load_network,
    lock_folder,
    num_processes,
    process_rank,
    run_in_first,
    run_together,
    save_checkpoint,
    share_of_batch,
    unlock_folder,
)

from .pseudo_labeling import describe_labels, pseudo_labels

__all__ = ["ExemplarTraining", "PrepareBatchSamples"]

logger = logging.getLogger(__name__)
LOG_INTERVAL = 10
"""Iterations between two points of the loss curve; reading a loss waits for the device."""


class PrepareBatchSamples(PrepareBatch):
    """Hand samples of :class:`~monai_fewshot.data.ExemplarSamples` to a trainer: all their images in a row."""

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move a batch to the device.

        Args:
            batchdata: ``image`` (B, P, C, H, W) and ``label`` (B, P, 1, H, W).
            device: where to.
            non_blocking: whether copies to the device may overlap with computation.
            kwargs: further arguments of ``torch.Tensor.to``.

        Returns:
            Images (B P, C, H, W) and labels (B, P, 1, H, W).
        """
        image, label = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
        )
        return image.flatten(0, 1), label


class ExemplarTraining:
    """Trains a network from a few annotated slices in two stages, or more.

    Stage 1 learns from exemplars and synthetic images. The network it leaves labels the slices that nobody has
    annotated, and stage 2 trains a network anew, on all three. Each further round labels and trains anew. Every stage
    has a folder ``stage_N`` with its checkpoints, from which it goes on exactly where it stopped, and its log for
    TensorBoard; a stage that is done is not repeated.

    In a process group the processes share out the samples of every batch and the slices to be labeled, so that their
    number changes nothing but the time it takes: begin all with the same weights and generators of one state, and see
    to it that normalization layers do not keep running statistics, or share them (``torch.nn.SyncBatchNorm``). The
    folder must be one that all processes see; the first one writes it.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, section 3.3,
    https://arxiv.org/abs/2204.01713.

    Deviation: pixels of pseudo-labels that the network is not sure of can be left out, and there can be more rounds.

    Args:
        network: on its device; gives logits, and in training an embedding too, such as
            :class:`~monai_fewshot.networks.nets.EmbeddingNetwork`. Every stage begins with its weights.
        samples: makes the samples of a stage, given ``unlabeled``: slices with pseudo-labels, or None; for example
            ``functools.partial(ExemplarSamples, exemplars, length, synthesis)``. Its length is that of an epoch.
        unlabeled: slices to be labeled; where they have labels, the Dice of their pseudo-labels is logged.
        has_truth: whether the labels of ``unlabeled`` are the truth; they are used for the log alone.
        loss: of the network's output and a batch's labels, such as :class:`~monai_fewshot.losses.ExemplarLoss`; what it
            draws is drawn again by a resumed training where it draws from torch's own generators.
        optimizer: makes an optimizer of parameters.
        folder: where to.
        max_epochs: of each stage.
        batch_size: samples at a time, of all processes together.
        rounds: times that unlabeled slices are labeled and learned from; 0 for stage 1 alone.
        min_confidence: pixels whose class has a lower probability are ignored in pseudo-labels.
        normalize: what is done to slices before they are labeled, as for the samples.
        resume: whether to go on with what is in the folder.
        records: what checkpoints tell beside, by name; each has a ``state_dict``.
        inferer: runs the network; default MONAI's ``SimpleInferer``.

    Raises:
        ValueError: where an argument is out of its range; during the run, where processes would have unequal shares of
            a batch, or the folder holds another training, or one is running there.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        samples: Callable[..., ExemplarSamples],
        unlabeled: SliceStack,
        loss: torch.nn.Module,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer],
        folder: PathLike,
        max_epochs: int,
        batch_size: int = 4,
        rounds: int = 1,
        min_confidence: float = 0.0,
        has_truth: bool = False,
        normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
        resume: bool = False,
        records: Mapping[str, Any] | None = None,
        inferer: Inferer | None = None,
    ) -> None:
        if rounds < 0 or not 0 <= min_confidence < 1:
            raise ValueError(
                f"rounds must be 0 or more and min_confidence from 0 to below 1, got {rounds} and {min_confidence}."
            )
        self.network = network
        self.samples = samples
        self.unlabeled = unlabeled
        self.loss = loss
        self.optimizer = optimizer
        self.folder = Path(folder)
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.rounds = rounds
        self.min_confidence = min_confidence
        self.has_truth = has_truth
        self.normalize = normalize
        self.resume = resume
        self.records = dict(records or {})
        self.inferer = inferer or SimpleInferer()

    def run(self) -> torch.nn.Module:
        """Train all stages.

        Returns:
            The network of the last one; ``model.pt`` in the folder of each stage holds that stage's, ``model.pt`` in
            the folder of all that of the last.
        """
        run_in_first(lock_folder, self.folder)
        start = copy.deepcopy(self.network.state_dict())
        pseudo = None
        for stage in range(1, self.rounds + 2):
            self.network.load_state_dict(start)
            self._train(self.folder / f"stage_{stage}", pseudo)
            if stage <= self.rounds:
                pseudo = pseudo_labels(
                    self.network, self.unlabeled, self.min_confidence, self.normalize, 3 * self.batch_size
                )
                truth = self.unlabeled if self.has_truth else None
                self._log("After stage %d %s", stage, describe_labels(pseudo, truth))
        run_in_first(self._save, self.folder / "model.pt")
        run_in_first(unlock_folder, self.folder)
        return self.network

    def _train(self, folder: Path, pseudo: SliceStack | None) -> None:
        model = folder / "model.pt"
        done = self.resume and run_together(model.is_file)
        agree_on_file(done, folder)
        if done:
            run_together(check_same_training, str(model), self.records)
            run_together(load_network, self.network, model)
            self._log("%s is there: this stage is done", model)
            return
        torch.manual_seed(torch.initial_seed())
        samples = self.samples(unlabeled=pseudo)
        shares = _Shares(samples, self.batch_size)
        loader = DataLoader(samples, batch_size=share_of_batch(self.batch_size), sampler=shares)
        optimizer = self.optimizer(self.network.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.max_epochs * len(loader))
        objects = {"model": self.network, "optimizer": optimizer, "lr_scheduler": schedule, **self.records}
        device = next(self.network.parameters()).device
        checkpoints = TrainingCheckpoints(folder, objects, self.resume)
        trainer = SupervisedTrainer(
            device=device,
            max_epochs=self.max_epochs,
            train_data_loader=loader,
            network=average_gradients(self.network, device),
            optimizer=optimizer,
            loss_function=self.loss,
            inferer=self.inferer,
            prepare_batch=PrepareBatchSamples(),
            train_handlers=[
                MeanLossOverProcesses(),
                FiniteLoss(),
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
                *self._logs(folder),
                checkpoints,
            ],
            decollate=False,
        )
        if process_rank() > 0:
            trainer.logger.setLevel(logging.WARNING)
        trainer.run()
        _take_buffers_of_the_first_process(self.network)
        run_in_first(self._save, model)

    def _save(self, path: Path) -> None:
        content = {name: item.state_dict() for name, item in {"model": self.network, **self.records}.items()}
        save_checkpoint(content, path)

    def _logs(self, folder: Path) -> list[Any]:
        if process_rank() > 0:
            return []
        return [
            ProgressBar(desc=folder.name),
            StatsHandler(iteration_log=False),
            TensorBoardStatsHandler(
                log_dir=str(folder / "logs"),
                iteration_log=LOG_INTERVAL,
                tag_name="train_loss",
                output_transform=itemgetter(CommonKeys.LOSS),
            ),
        ]

    def _log(self, text: str, *values: Any) -> None:
        if process_rank() == 0:
            logger.info(text, *values)


def _take_buffers_of_the_first_process(network: torch.nn.Module) -> None:
    if num_processes() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


class _Shares(EpisodeSampler):
    """Numbers of this process's share of every batch; the shares of all processes in a row are the batch.

    Args:
        samples: numbered samples.
        batch_size: of all processes together.

    Raises:
        ValueError: where processes would have unequal shares.
    """

    def __init__(self, samples: ExemplarSamples, batch_size: int) -> None:
        super().__init__(samples)
        if len(samples) % self.num_replicas:
            raise ValueError(
                f"An epoch of {len(samples)} samples in batches of {batch_size} ends with one of "
                f"{len(samples) % batch_size}, which cannot be dealt out evenly to {self.num_replicas} processes: "
                "choose a number of samples that is a multiple of the batch size, or another --nproc_per_node."
            )
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[int]:
        start = max(self.epoch - 1, 0) * self.total_size
        for batch in torch.arange(start, start + self.total_size).split(self.batch_size):
            yield from batch.chunk(self.num_replicas)[self.rank].tolist()
