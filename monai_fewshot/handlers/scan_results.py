# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.config import PathLike
from monai.data import ImageWriter, MetaTensor
from monai.utils import CommonKeys, convert_to_numpy

import monai_fewshot
from monai_fewshot.data.annotations.slicer_writer import write_seg_nrrd
from monai_fewshot.data.dicom.segment_codes import load_segment_codes
from monai_fewshot.data.dicom.segmentation_sources import source_files
from monai_fewshot.data.dicom.segmentation_writer import write_dicom_seg
from monai_fewshot.data.files.nifti_files import is_nifti
from monai_fewshot.data.scans.mask_writer import ImageMaskWriter, MaskWriter
from monai_fewshot.data.scans.scan_folder import Scan
from monai_fewshot.metrics import Measurement, measure
from monai_fewshot.utils import EpisodeKeys, atomic_path, write_atomically
from monai_fewshot.visualize import class_colors, figure_to_png, picture_figure, preview_figure

from .background_writing import BackgroundWriting
from .mask_quality import MaskQuality
from .output_files import DICOM_SEG, NIFTI, PNG, SEG_NRRD, OutputFiles
from .result_records import ResultRecords
from .volume_scores import batch_items

__all__ = ["ScanResults"]

PREVIEW_DPI = 110
FURTHER = (EpisodeKeys.VOLUME_BOUNDS, EpisodeKeys.PROBABILITY, EpisodeKeys.SPREAD, EpisodeKeys.EVIDENCE)
SURE_SPREAD = 0.1


class ScanResults:
    """Writes what an inference makes of each scan: masks in all formats that are wanted, measurements and pictures.

    After each iteration, ``pred`` of a scan, a label map (1, H, W, D) that postprocessing made and brought onto the
    scan's own grid, is written in all formats that are wanted. Measurements and pictures are of the scan as it was
    acquired, for the network sees normalized values. Files are complete or not there, so that an interrupted run leaves
    none that another takes for done; then they are recorded (:class:`~monai_fewshot.handlers.ResultRecords`), with the
    rows of tables, which :func:`~monai_fewshot.handlers.finish_results` writes. Files and pages call scans by ``name``
    alone.

    Args:
        files: which results are wanted, and where they go.
        scans: the scans to be segmented, with ``name`` and ``image``.
        loading: loads ``image`` of a scan as (C, H, W, D), such as ``monai.transforms.LoadImaged``.
        class_names: names of the classes by number.
        segment_codes: users' own codes, see :func:`monai_fewshot.data.load_segment_codes`.
        algorithm_name: what made the masks, for DICOM segmentations.
        algorithm_version: its version.
        quality: makes rows of ``quality.csv`` from ``evidence``; None where no quality is predicted.
        background: writes while the engine goes on. Defaults to None: the engine waits.
    """

    def __init__(
        self,
        files: OutputFiles,
        scans: Sequence[Scan],
        loading: Callable[[Scan], Mapping[str, Any]],
        class_names: Mapping[int, str],
        segment_codes: Mapping[str, Mapping[str, str]] | PathLike | None = None,
        algorithm_name: str = "monai_fewshot",
        algorithm_version: str = monai_fewshot.__version__,
        quality: MaskQuality | None = None,
        background: BackgroundWriting | None = None,
    ) -> None:
        self.files = files
        self.scans = {scan["name"]: scan for scan in scans}
        self.loading = loading
        self.class_names = dict(class_names)
        self.own_codes = load_segment_codes(segment_codes)
        self.algorithm_name = algorithm_name
        self.algorithm_version = algorithm_version
        self.quality = quality
        self.background = background
        self.records = ResultRecords(files.output_dir)

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator.

        Args:
            engine: for example a :class:`monai.engines.SupervisedEvaluator`.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write_batch)

    def write(
        self,
        name: str,
        label: MetaTensor,
        volume_bounds: torch.Tensor | None = None,
        probability: MetaTensor | None = None,
        spread: MetaTensor | None = None,
        evidence: torch.Tensor | None = None,
    ) -> None:
        """Write the results of one scan.

        Args:
            name: of the scan.
            label: (1, H, W, D) class numbers on the scan's own grid.
            volume_bounds: (N, 2), least and most volume of each class in mL; None where they are not known.
            probability: (N, H, W, D), of each class, where maps of them are wanted.
            spread: (1, H, W, D), how undecided each voxel is, for dotted contours where it is below 10 % in pictures.
            evidence: (N,), from which quality is predicted.

        Raises:
            ValueError: where the label map is not on the grid of the scan.
            WriteError: where a file cannot be written.
        """
        mask = MetaTensor(label.as_tensor().cpu().round().to(torch.int32), affine=label.affine.cpu())
        written = self._write_masks(name, mask, probability)
        rows: list[Measurement] = []
        if self.files.measurements or self.files.previews:
            image = self._image(name, mask)
            if self.files.measurements:
                rows = self._measurements(name, image[0], mask, volume_bounds)
            if self.files.previews:
                figure = self._figure(name, image, mask, spread)
                written.append(write_atomically(self.files.preview(name), figure_to_png(figure, PREVIEW_DPI)))
        qualities = [] if self.quality is None or evidence is None else self.quality(name, evidence)
        self.records.add(name, written, rows, qualities)

    def _write_batch(self, engine: Engine) -> None:
        outputs, batch = engine.state.output, engine.state.batch
        for output, item in zip(batch_items(outputs), batch_items(batch), strict=True):
            further = [output.get(key) for key in FURTHER]
            name = str(item["name"])
            write = partial(self.write, name, output[CommonKeys.PRED], *further)
            if self.background is None:
                write()
            else:
                self.background(name, write)

    def _write_masks(self, name: str, mask: MetaTensor, probability: MetaTensor | None) -> list[Path]:
        """Write probabilities and masks; return the files."""
        highest = max(*self.class_names, int(mask.max()))
        source = self.scans[name]["image"]
        file = source if is_nifti(source) and Path(source).is_file() else None
        written = []
        if probability is not None:
            for number, part in zip(self.class_names, probability.split(1), strict=True):
                writer = MaskWriter(np.float32, like=file, stored_dtype=np.int16)
                written.append(_write(self.files.probability(name, number), writer, part.cpu()))
        if NIFTI in self.files.formats:
            writer = MaskWriter(np.min_scalar_type(highest), like=file)
            _write(self.files.mask(name, NIFTI), writer, mask)
        if PNG in self.files.formats:
            _write(self.files.mask(name, PNG), ImageMaskWriter(highest), mask)
        if DICOM_SEG in self.files.formats:
            self._write_dicom_seg(name, mask)
        if SEG_NRRD in self.files.formats:
            colors = class_colors(self.class_names)
            write_seg_nrrd(mask, self.class_names, self.files.mask(name, SEG_NRRD), colors, self.own_codes, file)
        return [*written, *(self.files.mask(name, each) for each in self.files.formats)]

    def _figure(self, name: str, image: np.ndarray, mask: MetaTensor, spread: MetaTensor | None) -> Figure:
        sure = None if spread is None else spread.as_tensor().cpu()[0] < SURE_SPREAD
        if PNG in self.files.formats:
            sure = None if sure is None else sure[..., 0]
            return picture_figure(image[..., 0], mask[0, ..., 0], self.class_names, name, sure)
        return preview_figure(image[0], mask[0], self.class_names, mask.affine, name, sure)

    def _write_dicom_seg(self, name: str, mask: MetaTensor) -> None:
        write_dicom_seg(
            mask,
            source_files(self.scans[name]["image"]),
            self.class_names,
            self.files.mask(name, DICOM_SEG),
            self.own_codes,
            self.algorithm_name,
            self.algorithm_version,
        )

    def _image(self, name: str, mask: MetaTensor) -> np.ndarray:
        image = self.loading(self.scans[name])[CommonKeys.IMAGE]
        if image.shape[1:4] != mask.shape[1:][: image.ndim - 1]:
            raise ValueError(
                f"Scan {name} has {tuple(image.shape[1:])} voxels, but its mask {tuple(mask.shape[1:])}: bring masks "
                "back onto the scan's own grid (monai.transforms.Invertd) in postprocessing."
            )
        return convert_to_numpy(image).reshape(-1, *mask.shape[1:])

    def _measurements(
        self, name: str, image: np.ndarray, mask: MetaTensor, volume_bounds: torch.Tensor | None
    ) -> list[Measurement]:
        rows = measure(name, image, mask[0], self.class_names, mask.affine)
        if volume_bounds is None:
            return rows
        return [
            replace(row, volume_low_ml=low, volume_high_ml=high)
            for row, (low, high) in zip(rows, volume_bounds.tolist(), strict=True)
        ]


def _write(path: Path, writer: ImageWriter, mask: MetaTensor) -> Path:
    writer.set_data_array(mask, channel_dim=0)
    writer.set_metadata({"affine": mask.affine}, resample=False)
    with atomic_path(path, mask.nbytes) as temporary:
        writer.write(temporary)
    return path
