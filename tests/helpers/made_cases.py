# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Scans of a made download, and what reads and transforms them in child processes of tests."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from interruptions import PATIENCE
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, MapTransform

from monai_fewshot.apps.prepare.cases.case import Case

AFFINE = np.array([[-1.5, 0, 0.2, 30], [0, 1.5, 0, -20], [0.1, 0, 4, 7], [0, 0, 0, 1]])
SIZE = (12, 10, 6)
CLASS_NAMES = {1: "liver", 3: "spleen"}
LOAD = Compose([LoadImaged(("image", "label")), EnsureChannelFirstd(("image", "label"))])


def make_case(folder: Path, name: str, seed: int = 0, group: str = "", affine=AFFINE, suffix=".nii.gz") -> Case:
    """Write an image of random whole numbers and a label with the classes 1 and 3."""
    random = np.random.default_rng(seed)
    image, label = random.integers(-50, 900, SIZE).astype(np.int16), np.zeros(SIZE, np.uint8)
    label[2:5, 3:6, 1:4], label[7:9, 2:8, 2] = 1, 3
    paths = []
    for kind, array in (("image", image), ("label", label)):
        paths.append(folder / f"{name}-{kind}{suffix}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), paths[-1])
    return Case(name, (paths[0],), (paths[1],), group)


def load_case(case: Case) -> dict:
    return LOAD({"image": str(case.image[0]), "label": str(case.label[0])})


class Halve(MapTransform):
    """Halve intensities."""

    def __init__(self):
        super().__init__("image")

    def __call__(self, data):
        return {**data, "image": data["image"] / 2}


def load_or_die(case: Case) -> dict:
    """Be killed at the scan "killed", fail at "failing", stay at "slow", tell which process reads the others."""
    if case.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if case.name == "failing":
        raise ValueError("is not what it should be; draw it anew.")
    if case.name.startswith("slow"):
        (case.image[0].parent / f"begun_{case.name}").write_text(str(os.getpid()))
        time.sleep(PATIENCE)
    return load_case(case)


def process_number(item: object) -> int:
    return os.getpid()
