# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple, optional_import

from monai_fewshot.data.annotations.slicer_segments import check_simpleitk, is_whole_seg_nrrd
from monai_fewshot.data.dicom.segmentation_sources import source_files, source_headers, source_problems
from monai_fewshot.data.dicom.segmentation_writer import check_highdicom
from monai_fewshot.data.scans.inference_scans import is_whole_image, is_whole_mask
from monai_fewshot.data.scans.scan_folder import Scan
from monai_fewshot.data.scans.volume_preparation import holds_picture
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE, worst_qualities
from monai_fewshot.visualize import write_scan_index

from .result_records import ResultRecord, ResultRecords

__all__ = ["OutputFiles", "finish_results", "write_index"]

pydicom, _ = optional_import("pydicom")
logger = logging.getLogger(__name__)

NIFTI, DICOM_SEG, SEG_NRRD, PNG = "nifti", "dicom_seg", "seg_nrrd", "png"
PREVIEWS, PROBABILITIES = "previews", "probabilities"
SUFFIXES = {NIFTI: ".nii.gz", DICOM_SEG: ".dcm", SEG_NRRD: ".seg.nrrd", PNG: ".png"}


@dataclass(frozen=True)
class OutputFiles:
    """What an inference writes, and where.

    Files are called by the name of their scan: ``NAME_seg.nii.gz``, ``NAME_seg.dcm``, ``NAME_seg.seg.nrrd``,
    ``previews/NAME.png``, ``probabilities/NAME_NUMBER.nii.gz`` of each class; there is one ``measurements.csv``, one
    ``quality.csv`` and one ``index.html`` for all.

    Args:
        output_dir: folder of all files.
        postfix: what follows the scan's name in the name of its mask.
        formats: of the masks, one or several of ``"nifti"``, ``"dicom_seg"`` (for DICOM series only; needs highdicom)
            and ``"seg_nrrd"`` (for 3D Slicer; needs SimpleITK); for 2D pictures ``"png"`` alone.
        measurements: whether ``measurements.csv`` is wanted.
        previews: whether pictures are wanted.
        probabilities: whether maps of each class's probability are wanted.
        flag_below: predicted Dice, from 0 to 1, below which the page says that a mask is to be looked at; None where
            no quality is wanted.

    Raises:
        ValueError: for other formats, or none, or a ``flag_below`` out of its range.

    Example:
        >>> OutputFiles("masks", formats=["nifti", "dicom_seg"]).mask("scan_1", "dicom_seg").as_posix()
        'masks/scan_1_seg.dcm'
    """

    output_dir: PathLike
    postfix: str = "seg"
    formats: str | Sequence[str] = (NIFTI,)
    measurements: bool = False
    previews: bool = False
    probabilities: bool = False
    flag_below: float | None = None

    def __post_init__(self) -> None:
        formats = ensure_tuple(self.formats)
        if not formats or set(formats) - set(SUFFIXES):
            raise ValueError(f"outputs are {list(formats)}; give one or several of {list(SUFFIXES)}.")
        if self.flag_below is not None and not 0 <= self.flag_below <= 1:
            raise ValueError(f"flag_below is {self.flag_below}: give a Dice from 0 to 1, such as 0.7.")
        object.__setattr__(self, "output_dir", Path(self.output_dir))
        object.__setattr__(self, "formats", formats)

    def mask(self, name: str, output_format: str) -> Path:
        """Path of a scan's mask in a format."""
        return Path(self.output_dir) / f"{name}_{self.postfix}{SUFFIXES[output_format]}"

    def preview(self, name: str) -> Path:
        """Path of a scan's picture."""
        return Path(self.output_dir) / PREVIEWS / f"{name}.png"

    def probability(self, name: str, number: int) -> Path:
        """Path of the map of a scan's class."""
        return Path(self.output_dir) / PROBABILITIES / f"{name}_{number}.nii.gz"

    @property
    def table(self) -> Path:
        """Path of the measurements."""
        return Path(self.output_dir) / "measurements.csv"

    @property
    def quality_table(self) -> Path:
        """Path of the predicted qualities."""
        return Path(self.output_dir) / "quality.csv"

    @property
    def index(self) -> Path:
        """Path of the page."""
        return Path(self.output_dir) / "index.html"

    def pending(self, scans: Sequence[Scan], overwrite: bool = False) -> list[Scan]:
        """List the scans that lack any of the wanted files, so that an interrupted run goes on where it stopped.

        A file of the size that a record of its scan tells (:class:`~monai_fewshot.handlers.ResultRecords`) is complete,
        and is not opened. Any other is read; one that cannot be read whole does not count.

        Args:
            scans: all scans.
            overwrite: whether to segment all scans anew.

        Raises:
            ValueError: where ``measurements.csv`` or ``quality.csv`` holds something else.
        """
        records = ResultRecords(self.output_dir).read()
        wanted = self._scans_beside_masks(records)
        pending = [
            scan
            for scan in scans
            if overwrite
            or any(scan["name"] not in names for names in wanted)
            or not self._has_files(scan["name"], records.get(scan["name"]))
        ]
        if len(pending) < len(scans):
            done = len(scans) - len(pending)
            logger.info("%d of %d scans have all of their results in %s already", done, len(scans), self.output_dir)
        return pending

    def check(self, scans: Sequence[Scan]) -> None:
        """Check before an inference that what is wanted can be written.

        Args:
            scans: those to be segmented.

        Raises:
            OptionalImportError: where a DICOM segmentation is wanted without highdicom, or one of 3D Slicer without
                SimpleITK.
            ValueError: where a DICOM segmentation is wanted of scans that are no DICOM series, or of series that it
                cannot refer to, PNG files of volumes, or other files or measurements of pictures.
        """
        if scans:
            self._check_kind(scans)
        if SEG_NRRD in self.formats:
            check_simpleitk()
        if DICOM_SEG not in self.formats:
            return
        check_highdicom()
        others = [scan["name"] for scan in scans if not source_files(scan["image"])]
        if others:
            raise ValueError(
                f"outputs name dicom_seg, but {len(others)} of {len(scans)} scans are no DICOM series: "
                f"{', '.join(others[:10])}. A DICOM segmentation refers to the images of a series: give DICOM series, "
                'or leave "dicom_seg" out.'
            )
        problems = {scan["name"]: source_problems(*source_headers(source_files(scan["image"]))) for scan in scans}
        failing = [name for name, found in problems.items() if found]
        if failing:
            lines = [f"{name}: {problem}" for name in failing for problem in problems[name]]
            raise ValueError(
                f"{', '.join(failing[:10])}: DICOM segmentations of {len(failing)} of {len(scans)} series cannot be "
                "written:\n" + "\n".join(lines)
            )

    def masks(self) -> dict[str, list[Path]]:
        """Find the masks that are there, by name of the scan."""
        found: dict[str, list[Path]] = {}
        for suffix in SUFFIXES.values():
            ending = f"_{self.postfix}{suffix}"
            for file in sorted(Path(self.output_dir).glob(f"[!.]*{suffix}")):
                if file.name.endswith(ending):
                    found.setdefault(file.name.removesuffix(ending), []).append(file)
        return found

    def flagged(self) -> list[str]:
        """List the scans with a class whose predicted Dice is below ``flag_below``, the worst first."""
        worst = worst_qualities(QUALITY_TABLE.read(self.quality_table)).values()
        low = [row for row in worst if row.predicted_dice < (self.flag_below or 0)]
        return [row.scan for row in sorted(low, key=lambda row: row.predicted_dice)]

    def _check_kind(self, scans: Sequence[Scan]) -> None:
        pictures = [scan["name"] for scan in scans if holds_picture(scan)]
        if pictures and (set(self.formats) != {PNG} or self.measurements or self.probabilities):
            raise ValueError(
                f"{len(pictures)} of {len(scans)} scans are 2D pictures, whose masks are PNG files and which have no "
                f"size in mm, but outputs are {list(self.formats)}: give png alone, without measurements or "
                "probabilities."
            )
        if PNG in self.formats and not pictures:
            raise ValueError("outputs name png, which is for 2D pictures: volumes take nifti, seg_nrrd or dicom_seg.")

    def _scans_beside_masks(self, records: Mapping[str, ResultRecord]) -> list[set[str]]:
        """Names of the scans that have each of the wanted results that is no mask and no picture."""
        wanted = []
        if self.measurements:
            waiting = {name for name, record in records.items() if record.measurements}
            wanted.append({row.scan for row in MEASUREMENT_TABLE.read(self.table)} | waiting)
        if self.flag_below is not None:
            waiting = {name for name, record in records.items() if record.qualities}
            wanted.append({row.scan for row in QUALITY_TABLE.read(self.quality_table)} | waiting)
        if self.probabilities:  # the mask is written after the last map of its scan
            maps = (Path(self.output_dir) / PROBABILITIES).glob("[!.]*.nii.gz")
            wanted.append({file.name.rpartition("_")[0] for file in maps})
        return wanted

    def _has_files(self, name: str, record: ResultRecord | None) -> bool:
        whole = {NIFTI: is_whole_mask, DICOM_SEG: _is_whole_dicom, SEG_NRRD: is_whole_seg_nrrd, PNG: is_whole_image}
        checks = [(self.mask(name, output_format), whole[output_format]) for output_format in self.formats]
        checks += [(self.preview(name), is_whole_image)] if self.previews else []
        return all(_has_noted_size(path, record, Path(self.output_dir)) or check(path) for path, check in checks)


def _has_noted_size(path: Path, record: ResultRecord | None, folder: Path) -> bool:
    size = None if record is None else record.files.get(path.relative_to(folder).as_posix())
    try:
        return size is not None and path.stat().st_size == size
    except OSError:
        return False


def _is_whole_dicom(path: Path) -> bool:
    try:
        ds = pydicom.dcmread(path)
        return len(ds.PixelData) * 8 >= ds.Rows * ds.Columns * int(ds.NumberOfFrames)
    except Exception:  # whatever damage makes pydicom raise
        return False


def write_index(files: OutputFiles, algorithm: Mapping[str, Any] | None = None) -> Path | None:
    """Write the page of all results that are there, those of earlier runs too.

    Args:
        files: what the inference writes.
        algorithm: what made the masks.

    Returns:
        Its path; None, and no page, where neither measurements, pictures nor qualities are wanted.
    """
    if not (files.measurements or files.previews or files.flag_below is not None):
        return None
    pictures = sorted((Path(files.output_dir) / PREVIEWS).glob("[!.]*.png")) if files.previews else []
    rows = MEASUREMENT_TABLE.read(files.table) if files.measurements else []
    return write_scan_index(
        files.index,
        files.masks(),
        {picture.stem: picture for picture in pictures},
        rows,
        files.table if rows else None,
        algorithm,
        qualities=[] if files.flag_below is None else QUALITY_TABLE.read(files.quality_table),
        flag_below=files.flag_below,
    )


def finish_results(files: OutputFiles, algorithm: Mapping[str, Any] | None = None) -> None:
    """Put what records tell of new results into the tables, and write the page.

    Args:
        files: what the inference writes.
        algorithm: what made the masks.

    Raises:
        ValueError: where a table holds something else, or a file cannot be written.
    """
    records = ResultRecords(files.output_dir)
    new = records.merge(files.table, files.quality_table)
    write_index(files, algorithm)
    records.mark_shown(new)
