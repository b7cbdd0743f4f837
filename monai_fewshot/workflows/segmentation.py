# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import (
    AsDiscreted,
    Compose,
    KeepLargestConnectedComponentd,
    MapLabelValued,
)
from monai.utils import CommonKeys, ensure_tuple

from monai_fewshot.data import (
    ScanEpisodes,
    check_output_dir,
)
from monai_fewshot.handlers import NetworkLoader
from monai_fewshot.inferers import VolumeInferer, class_confidence, margin_spread, reverse_dice, volume_bounds
from monai_fewshot.transforms import KeepClassPartsd, KeepSupportComponentsd
from monai_fewshot.utils import EpisodeKeys, check_device_settings, process_rank

from .trained_model import GivenModel, TrainedModel

__all__ = ["Segmentation", "check_support_files"]

logger = logging.getLogger(__name__)
SUPPORT = {
    str(key): str(key) for key in (EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL, EpisodeKeys.SUPPORT_AFFINE)
}
"""What of an episode an inferer takes, by the names of its arguments."""


class Segmentation(ABC):
    """What segmenting scans and segmenting pictures have in common.

    Args:
        dataset_dir: what is segmented.
        model: the network, and how scans are prepared for it.
        inferer: makes the inferer, given ``num_classes``.
        output_dir: where masks are written.
        overwrite: whether what has a mask already is segmented anew.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, for the check of the device.
        predicts_quality: whether evidence is gathered of how good each mask is.
        keeps_probability: whether the probability of each class is kept beside the mask.
    """

    def __init__(
        self,
        dataset_dir: PathLike,
        model: TrainedModel | GivenModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
        predicts_quality: bool = False,
        keeps_probability: bool = False,
    ) -> None:
        self.dataset_dir = dataset_dir
        self.model = model
        self.make_inferer = inferer
        self.output_dir = output_dir
        self.overwrite = overwrite
        self.keep_largest = keep_largest
        self.dtype = dtype
        self.predicts_quality = predicts_quality
        self.keeps_probability = keeps_probability

    @property
    @abstractmethod
    def supports(self) -> list[dict[str, Any]]:
        """The annotated examples; none where the network knows its classes."""

    @property
    @abstractmethod
    def pending(self) -> list[dict[str, Any]]:
        """What is to be segmented."""

    @property
    def queries(self) -> list[dict[str, Any]]:
        """What this process segments."""
        return self.pending

    @property
    @abstractmethod
    def transform(self) -> Compose:
        """Reads and prepares an item."""

    @abstractmethod
    def writing(self) -> list[Callable[[Any], Any]]:
        """Last steps of the postprocessing of a mask."""

    def handlers(self) -> list[Any]:
        """Handlers beside those that load weights and show progress."""
        return []

    def check(self) -> None:
        """Check the device, the checkpoint, the output folder and all files, before anything is segmented.

        Raises:
            ValueError: where a setting or a file does not do; all problems of files are listed.
        """
        check_device_settings(self.model.device, self.dtype, self.model.channels_last)
        check_output_dir(self.output_dir, self.dataset_dir)

    @cached_property
    def dataset(self) -> Dataset | ScanEpisodes:
        """The episodes, one an item."""
        if not self.supports:
            return Dataset(self.queries, self.transform)
        return ScanEpisodes(self.queries, self.supports, self.transform)

    @cached_property
    def classes(self) -> list[int] | dict[int, str]:
        """Classes by number that the network knows, or the numbers of those that the supports show."""
        return self.model.classes or self.dataset.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def inferer(self) -> Inferer:
        """Segments a volume."""
        return self.model.inferer(self.make_inferer, self.num_classes)

    @property
    def log_odds(self) -> bool:
        """Whether margins are log-odds."""
        return getattr(self.inferer, "log_odds", False)

    @cached_property
    def evaluator(self) -> SupervisedEvaluator:
        """Runs over the dataset and writes."""
        return self.make_evaluator(self.dataset)

    def make_evaluator(self, dataset: Any) -> SupervisedEvaluator:
        """Make what runs over a dataset, or a part of it, and writes.

        Its output holds the mask, ``pred``. Where the inferer's margins are log-odds, it holds ``spread`` too, on the
        grid of the prepared image (:func:`monai_fewshot.inferers.margin_spread`), ``volume_bounds``
        (:func:`monai_fewshot.inferers.volume_bounds`) and, where it is kept, ``probability``. Where quality is
        predicted, it holds ``evidence``: the mean confidence of each class where margins are log-odds
        (:func:`monai_fewshot.inferers.class_confidence`), else the Dice of the supports segmented after the mask
        (:func:`monai_fewshot.inferers.reverse_dice`). Writers take what they need by name.

        Args:
            dataset: episodes, one an item.
        """
        numbers = list(self.classes)
        steps: list[Callable[[Any], Any]] = []
        inferer: Any = self.inferer
        if isinstance(inferer, VolumeInferer) and not self.log_odds:
            inferer = partial(inferer, labels_only=True)
        else:
            steps += [self._add_probabilities] if self.log_odds else []
            steps.append(AsDiscreted(CommonKeys.PRED, argmax=True))
        if self.keep_largest:
            largest = KeepLargestConnectedComponentd(CommonKeys.PRED, is_onehot=False, connectivity=1)
            if self.supports:
                steps.append(KeepSupportComponentsd(CommonKeys.PRED))
            else:
                steps.append(KeepClassPartsd(CommonKeys.PRED, self.model.parts) if self.model.parts else largest)
        if self.predicts_quality:
            steps.append(self._add_confidence if self.log_odds else self._add_reverse_dice)
        steps.append(MapLabelValued(CommonKeys.PRED, range(1, 1 + len(numbers)), numbers))
        loaders = [NetworkLoader(self.model.network, path) for path in self.model.checkpoints]
        progress = [ProgressBar(desc="segmenting")] if process_rank() == 0 else []
        return SupervisedEvaluator(
            device=torch.device(self.model.device),
            val_data_loader=DataLoader(dataset, batch_size=1, num_workers=0),
            network=self.model.network,
            inferer=inferer,
            prepare_batch=PrepareBatchExtraInput(SUPPORT if self.supports else {}),
            postprocessing=Compose([*steps, *self.writing()]),
            val_handlers=[*loaders, *progress, *self.handlers()],
        )

    def _add_probabilities(self, output: Mapping[str, Any]) -> dict[str, Any]:
        margins, image = output[CommonKeys.PRED], output[CommonKeys.IMAGE]
        probability = margins[1:].sigmoid()
        affine = image.affine if isinstance(image, MetaTensor) else torch.eye(4)
        added = {
            EpisodeKeys.SPREAD: margin_spread(margins),
            EpisodeKeys.VOLUME_BOUNDS: volume_bounds(probability, affine),
        }
        return {**output, **added, **({EpisodeKeys.PROBABILITY: probability} if self.keeps_probability else {})}

    def _add_confidence(self, output: Mapping[str, Any]) -> dict[str, Any]:
        confidence = class_confidence(output[EpisodeKeys.SPREAD], output[CommonKeys.PRED], self.num_classes)
        return {**output, EpisodeKeys.EVIDENCE: confidence}

    def _add_reverse_dice(self, output: Mapping[str, Any]) -> dict[str, Any]:
        try:
            dice = reverse_dice(
                partial(self.model.inferer, self.make_inferer),
                self.model.network,
                output[CommonKeys.IMAGE],
                output[CommonKeys.PRED],
                *(output[key] for key in SUPPORT),
            )
        except ValueError as error:
            logger.warning("%s: its mask cannot be judged, look at it: %s", output["name"], error)
            dice = torch.zeros(self.num_classes)
        return {**output, EpisodeKeys.EVIDENCE: dice}

    def run(self) -> None:
        """Segment what has no mask yet."""
        if self.pending:
            self.evaluator.run()


def check_support_files(image: PathLike | Sequence[PathLike], label: PathLike | Sequence[PathLike]) -> None:
    """Check that the files of the supports are there.

    Args:
        image: one or several.
        label: likewise.

    Raises:
        FileNotFoundError: where one is not; the text has the setting's name and an example.
    """
    for name, paths in (("support_image", image), ("support_label", label)):
        for path in ensure_tuple(paths):
            if not Path(path).expanduser().exists():
                raise FileNotFoundError(
                    f"--{name}: {path} does not exist. Name an annotated image and its label, such as --support_image "
                    "image.nii.gz --support_label label.nii.gz."
                )
