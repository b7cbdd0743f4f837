# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader
from monai.engines import PrepareBatch, SupervisedTrainer
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler
from monai.inferers import Inferer, SimpleInferer
from monai.utils import CommonKeys

from monai_fewshot.data import EpisodeSampler, ExemplarSamples, SliceStack
from monai_fewshot.handlers import GlobalLoss, TrainingCheckpoints
from monai_fewshot.networks.blocks import class_masks
from monai_fewshot.utils import load_network, num_processes, process_rank, share_of_batch, write_atomically

__all__ = ["ExemplarTraining", "PrepareBatchSamples", "pseudo_labels"]

logger = logging.getLogger(__name__)
IGNORED = 255


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
        loss: of the network's output and a batch's labels, such as :class:`~monai_fewshot.losses.ExemplarLoss`.
        optimizer: makes an optimizer of parameters.
        folder: where to.
        max_epochs: of each stage.
        batch_size: samples at a time, of all processes together.
        rounds: times that unlabeled slices are labeled and learned from; 0 for stage 1 alone.
        min_confidence: pixels whose class has a lower probability are ignored in pseudo-labels.
        normalize: what is done to slices before they are labeled, as for the samples.
        resume: whether to go on with what is in the folder.
        provenance: kept in checkpoints.
        inferer: runs the network; default MONAI's ``SimpleInferer``.

    Raises:
        ValueError: where an argument is out of its range.
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
        provenance: Any = None,
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
        self.provenance = provenance
        self.inferer = inferer or SimpleInferer()

    def run(self) -> torch.nn.Module:
        """Train all stages.

        Returns:
            The network of the last one; ``model.pt`` in the folder of each stage holds that stage's, ``model.pt`` in
            the folder of all that of the last.
        """
        start = copy.deepcopy(self.network.state_dict())
        pseudo = None
        for stage in range(1, self.rounds + 2):
            self.network.load_state_dict(start)
            self._train(self.folder / f"stage_{stage}", pseudo)
            if stage <= self.rounds:
                pseudo = pseudo_labels(
                    self.network, self.unlabeled, self.min_confidence, self.normalize, 3 * self.batch_size
                )
                self._report(stage, pseudo)
        self._save(self.folder / "model.pt")
        return self.network

    def _train(self, folder: Path, pseudo: SliceStack | None) -> None:
        model = folder / "model.pt"
        if self.resume and model.is_file():
            load_network(self.network, model)
            logger.info("%s is there: this stage is done", model)
            return
        samples = self.samples(unlabeled=pseudo)
        loader = DataLoader(samples, batch_size=share_of_batch(self.batch_size), sampler=EpisodeSampler(samples))
        optimizer = self.optimizer(self.network.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.max_epochs * len(loader))
        objects = {"model": self.network, "optimizer": optimizer, "lr_scheduler": schedule}
        if self.provenance is not None:
            objects["provenance"] = self.provenance
        device = next(self.network.parameters()).device
        trainer = SupervisedTrainer(
            device=device,
            max_epochs=self.max_epochs,
            train_data_loader=loader,
            network=_shared(self.network, device),
            optimizer=optimizer,
            loss_function=self.loss,
            inferer=self.inferer,
            prepare_batch=PrepareBatchSamples(),
            train_handlers=[
                GlobalLoss(),
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
                *self._logs(folder),
                TrainingCheckpoints(folder, objects, self.resume, device),
            ],
            decollate=False,
        )
        trainer.run()
        self._save(model)

    def _save(self, path: Path) -> None:
        if process_rank() > 0:
            return
        content = {"model": self.network.state_dict()}
        if self.provenance is not None:
            content["provenance"] = self.provenance.state_dict()
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(path, buffer.getvalue())

    def _logs(self, folder: Path) -> list[Any]:
        if process_rank() > 0:
            return []

        def loss(output: Mapping[str, torch.Tensor]) -> float:
            return output[CommonKeys.LOSS].item()

        return [
            ProgressBar(desc=folder.name),
            StatsHandler(tag_name="train_loss", output_transform=loss, iteration_log=False),
            TensorBoardStatsHandler(log_dir=str(folder / "logs"), tag_name="train_loss", output_transform=loss),
        ]

    def _report(self, stage: int, pseudo: SliceStack) -> None:
        label, truth = pseudo.label, self.unlabeled.label
        logger.info(
            "After stage %d %.1f %% of the pixels are pseudo-labeled, %.1f %% as a class.",
            stage,
            100 * (label != IGNORED).float().mean().item(),
            100 * ((label != IGNORED) & (label > 0)).float().mean().item(),
        )
        if self.has_truth:
            count = int(truth.max())
            one, other = (class_masks(x.float(), count)[:, 1:] for x in (label, truth))
            dice = 2 * (one * other).sum((0, 2, 3)) / (one.sum((0, 2, 3)) + other.sum((0, 2, 3))).clamp(min=1)
            logger.info("Dice of the pseudo-labels, by class: %s", ", ".join(f"{d:.3f}" for d in dice.tolist()))


@torch.no_grad()
def pseudo_labels(
    network: torch.nn.Module,
    slices: SliceStack,
    min_confidence: float = 0.0,
    normalize: Callable[[torch.Tensor], torch.Tensor] | None = None,
    batch_size: int = 16,
) -> SliceStack:
    """Label slices with a network.

    Args:
        network: from images (B, C, H, W) to logits (B, N+1, H, W); it is put into evaluation mode.
        slices: what to label.
        min_confidence: pixels whose class has a lower probability are labeled 255, which is ignored.
        normalize: what is done to images before.
        batch_size: slices at a time.

    Returns:
        The slices, with the network's labels.
    """
    network.eval()
    labels = []
    for places in torch.arange(len(slices.image)).split(batch_size):
        image, _ = slices.take(places.tolist())
        probability, label = network(image if normalize is None else normalize(image)).softmax(1).max(1, keepdim=True)
        labels.append(label.masked_fill(probability < min_confidence, IGNORED).to(slices.label.device, torch.uint8))
    return replace(slices, label=torch.cat(labels))


def _shared(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    if num_processes() == 1:
        return network
    return torch.nn.parallel.DistributedDataParallel(network, [device] if device.type == "cuda" else None)
