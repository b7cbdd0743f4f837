# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""What an inference of many scans takes: time to the first mask, whole time, memory, readings, and a restart.

Scans are made: small ones, copies of a few phantoms under many names, and large ones on request. The bundle is
panet as it is, with random weights and measurements. Several versions of the project, such as a worktree of an
older commit, are measured in one run, one after another:

    git worktree add ../before COMMIT
    python benchmarks/scale.py --scans 300 --project ../before --project .

Seconds of the processor stand in brackets: they say more on a machine that has other things to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from scale_probe import PROBE

from monai_fewshot.apps.benchmark import markdown_table
from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import VolumePreparation
from monai_fewshot.utils import define
from monai_fewshot.workflows import ModelRecord

SIZE, LARGE_SIZE, IMAGE_SIZE, PHANTOMS = (64, 64, 16), (512, 512, 400), (64, 64), 20
HEADER = [
    *("version", "processes", "first mask s", "whole s (CPU)", "readings", "MB at scan 100", "MB at the end"),
    "restart s (CPU)",
]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=2000, help="small scans, default 2000")
    parser.add_argument("--large", type=int, default=0, help="scans of 512 x 512 x 400, default none")
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help="of torchrun, one or several numbers")
    parser.add_argument("--project", type=Path, action="append", help="version to measure, default this one")
    parser.add_argument("--folder", type=Path, help="for scans and masks; default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        make_scans(folder, options.scans, options.large)
        rows, masks = [], []
        for project in options.project or [Path(__file__).parents[1]]:
            for processes in options.processes:
                output = folder / f"masks_{len(rows)}"
                shutil.rmtree(output, ignore_errors=True)
                rows.append(measured_row(project.resolve(), folder, output, processes))
                masks.append({file.name: nibabel.load(file).get_fdata() for file in output.glob("*_seg.nii.gz")})
        print(markdown_table(HEADER, rows))
        same = all(each.keys() == masks[0].keys() for each in masks) and all(
            np.array_equal(each[name], mask) for each in masks for name, mask in masks[0].items()
        )
        print(f"\n{options.scans + options.large} scans; masks of all runs are {'the same' if same else 'DIFFERENT'}.")


def make_scans(folder: Path, number: int, large: int) -> None:
    """Write scans, an annotated one and a model of random weights into a folder, where they are not there yet."""
    scans = folder / "scans"
    if scans.is_dir() and len(list(scans.iterdir())) == number + large and (folder / "model.pt").is_file():
        return
    shutil.rmtree(scans, ignore_errors=True)
    scans.mkdir(parents=True)
    phantoms = make_phantom_dataset(folder / "phantoms", PHANTOMS + 1, SIZE)
    images = sorted((phantoms / "imagesTr").iterdir())
    for index in range(number):
        shutil.copyfile(images[1 + index % PHANTOMS], scans / f"scan_{index:05d}.nii.gz")
    for index in range(large):
        small = nibabel.load(images[1 + index % PHANTOMS])
        factors = [long / short for long, short in zip(LARGE_SIZE, SIZE, strict=True)]
        places = [(np.arange(n) / f).astype(int) for n, f in zip(LARGE_SIZE, factors, strict=True)]
        noise = np.random.default_rng(index).integers(0, 5, LARGE_SIZE, dtype=np.int16)
        voxels = small.get_fdata()[np.ix_(*places)].astype(np.int16) + noise
        affine = small.affine @ np.diag([*(1 / f for f in factors), 1])
        nibabel.save(nibabel.Nifti1Image(voxels, affine), scans / f"large_{index}.nii.gz")
    torch.manual_seed(0)
    layers = {"spatial_dims": 2, "in_channels": 1, "channels": [8, 16], "out_channels": 16, "norm": "instance"}
    encoder = define("monai_fewshot.networks.encoders.UNetEncoder", **layers)
    network = define("monai_fewshot.networks.nets.PANet", spatial_dims=2, encoder=encoder)
    settings = ModelRecord(network, VolumePreparation(image_size=IMAGE_SIZE)).state_dict()
    torch.save({"model": network.state_dict(), "settings": settings}, folder / "model.pt")


def measured_row(project: Path, folder: Path, output: Path, processes: int) -> list[str]:
    """Segment all scans, then start the finished run once more."""
    whole, parts = run(project, folder, output, processes)
    restart, _ = run(project, folder, output, processes)
    readings = sum((Counter(part["read"]) for part in parts), Counter())
    scans = {name: times for name, times in readings.items() if Path(name).parent == folder / "scans"}
    commit = subprocess.run(["git", "-C", project, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return [
        commit.stdout.strip() or project.name,
        str(processes),
        f"{min(part['first_mask'] for part in parts if part['first_mask']):.1f}",
        whole,
        f"{min(scans.values()):.1f} to {max(scans.values()):.1f}",
        " + ".join(f"{part['at_100']:.0f}" for part in parts),
        " + ".join(f"{part['at_end']:.0f}" for part in parts),
        restart,
    ]


def run(project: Path, folder: Path, output: Path, processes: int) -> tuple[str, list[dict[str, Any]]]:
    """Run the inference of a version of the project; return its seconds, and what each process has counted."""
    counts = folder / "counts"
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir()
    support = folder / "phantoms"
    first = sorted((support / "imagesTr").iterdir())[0].name
    settings = {
        "dataset_dir": folder / "scans",
        "support_image": support / "imagesTr" / first,
        "support_label": support / "labelsTr" / first,
        "checkpoint": folder / "model.pt",
        "output_dir": output,
        "measurements": True,
        "dtype": "$torch.float32",
        "device": "$torch.device('cpu')",
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    config = project / "bundles" / "panet" / "configs" / "inference.json"
    command = [sys.executable, *(launcher if processes > 1 else []), str(PROBE), str(counts), str(config), *words]
    variables = {"PYTHONPATH": str(project), "CUDA_VISIBLE_DEVICES": "", "PROBE_START": repr(time.time())}
    started, used = time.perf_counter(), processor_seconds()
    done = subprocess.run(command, env={**os.environ, **variables}, cwd=folder, capture_output=True, text=True)
    seconds, used = time.perf_counter() - started, processor_seconds() - used
    if done.returncode:
        raise RuntimeError(f"The inference of {project} fails: {done.stderr[-4000:]}")
    return f"{seconds:.1f} ({used:.0f})", [json.loads(file.read_text()) for file in sorted(counts.iterdir())]


def processor_seconds() -> float:
    """Seconds of the processor that the processes started from here have taken so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
