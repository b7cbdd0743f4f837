# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from monai_fewshot.apps.command.scan_sources import write_scan_list
from monai_fewshot.apps.command.segmented_scans import note_scans
from monai_fewshot.apps.phantom import make_phantom_volume
from monai_fewshot.data import load_scans

HOSTILE = "a'b\"<img src=x onerror=\"document.title='harmed'\">&amp;"
NAMES = (HOSTILE, "phantom_1", "phantom_2")
CLASSES = {1: "liver <b>", 2: "right kidney"}


def make_reviewed_folder(folder):
    """Write ``scans``, and ``masks`` as ``segment`` does in two runs, with predicted quality."""
    (folder / "scans").mkdir()
    model = folder / "masks" / "model"
    model.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image, label, affine = make_phantom_volume(number, size=(32, 32, 8))
        nib.save(nib.Nifti1Image(np.asarray(image).astype(np.int16), affine), folder / "scans" / f"{name}.nii.gz")
        classes = np.where(np.asarray(label) <= 2, label, 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(classes, affine), folder / "masks" / f"{name}_seg.nii.gz")
    scans = load_scans(folder / "scans")
    note_scans(model, scans[:1])
    note_scans(model, scans[1:])
    write_scan_list(model / "scans", scans[1:], CLASSES)
    rows = (
        "phantom_2,1,liver <b>,0.91,0.8,1,0.9",
        "phantom_2,2,right kidney,0.55,0.4,0.7,0.8",
        "phantom_1,1,liver <b>,0.75,0.6,0.9,0.8",
    )
    table = "\n".join(["scan,label,name,predicted_dice,low,high,evidence", *rows])
    (folder / "masks" / "quality.csv").write_text(table)
    return folder


@pytest.fixture
def hostile():
    """The name of a scan with quotes and tags."""
    return HOSTILE


@pytest.fixture
def classes():
    """Names of the classes."""
    return CLASSES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder as ``segment`` writes it, of three scans, with predicted quality."""
    return make_reviewed_folder(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made):
    """The folder of masks, without reviews."""
    masks = made / "masks"
    yield masks
    (masks / "review.csv").unlink(missing_ok=True)


@pytest.fixture
def served(folder):
    """The server in a process of its own, and its address."""
    command = [sys.executable, "-m", "monai_fewshot", "review", str(folder), "--no-browser"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    told = ""
    for line in process.stdout:
        told += line
        if match := re.search(r"http://\S+", line):
            yield process, match[0]
            break
    else:
        pytest.fail(told)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
