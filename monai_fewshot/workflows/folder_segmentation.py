# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import (
    AsDiscreted,
    Compose,
    Invertd,
    KeepLargestConnectedComponentd,
    MapLabelValued,
    SaveImaged,
)
from monai.utils import CommonKeys

import monai_fewshot
from monai_fewshot.data import (
    ImageMaskWriter,
    LoadScand,
    ScanEpisodes,
    VolumePreparation,
    check_images,
    check_output_dir,
    check_scans,
    load_image_set,
    load_scans,
    name_classes,
    pending_scans,
    support_images,
    support_scans,
    without_labels,
)
from monai_fewshot.handlers import NetworkLoader, OutputFiles, ScanResults, write_index
from monai_fewshot.transforms import KeepSupportComponentsd
from monai_fewshot.utils import EpisodeKeys, check_device_settings

from .trained_model import GivenModel, TrainedModel

__all__ = ["FolderSegmentation", "PictureSegmentation"]

SUPPORT = {
    str(key): str(key) for key in (EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL, EpisodeKeys.SUPPORT_AFFINE)
}
"""What of an episode an inferer takes, by the names of its arguments."""


class Segmentation(ABC):
    """What segmenting scans and segmenting pictures have in common.

    Args:
        model: the network, and how scans are prepared for it.
        inferer: makes the inferer, given ``num_classes``.
        output_dir: where masks are written.
        overwrite: whether what has a mask already is segmented anew.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, for the check of the device.
    """

    def __init__(
        self,
        model: TrainedModel | GivenModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.make_inferer = inferer
        self.output_dir = output_dir
        self.overwrite = overwrite
        self.keep_largest = keep_largest
        self.dtype = dtype

    @property
    @abstractmethod
    def supports(self) -> list[dict[str, Any]]:
        """The annotated examples; none where the network knows its classes."""

    @property
    @abstractmethod
    def pending(self) -> list[dict[str, Any]]:
        """What is to be segmented."""

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
        check_output_dir(self.output_dir)

    @cached_property
    def dataset(self) -> Dataset | ScanEpisodes:
        """The episodes, one an item."""
        if not self.supports:
            return Dataset(self.pending, self.transform)
        return ScanEpisodes(self.pending, self.supports, self.transform)

    @cached_property
    def classes(self) -> int | dict[int, str]:
        """Classes by number that the network knows, or how many the supports show."""
        if self.model.classes is not None:
            return self.model.classes
        return int(max(label.max() for label in self.dataset.support[EpisodeKeys.SUPPORT_LABEL]))

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @cached_property
    def inferer(self) -> Inferer:
        """Segments a volume."""
        return self.model.inferer(self.make_inferer, self.num_classes)

    @cached_property
    def evaluator(self) -> SupervisedEvaluator:
        """Runs over the dataset and writes."""
        numbers = list(self.classes) if isinstance(self.classes, Mapping) else []
        steps: list[Callable[[Any], Any]] = [AsDiscreted(CommonKeys.PRED, argmax=True)]
        if self.keep_largest:
            largest = KeepLargestConnectedComponentd(CommonKeys.PRED, is_onehot=False, connectivity=1)
            steps.append(KeepSupportComponentsd(CommonKeys.PRED) if self.supports else largest)
        if numbers:
            steps.append(MapLabelValued(CommonKeys.PRED, range(1, 1 + len(numbers)), numbers))
        loaders = [NetworkLoader(self.model.network, path) for path in self.model.checkpoints]
        return SupervisedEvaluator(
            device=torch.device(self.model.device),
            val_data_loader=DataLoader(self.dataset, batch_size=1, num_workers=0),
            network=self.model.network,
            inferer=self.inferer,
            prepare_batch=PrepareBatchExtraInput(SUPPORT if self.supports else {}),
            postprocessing=Compose([*steps, *self.writing()]),
            val_handlers=[*loaders, ProgressBar(desc="segmenting"), *self.handlers()],
        )

    def run(self) -> None:
        """Segment what has no mask yet."""
        if self.pending:
            self.evaluator.run()


class FolderSegmentation(Segmentation):
    """Segments every scan of a folder and writes masks, measurements and pictures; interrupted, it goes on later.

    The network is shown its classes by annotated support scans, or knows them. Scans are prepared as those that it was
    trained on (:class:`~monai_fewshot.data.VolumePreparation`), and masks lie on each scan's own grid.

    Args:
        dataset_dir: the scans, see :func:`monai_fewshot.data.load_scans`.
        model: the network, and how scans are prepared for it.
        inferer: makes the inferer, given ``num_classes``, such as a ``functools.partial`` of
            :class:`~monai_fewshot.inferers.FewShotVolumeInferer`.
        output_dir: where results are written.
        name: of the method, for DICOM segmentations and the index page.
        support_image: the annotated scan, or several; None for a network that knows its classes.
        support_label: their label maps.
        support_series_uid: see :func:`monai_fewshot.data.support_scans`.
        modality: of the DICOM series to segment, see :func:`monai_fewshot.data.load_scans`.
        description: likewise.
        series_uid: likewise.
        class_names: names of the classes 1, 2, ..., see :func:`monai_fewshot.data.name_classes`.
        segment_codes: see :func:`monai_fewshot.data.load_segment_codes`.
        preparation: brings scans as they were acquired onto the spacing and size that the network was trained at, where
            the model does not do it itself.
        outputs: ``"nifti"``, ``"dicom_seg"`` or both.
        measurements: whether to write ``measurements.csv``.
        previews: whether to write pictures.
        postfix: what follows the scan's name in the name of its mask.
        overwrite: whether to segment scans anew that have all of their results.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, which the index page states.
    """

    def __init__(
        self,
        dataset_dir: PathLike,
        model: TrainedModel | GivenModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        name: str,
        support_image: PathLike | Sequence[PathLike] | None = None,
        support_label: PathLike | Sequence[PathLike] | None = None,
        support_series_uid: str | Sequence[str] | None = None,
        modality: str | None = None,
        description: str | None = None,
        series_uid: str | Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        segment_codes: Mapping[str, Mapping[str, str]] | PathLike | None = None,
        preparation: Callable[[Any], Any] | None = None,
        outputs: str | Sequence[str] = ("nifti",),
        measurements: bool = False,
        previews: bool = False,
        postfix: str = "seg",
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, inferer, output_dir, overwrite, keep_largest, dtype)
        self.dataset_dir = dataset_dir
        self.name = name
        self.support = (support_image, support_label, support_series_uid)
        self.chosen: dict[str, Any] = {"modality": modality, "description": description, "series_uid": series_uid}
        self.class_names = class_names
        self.segment_codes = segment_codes
        self.own_preparation = preparation
        self.files = OutputFiles(output_dir, postfix, outputs, measurements, previews)

    @cached_property
    def supports(self) -> list[dict[str, Any]]:
        """The annotated scans; none where the network knows its classes."""
        image, label, series_uid = self.support
        if self.model.classes is not None:
            return []
        if image is None or label is None:
            raise ValueError("This network is shown its classes: give support_image and support_label.")
        return support_scans(image, label, series_uid)

    @cached_property
    def pending(self) -> list[dict[str, Any]]:
        """The scans that lack any of the wanted results."""
        return self.files.pending(without_labels(load_scans(self.dataset_dir, **self.chosen)), self.overwrite)

    @cached_property
    def preparation(self) -> VolumePreparation:
        """The model's preparation, with the caller's own where it has none."""
        trained = self.model.preparation
        if self.supports:
            trained = trained.on_axes_of(self.supports[0])
        if self.own_preparation is None:
            return trained
        if trained.spatial is not None:
            raise ValueError(
                f"preparation is given, but {', '.join(self.model.checkpoints)} prepares scans itself "
                f"({trained.settings()['spatial']}): leave preparation out."
            )
        return trained.changed(spatial=self.own_preparation)

    @cached_property
    def transform(self) -> Compose:
        """Reads and prepares a scan."""
        return self.preparation.transform(class_names=self.class_names)

    def writing(self) -> list[Callable[[Any], Any]]:
        """Bring a mask back onto the scan's own grid."""
        if self.preparation.grid is None:
            return []
        return [Invertd(CommonKeys.PRED, self.preparation.grid, orig_keys=CommonKeys.IMAGE, nearest_interp=True)]

    def handlers(self) -> list[Any]:
        """Write the results of each scan."""
        return [
            ScanResults(
                self.files,
                self.pending,
                LoadScand(class_names=self.class_names),
                name_classes(self.classes, self.class_names, self.supports),
                self.segment_codes,
                self.name,
                monai_fewshot.__version__,
            )
        ]

    def check(self) -> None:
        """Check the device, the checkpoint, the output folder and all files, before anything is segmented.

        Raises:
            ValueError: where a setting or a file does not do; all problems of files are listed.
        """
        super().check()
        check_scans([*self.supports, *self.pending])
        self.files.check(self.pending)

    def run(self) -> None:
        """Segment the scans that lack results, and write the index page of all."""
        super().run()
        precision = {} if self.dtype is None else {"dtype": str(self.dtype)}
        write_index(self.files, {"name": self.name, "version": monai_fewshot.__version__, **precision})


class PictureSegmentation(Segmentation):
    """Segments every 2D picture of a folder, using annotated pictures as the example, and writes masks as PNG files.

    Args:
        dataset_dir: the pictures, see :func:`monai_fewshot.data.load_image_set`.
        model: the network, and how pictures are prepared for it.
        inferer: makes the inferer, given ``num_classes``.
        output_dir: where masks are written.
        support_image: the annotated picture, or several.
        support_label: their masks.
        layout: of ``dataset_dir``.
        binary_masks: whether all that is not 0 in a mask is one class; else masks hold class numbers.
        mask_threshold: gray level above which a pixel of a binary mask is foreground.
        postfix: what follows the picture's name in the name of its mask.
        overwrite: whether to segment pictures anew that have a mask.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, for the check of the device.
    """

    def __init__(
        self,
        dataset_dir: PathLike,
        model: TrainedModel,
        inferer: Callable[..., Inferer],
        output_dir: PathLike,
        support_image: PathLike | Sequence[PathLike],
        support_label: PathLike | Sequence[PathLike],
        layout: str = "auto",
        binary_masks: bool = True,
        mask_threshold: int | None = None,
        postfix: str = "seg",
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, inferer, output_dir, overwrite, keep_largest, dtype)
        self.dataset_dir = dataset_dir
        self.support = (support_image, support_label, binary_masks, mask_threshold)
        self.layout = layout
        self.postfix = postfix

    @cached_property
    def supports(self) -> list[dict[str, Any]]:
        """The annotated pictures."""
        return support_images(*self.support)

    @cached_property
    def pending(self) -> list[dict[str, Any]]:
        """The pictures that have no mask yet."""
        images = without_labels(load_image_set(self.dataset_dir, self.layout).images)
        return pending_scans(images, self.output_dir, self.postfix, self.overwrite, ".png")

    @cached_property
    def transform(self) -> Compose:
        """Reads and prepares a picture."""
        return self.model.preparation.transform()

    def writing(self) -> list[Callable[[Any], Any]]:
        """Write a mask."""
        return [
            SaveImaged(
                CommonKeys.PRED,
                output_dir=self.output_dir,
                output_postfix=self.postfix,
                output_ext=".png",
                output_dtype=np.uint8,
                writer=partial(ImageMaskWriter, num_classes=self.num_classes),
                separate_folder=False,
                resample=False,
            )
        ]

    def check(self) -> None:
        """Check the device, the checkpoint, the output folder and all files, before anything is segmented.

        Raises:
            ValueError: where a setting or a file does not do; all problems of files are listed.
        """
        super().check()
        check_images([*self.supports, *self.pending], self.model.preparation.channels)
