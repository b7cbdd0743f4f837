# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from monai.config import PathLike
from monai.inferers import Inferer
from monai.transforms import (
    Compose,
    Invertd,
)
from monai.utils import CommonKeys, ensure_tuple

import monai_fewshot
from monai_fewshot.data import (
    LoadScand,
    VolumePreparation,
    load_scans,
    name_classes,
    shown_classes,
    support_scans,
    without_labels,
)
from monai_fewshot.handlers import MaskQuality, OutputFiles, ScanResults, write_index
from monai_fewshot.metrics import CONFIDENCE_LINE, REVERSE_LINE
from monai_fewshot.utils import EpisodeKeys, write_atomically

from .failing_scans import run_past_failures
from .segmentation import Segmentation, check_support_files
from .trained_model import GivenModel, TrainedModel

__all__ = ["FolderSegmentation"]


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
        outputs: one or several of ``"nifti"``, ``"dicom_seg"`` and ``"seg_nrrd"``, or ``"png"`` for pictures. Defaults
            to None: PNG files of a model of pictures, else NIfTI.
        measurements: whether to write ``measurements.csv``.
        previews: whether to write pictures.
        postfix: what follows the scan's name in the name of its mask.
        overwrite: whether to segment scans anew that have all of their results.
        keep_largest: whether each class of a mask keeps its largest connected components alone, as many as the support
            shows; one where there is no support.
        dtype: the precision, which the index page states.
        failures: file for what goes wrong with single scans, which then does not stop the others: a JSON object,
            reason by name of the scan. None: the first scan that cannot be segmented ends the run.
        flag_below: predicted Dice below which the index page says that a mask is to be looked at, with
            ``quality.csv``; None predicts no quality.
        probabilities: whether to write a map of each class's probability, as NIfTI.
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
        outputs: str | Sequence[str] | None = None,
        measurements: bool = False,
        previews: bool = False,
        postfix: str = "seg",
        overwrite: bool = False,
        keep_largest: bool = True,
        dtype: torch.dtype | None = None,
        failures: PathLike | None = None,
        flag_below: float | None = None,
        probabilities: bool = False,
    ) -> None:
        further = (overwrite, keep_largest, dtype, flag_below is not None, probabilities)
        super().__init__(dataset_dir, model, inferer, output_dir, *further)
        self.name = name
        self.support = (support_image, support_label, support_series_uid)
        self.chosen: dict[str, Any] = {"modality": modality, "description": description, "series_uid": series_uid}
        self.class_names = class_names
        self.segment_codes = segment_codes
        self.own_preparation = preparation
        self.failures = failures
        self.outputs = outputs
        self.further_results: dict[str, Any] = {"postfix": postfix, "measurements": measurements, "previews": previews}
        self.further_results.update(flag_below=flag_below, probabilities=probabilities)

    @cached_property
    def files(self) -> OutputFiles:
        """What is written, and where."""
        usual = "png" if self.model.preparation.pictures else "nifti"
        return OutputFiles(self.output_dir, formats=self.outputs or usual, **self.further_results)

    @cached_property
    def supports(self) -> list[dict[str, Any]]:
        """The annotated scans; none where the network knows its classes."""
        image, label, series_uid = self.support
        if self.model.classes is not None:
            return []
        if image is None or label is None:
            raise ValueError("This network is shown its classes: give support_image and support_label.")
        check_support_files(image, label)
        return support_scans(image, label, series_uid)

    @cached_property
    def pending(self) -> list[dict[str, Any]]:
        """The scans that lack any of the wanted results."""
        no_scans = [self.output_dir, *(() if self.support[1] is None else ensure_tuple(self.support[1]))]
        scans = load_scans(self.dataset_dir, **self.chosen, leave_out=no_scans)
        return self.files.pending(without_labels(scans), self.overwrite)

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
        inverted = partial(Invertd, transform=self.preparation.grid, orig_keys=CommonKeys.IMAGE)
        maps = [EpisodeKeys.SPREAD] if self.log_odds and self.files.previews else []
        maps += [EpisodeKeys.PROBABILITY] if self.keeps_probability else []
        return [inverted(CommonKeys.PRED, nearest_interp=True), *(inverted(key, nearest_interp=False) for key in maps)]

    def handlers(self) -> list[Any]:
        """Write the results of each scan."""
        names = name_classes(self.classes, self.class_names, self.supports)
        loading = LoadScand(class_names=self.class_names)
        results = ScanResults(
            self.files, self.pending, loading, names, self.segment_codes, self.name, monai_fewshot.__version__
        )
        if not self.predicts_quality:
            return [results]
        line = CONFIDENCE_LINE if self.log_odds else REVERSE_LINE
        return [
            results,
            MaskQuality(self.files.quality_table, line, {number: names[number] for number in self.classes}),
        ]

    def check(self) -> None:
        """Check the device, the checkpoint, the output folder and all files, before anything is segmented.

        Raises:
            ValueError: where a setting or a file does not do; all problems of files are listed.
        """
        super().check()
        if self.keeps_probability and self.supports:
            raise ValueError(f"{self.name} gives scores and no probabilities: leave probabilities out.")
        self.model.preparation.check_kind([*self.supports, *self.pending])
        self.files.check(self.pending)
        self.model.preparation.check([*self.supports, *self.pending])
        if self.supports and self.preparation.spatial is not None:
            self._check_classes()

    def _check_classes(self) -> None:
        """Raise a ValueError where a class of the supports is lost on the grid of the network."""
        shown = shown_classes(self.supports, self.class_names)
        names = name_classes(shown, self.class_names, self.supports)
        lost = [f"{number} ({names[number]})" for number in shown if number not in self.classes]
        if lost:
            raise ValueError(
                f"{', '.join(scan['label'] for scan in self.supports)}: no voxel is left of {', '.join(lost)} where "
                "scans are resampled for the network: annotate more of it, or leave it out of the label."
            )

    def run(self) -> None:
        """Segment the scans that lack results, and write the index page of all."""
        if self.failures is None:
            super().run()
        else:
            failed = run_past_failures(self.make_evaluator, self.dataset, [scan["name"] for scan in self.pending])
            write_atomically(self.failures, json.dumps(failed, indent=1))
        precision = {} if self.dtype is None else {"dtype": str(self.dtype)}
        write_index(self.files, {"name": self.name, "version": monai_fewshot.__version__, **precision})
