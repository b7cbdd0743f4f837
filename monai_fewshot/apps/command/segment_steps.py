# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import monai_fewshot
from monai_fewshot.apps.bundles.bundle_step import setting_names
from monai_fewshot.data import Scan
from monai_fewshot.handlers import finish_results

from .model_origin import ModelOrigin
from .problems import ScanProblem
from .running import StepRunner
from .scan_sources import write_scan_list
from .segment_request import SegmentRequest
from .segmented_scans import forget_masks, note_masks, note_scans

__all__ = ["SegmentSteps"]


class SegmentSteps(SegmentRequest):
    """What is run of a method for a request, once its model is there."""

    def segment_scans(
        self,
        runner: StepRunner,
        origin: ModelOrigin,
        left: Sequence[Scan],
        say: Callable[[str], None],
        overwrite: bool = False,
    ) -> list[ScanProblem]:
        """Segment scans with the model.

        Args:
            runner: runs the method's steps.
            origin: what made the model.
            left: the scans.
            say: is told what happens.
            overwrite: whether scans that have a mask are segmented anew.

        Returns:
            Problems of those that could not be segmented.
        """
        if not left:
            say("No scan is left to segment.")
            self.complete_index()
            return []
        say(f"Segmenting {len(left)} scan(s).")
        failures = self.model_folder / "failures.json"
        note_scans(self.model_folder, left)
        settings: dict[str, Any] = {
            **self.common_settings(write_scan_list(self.model_folder / "scans", left, origin.classes)),
            "checkpoint": self.model_folder / "model.pt",
            "output_dir": self.folder,
            "outputs": list(self.files.formats),
            "measurements": self.files.measurements,
            "previews": True,
            "flag_below": self.flag_below,
            "probabilities": self.probabilities,
            "segmentation#failures": failures,
            "overwrite": overwrite,
        }
        inference = setting_names(self.method.bundle, self.method.steps["inference"])
        if self.class_names is not None and "support_image" in inference:
            settings["class_names"] = list(self.class_names)
        formats = self.files.formats
        forget_masks(self.model_folder, {self.files.mask(scan["name"], kind).name for scan in left for kind in formats})
        try:
            runner.run("inference", settings)
        finally:
            masks = self.files.masks()
            note_masks(self.model_folder, [file for scan in left for file in masks.get(scan["name"], ())])
        reasons = json.loads(failures.read_text(encoding="utf-8"))
        names = {scan["name"]: scan for scan in left}
        found = []
        for name, reason in reasons.items():
            image = names[name]["image"]
            file = image if isinstance(image, str) else name
            found.append(ScanProblem(name, file, f"cannot be segmented ({reason})"))
            say(f"FAILED: {file}: {reason}")
        return found

    def complete_index(self) -> None:
        """Write tables and page where an interruption came between the last mask and the page."""
        finish_results(self.files, {"name": self.method.name, "version": monai_fewshot.__version__})

    def common_settings(self, dataset: Path) -> dict[str, Any]:
        """Settings of training and segmentation."""
        images, labels = (
            [str(Path(path).expanduser().absolute()) for path in paths] for paths in zip(*self.pairs, strict=True)
        )
        return {
            "dataset_dir": dataset,
            "support_image": images[0] if len(images) == 1 else images,
            "support_label": labels[0] if len(labels) == 1 else labels,
            **({} if self.device is None else {"device": self.device}),
        }
