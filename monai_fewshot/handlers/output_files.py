# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
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

__all__ = ["OutputFiles", "write_index"]

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

        A file that cannot be read whole does not count.

        Args:
            scans: all scans.
            overwrite: whether to segment all scans anew.

        Raises:
            ValueError: where ``measurements.csv`` or ``quality.csv`` holds something else.
        """
        measured = {row.scan for row in MEASUREMENT_TABLE.read(self.table)} if self.measurements else set()
        judged = set() if self.flag_below is None else {row.scan for row in QUALITY_TABLE.read(self.quality_table)}
        pending = [scan for scan in scans if overwrite or not self._is_complete(scan["name"], measured, judged)]
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

    def _is_complete(self, name: str, measured: set[str], judged: set[str]) -> bool:
        whole = {NIFTI: is_whole_mask, DICOM_SEG: _is_whole_dicom, SEG_NRRD: is_whole_seg_nrrd, PNG: is_whole_image}
        return (
            all(whole[output_format](self.mask(name, output_format)) for output_format in self.formats)
            and (not self.measurements or name in measured)
            and (self.flag_below is None or name in judged)
            and (not self.probabilities or self._has_probabilities(name))
            and (not self.previews or is_whole_image(self.preview(name)))
        )

    def _has_probabilities(self, name: str) -> bool:
        """Whether a scan has maps; the mask is written after the last of them."""
        return any((Path(self.output_dir) / PROBABILITIES).glob(f"{escape(name)}_*.nii.gz"))


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
