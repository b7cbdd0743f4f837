# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any

import torch
from monai.config import PathLike
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import (
    Invertd,
)
from monai.utils import CommonKeys

import monai_fewshot
from monai_fewshot.data import OneAtATime, name_classes
from monai_fewshot.handlers import (
    BackgroundWriting,
    MaskQuality,
    OutputFiles,
    ResultRecords,
    ScanResults,
    finish_results,
)
from monai_fewshot.metrics import CONFIDENCE_LINE, REVERSE_LINE
from monai_fewshot.utils import (
    EpisodeKeys,
    gather_in_first,
    reason_of,
    run_in_first,
    run_together,
    write_atomically,
)

from .failing_scans import run_past_failures
from .folder_scans import FolderScans
from .trained_model import GivenModel, TrainedModel

__all__ = ["FolderSegmentation"]


class FolderSegmentation(FolderScans):
    """Segments every scan of a folder and writes masks, measurements and pictures; interrupted, it goes on later.

    The network is shown its classes by annotated support scans, or knows them. Scans are prepared as those that it was
    trained on (:class:`~monai_fewshot.data.VolumePreparation`), and masks lie on each scan's own grid.

    The model, the supports and the headers of all scans are checked first. Each scan is read once, ahead of the
    network, and its voxels are checked then; one that cannot be segmented does not stop the others. Results are written
    while the next scan is segmented. The processes of torchrun share the scans by their size.

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
        failures: file for what goes wrong with single scans: a JSON object, reason by name of the scan. None: the run
            ends with an error that lists them, after all others are segmented.
        flag_below: predicted Dice below which the index page says that a mask is to be looked at, with
            ``quality.csv``; None predicts no quality.
        probabilities: whether to write a map of each class's probability, as NIfTI.
        num_workers: number of threads that read scans ahead; 0 for none. Defaults to None: by free memory, the size of
            the scans and the number of cores.
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
        num_workers: int | None = None,
    ) -> None:
        super().__init__(
            (support_image, support_label, support_series_uid),
            {"modality": modality, "description": description, "series_uid": series_uid},
            class_names,
            preparation,
            num_workers,
            *(dataset_dir, model, inferer, output_dir),
            *(overwrite, keep_largest, dtype, flag_below is not None, probabilities),
        )
        self.name = name
        self.segment_codes = segment_codes
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
    def evaluator(self) -> SupervisedEvaluator:
        """Runs over the scans and writes, up to the first that fails."""
        return self.make_evaluator(self.remaining)

    @cached_property
    def results(self) -> ScanResults:
        """Writes the results of each scan."""
        names = name_classes(self.classes, self.class_names, self.supports)
        line = CONFIDENCE_LINE if self.log_odds else REVERSE_LINE
        quality = MaskQuality(line, {number: names[number] for number in self.classes})
        return ScanResults(
            self.files,
            self.queries,
            self.acquired.take,
            names,
            self.segment_codes,
            self.name,
            monai_fewshot.__version__,
            quality if self.predicts_quality else None,
            BackgroundWriting(self.acquired.discard),
        )

    def writing(self) -> list[Callable[[Any], Any]]:
        """Bring a mask back onto the scan's own grid."""
        if self.preparation.grid is None:
            return []
        inverted = partial(self._inverted, transform=self.preparation.grid, orig_keys=CommonKeys.IMAGE)
        maps = [EpisodeKeys.SPREAD] if self.log_odds and self.files.previews else []
        maps += [EpisodeKeys.PROBABILITY] if self.keeps_probability else []
        return [inverted(CommonKeys.PRED, nearest_interp=True), *(inverted(key, nearest_interp=False) for key in maps)]

    def _inverted(self, *args: Any, **settings: Any) -> OneAtATime:
        return OneAtATime(Invertd(*args, **settings), self.grid_lock)

    def handlers(self) -> list[Any]:
        """Write the results of each scan."""
        return [self.results]

    def check(self) -> None:
        """Check the device, the checkpoint, the supports and the output folder, then the headers of all scans.

        Of several processes all check, or none goes on.

        Raises:
            ValueError: where a setting or a file does not do; all problems of headers are listed.
        """
        run_together(self._check)

    def _check(self) -> None:
        super().check()
        self.model.preparation.check_kind(self.supports)
        if self.keeps_probability and self.supports:
            raise ValueError(f"{self.name} gives scores and no probabilities: leave probabilities out.")
        self.model.preparation.check(self.supports)
        if self.supports and self.preparation.spatial is not None:
            self._check_classes()
        self.model.preparation.check_kind(self.pending)
        self.files.check(self.pending)
        _ = self.voxels

    def run(self) -> None:
        """Segment the scans that lack results, and write the tables and the page of all.

        Raises:
            ValueError: where scans cannot be segmented, and ``failures`` is None; all are listed.
            WriteError: where a file cannot be written.
        """
        run_together(lambda: self.queries)  # before one process writes what another would take for done
        try:
            failed = run_together(self._segment_share) if self.pending else {}
        except BaseException:
            with suppress(ValueError, OSError):
                ResultRecords(self.files.output_dir).merge(self.files.table, self.files.quality_table)
            raise
        failed = {name: reason for part in gather_in_first(failed) for name, reason in part.items()}
        run_in_first(self._finish, failed)
        if failed and self.failures is None:
            lines = "\n".join(f"{name}: {reason}" for name, reason in failed.items())
            raise ValueError(f"{len(failed)} of {len(self.pending)} scans cannot be segmented:\n{lines}")

    def _segment_share(self) -> dict[str, str]:
        """Segment the scans of this process; return the reason of each failure, by name."""
        names = [scan["name"] for scan in self.queries]
        first = [self.evaluator] if names else []
        writing = self.results.background
        assert writing is not None
        try:
            failed = run_past_failures(
                lambda: first.pop() if first else self.make_evaluator(self.remaining),
                self.remaining,
                names,
                self.acquired.discard,
            )
        finally:
            self.reader.close()
            writing.close()
        return {name: reason_of(error) for name, error in {**failed, **writing.failed}.items()}

    def _finish(self, failed: Mapping[str, str]) -> None:
        if self.failures is not None:
            write_atomically(self.failures, json.dumps(failed, indent=1))
        precision = {} if self.dtype is None else {"dtype": str(self.dtype)}
        finish_results(self.files, {"name": self.name, "version": monai_fewshot.__version__, **precision})
