# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from monai_fewshot.data import (
    Scan,
    ScanFacts,
    count_channels,
    holds_picture,
    name_classes,
    read_scan_facts,
    segmentation_names,
)
from monai_fewshot.data.annotations.segmentation_reader import region_numbers
from monai_fewshot.data.layouts.scan_files import is_picture

from .problems import ScanProblem, problems_of

__all__ = ["Survey", "survey_scans"]

FEW_VOXELS = 20
SPACING_FACTOR = 10.0
MOST_CLASSES = 254
NAMES_LISTED = 5
LABEL_AMONG_SCANS = "holds a few whole numbers alone, as a label map does; keep labels in another folder than scans."
SECONDS_OF_START = 15.0
SECONDS_PER_MILLION_VOXELS = {"cpu": 1.5, "cuda": 0.4}
"""Rough, of reading, segmenting, measuring and drawing; a guess, which is to be measured."""


@dataclass(frozen=True)
class Survey:
    """What a folder of scans holds.

    Attributes:
        scans: facts of each scan, those that cannot be used among them.
        examples: facts of the annotated scans.
        classes: names by number, of the examples.
        problems: of scans that cannot be used.
        warnings: what may be wrong, a sentence or two each.
        minutes: rough time of segmenting all scans, without training.
    """

    scans: tuple[ScanFacts, ...]
    examples: tuple[ScanFacts, ...]
    classes: Mapping[int, str]
    problems: tuple[ScanProblem, ...]
    warnings: tuple[str, ...]
    minutes: float

    @property
    def usable(self) -> list[ScanFacts]:
        """Scans without problems."""
        return [scan for scan in self.scans if not scan.problems]


def survey_scans(
    scans: Sequence[Scan],
    examples: Sequence[Scan] = (),
    problems: Sequence[ScanProblem] = (),
    class_names: Sequence[str] | None = None,
    device: str | None = None,
) -> Survey:
    """Read scans and annotated examples, and tell what they are and what is wrong with them.

    Args:
        scans: without labels.
        examples: annotated scans.
        problems: that are known already.
        class_names: see :func:`monai_fewshot.segment`.
        device: that segmentation will run on, for the estimate of its time.

    Returns:
        The survey.

    Raises:
        ValueError: where an example cannot be used, or examples disagree on the name of a class.
    """
    any_picture = any(map(holds_picture, scans))
    channels = count_channels(examples[0]) if examples else None if any_picture else 1
    shown = read_scan_facts(examples, channels)
    classes = classes_of_examples(examples, shown, class_names)
    facts = read_scan_facts(scans, channels)
    if not any(scan.looks_like_label for scan in shown):
        facts = [_without_labels(scan) for scan in facts]
    usable = [scan for scan in facts if not scan.problems]
    return Survey(
        scans=tuple(facts),
        examples=tuple(shown),
        classes=classes,
        problems=(*problems, *problems_of(facts)),
        warnings=(*example_warnings(shown, classes), *scan_warnings(usable, shown)),
        minutes=seconds_of_segmentation(usable, device) / 60,
    )


def _without_labels(scan: ScanFacts) -> ScanFacts:
    """Say of a label map among the scans that it is none of them."""
    is_label = scan.looks_like_label and (not scan.problems or is_picture(Path(scan.file)))
    return replace(scan, problems=(LABEL_AMONG_SCANS,)) if is_label else scan


def classes_of_examples(
    examples: Sequence[Scan], facts: Sequence[ScanFacts], class_names: Sequence[str] | None = None
) -> dict[int, str]:
    """Tell the classes of annotated scans.

    Args:
        examples: with ``label``.
        facts: of each example.
        class_names: names in the order of the numbers 1, 2, ...; of annotations that name their regions (DICOM, 3D
            Slicer), the regions to take.

    Returns:
        Name by number in the labels.

    Raises:
        ValueError: where an example cannot be used, one number has two names, a region is not there, or there are too
            many classes.
    """
    if problems := problems_of(facts):
        lines = "\n".join(f"  {problem.file}: {problem.problem}. {problem.remedy}" for problem in problems)
        raise ValueError(f"The example cannot be used:\n{lines}")
    found: dict[int, dict[str, str]] = {}
    for scan, fact in zip(examples, facts, strict=True):
        if len(fact.class_voxels) > MOST_CLASSES:
            raise ValueError(
                f"{scan['label']} holds {len(fact.class_voxels)} class numbers up to {max(fact.class_voxels)}; a label "
                f"has up to {MOST_CLASSES} classes. Are image and label swapped? The image comes first."
            )
        regions = segmentation_names(scan["label"])
        if regions and class_names is not None:
            names = _chosen_regions(regions, class_names, scan["label"])
        else:
            names = name_classes(sorted(fact.class_voxels), class_names, [scan])
        for number, name in names.items():
            found.setdefault(number, {}).setdefault(name, scan["name"])
    for number, names_of in found.items():
        told = {name: scan for name, scan in names_of.items() if name != f"class {number}"}
        if len(told) > 1:
            listed = ", ".join(f"{name} in {scan}" for name, scan in told.items())
            raise ValueError(
                f"The examples disagree on class {number}: {listed}. Give all labels the same numbers, or correct the "
                "names (labels in dataset.json)."
            )
    return {
        number: next((n for n in names if n != f"class {number}"), next(iter(names)))
        for number, names in sorted(found.items())
    }


def example_warnings(examples: Sequence[ScanFacts], classes: Mapping[int, str]) -> list[str]:
    """Tell what may be wrong with annotated scans: classes of a few voxels, or that not all of them show."""
    warnings = []
    for scan in examples:
        small = {number: scan.class_voxels.get(number, FEW_VOXELS) for number in classes}
        for number, count in ((number, count) for number, count in small.items() if count < FEW_VOXELS):
            warnings.append(
                f"{scan.name}: class {number} ({classes[number]}) has only {count} voxel(s), too few to learn "
                "from. Annotate more of it, or is it a slip of the brush?"
            )
    for scan in examples:
        shown = {classes.get(number) for number in scan.class_voxels}
        if lacking := [number for number, name in classes.items() if name not in shown]:
            listed = ", ".join(f"{number} ({classes[number]})" for number in lacking)
            warnings.append(
                f"The examples show different classes: {scan.name} lacks {listed}. Where the organ is there but not "
                "annotated, it is learned as background: annotate it, or leave the example out."
            )
    return warnings


def scan_warnings(scans: Sequence[ScanFacts], examples: Sequence[ScanFacts]) -> list[str]:
    """Tell which scans differ much from the examples, or, where there are none, from the other scans.

    Args:
        scans: without problems.
        examples: annotated scans without problems.
    """
    warnings = _differing(scans, examples)
    own = {scan.file for scan in examples}
    if examples and scans and all(scan.file in own for scan in scans):
        warnings.append(
            "The folder holds no scan beside the example: the method learns from the annotated scan alone. Add scans, "
            "without labels, for better masks."
        )
    return warnings


def seconds_of_segmentation(scans: Sequence[ScanFacts], device: str | None = None) -> float:
    """Estimate roughly how long it takes to segment scans, without training."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    voxels = sum(torch.Size(scan.size).numel() for scan in scans if scan.size)
    return SECONDS_OF_START + voxels / 1e6 * SECONDS_PER_MILLION_VOXELS.get(kind, 1.0) if scans else 0.0


def _chosen_regions(regions: Mapping[int, str], wanted: Sequence[str], label: str) -> dict[int, str]:
    """Regions of the wanted names by their own numbers."""
    try:
        return dict(zip(region_numbers(regions, wanted), wanted, strict=True))
    except ValueError as error:
        raise ValueError(f"{label} {error} Correct --class-names.") from None


def _differing(scans: Sequence[ScanFacts], examples: Sequence[ScanFacts]) -> list[str]:
    others = "the example" if examples else "most of the others"
    lines = []
    spacing = _usual_spacing(examples or scans)
    if spacing and (odd := [scan for scan in scans if _is_far(scan.spacing, spacing)]):
        usual = " x ".join(f"{length:.3g}" for length in spacing)
        own = " x ".join(f"{length:.3g}" for length in sorted(odd[0].spacing))
        lines.append(
            f"The voxels of {_few(odd)} are ten times larger or smaller than those of {others} ({own} mm, not {usual} "
            "mm): check the unit of length in the files' headers."
        )
    modalities = {scan.modality for scan in examples if scan.modality}
    if modalities and (odd := [scan for scan in scans if scan.modality and scan.modality not in modalities]):
        lines.append(
            f"{_few(odd)}: the modality is {', '.join(sorted({scan.modality for scan in odd}))}, that of the example "
            f"{', '.join(sorted(modalities))}. Masks will be poor: take an example of the same kind."
        )
    ranges = [scan.values for scan in examples or scans if scan.values]
    if ranges:
        low, high = _usual_values(ranges, bool(examples))
        if odd := [scan for scan in scans if scan.values and (scan.values[2] < low or scan.values[1] > high)]:
            first = odd[0].values
            assert first is not None
            lines.append(
                f"The intensities of {_few(odd)} do not overlap with those of {others} ({first[1]:.4g} to "
                f"{first[2]:.4g}, not {low:.4g} to {high:.4g}): is it another kind of image, or in another unit?"
            )
    return lines


def _usual_spacing(scans: Sequence[ScanFacts]) -> list[float]:
    known = [sorted(scan.spacing) for scan in scans if len(scan.spacing) == 3]
    return [statistics.median(lengths) for lengths in zip(*known, strict=True)]


def _usual_values(ranges: Sequence[tuple[float, float, float, float]], all_count: bool) -> tuple[float, float]:
    lows, highs = [values[1] for values in ranges], [values[2] for values in ranges]
    return (min(lows), max(highs)) if all_count else (statistics.median(lows), statistics.median(highs))


def _is_far(spacing: Sequence[float], usual: Sequence[float]) -> bool:
    pairs = zip(sorted(spacing), usual, strict=False)
    return any(not 1 / SPACING_FACTOR < length / expected < SPACING_FACTOR for length, expected in pairs if expected)


def _few(scans: Sequence[ScanFacts]) -> str:
    names = ", ".join(scan.name for scan in scans[:NAMES_LISTED])
    return names + (f" and {len(scans) - NAMES_LISTED} more" if len(scans) > NAMES_LISTED else "")
