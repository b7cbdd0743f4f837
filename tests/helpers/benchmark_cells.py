# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""A benchmark of made-up bundles on small phantoms, whose cells are filled in by hand."""

from __future__ import annotations

import json

import numpy as np
import yaml

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.metrics import ScanScore, write_scores
from monai_fewshot.visualize import capture_case, write_cases

CLASSES = ["liver", "right kidney", "left kidney", "spleen"]
TRAIN = dict.fromkeys(("dataset_dir", "fold", "seed", "ckpt_dir", "resume", "epoch_length", "max_epochs"))
TRAIN |= {"exclude_classes": [], "image_size": [8, 8], "train": {"trainer": {}}}
EVALUATE = dict.fromkeys(("dataset_dir", "fold", "seed", "checkpoint", "output_dir", "classes", "image_size"))
USAGE = {"seconds": 120.0, "busy_seconds": 90.0, "peak_memory_mb": 2048.0, "peak_gpu_memory_mb": None}


def make_bundles(folder):
    """Bundles of which nothing can be run: ``images`` sees no labels, ``exemplar`` learns the classes it is told."""
    variants = {"others": {"title": "others", "learns_from": "other_classes"}}
    for name, learns_from, extra in (
        ("images", "images", {"title": "From images"}),
        ("exemplar", "support", {"variants": variants}),
        ("plain", "nothing", {"steps": ["evaluate"]}),
    ):
        method = {"learns_from": learns_from, "works_on": "slices", "steps": ["train", "evaluate"], **extra}
        train = {**TRAIN, **({} if name == "images" else {"classes": None})}
        for config, content in (("train", train), ("evaluate", EVALUATE), ("metadata", {"method": method})):
            path = folder / name / "configs" / f"{config}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
    return folder


def make_config(folder, **changes):
    """Write a YAML file, its data sets and bundles; return its path and content."""
    for name in ("mr", "ct"):
        if not (folder / name).exists():
            make_phantom_dataset(folder / name, 4, (32, 32, 8), num_folds=2, modality=name)
    bundles = make_bundles(folder / "bundles")
    groups = [["liver", "spleen"], ["right kidney", "left kidney"]]
    content = {
        "output_dir": str(folder / "out"),
        "seeds": [0, 1],
        "threads": 1,
        "reference": "images",
        "methods": {
            "images": {},
            "others": {"bundle": str(bundles / "exemplar/others"), "datasets": ["mr"]},
            "exemplar": {"budget": {"iterations": 7, "epochs": 2}},
            "plain": {"evaluate": {"image_size": [4, 4]}},
        },
        "datasets": {
            "mr": {"path": str(folder / "mr"), "settings": [1, 2], "groups": groups, "published": "chaos_t2"},
            "ct": {"path": str(folder / "ct"), "classes": ["spleen", "liver"]},
        },
        "across": [{"train": "ct", "test": "mr"}],
        **changes,
    }
    for name, method in content["methods"].items():
        method.setdefault("bundle", str(bundles / name))
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path, content


def dice_of(cell, scan_number, class_name):
    """A made-up Dice that differs by method, fold, seed, scan and class."""
    method = sum(map(ord, cell.row.method.name)) % 7
    return 0.3 + 0.05 * method + 0.04 * cell.fold + 0.03 * cell.seed + 0.02 * scan_number + 0.01 * len(class_name)


def fill(cell):
    """Leave what a finished cell leaves."""
    scores, cases, box = [], [], np.zeros((16, 16, 3), dtype=bool)
    box[4:12, 5:11] = True
    unit = "voxels" if cell.row.test.name == "ct" else "mm"
    in_range = "senet" if cell.row.method.name == "others" else "alpnet"
    for number in range(2):
        for label, name in enumerate(cell.tested, 1):
            for protocol, less in ((in_range, 0.0), ("whole_volume", 0.2)):
                dice = dice_of(cell, number, name) - less
                hd95 = float("nan") if name == "spleen" and less else 10 / dice
                facts = (cell.fold, f"scan{number}", label, name, protocol)
                scores.append(ScanScore(*facts, dice, hd95, unit, 3, 8, 50, 51))
            found = {in_range: np.roll(box, label, 0), "whole_volume": box}
            image = np.arange(768.0).reshape(16, 16, 3)
            cases.append(capture_case(cell.fold, f"scan{number}", name, image, box, found, np.eye(4)))
    write_scores(scores, cell.folder, {})
    write_cases(cases, cell.folder / "cases.npz")
    record = {
        "identity": cell.identity(),
        "training": None if cell.training() is None else USAGE,
        "evaluation": {**USAGE, "seconds": 30.0, "busy_seconds": 24.0, "code": "abc"},
        "versions": {"torch": "2.13"},
        "machine": "a machine",
        "threads": 1,
    }
    (cell.folder / "cell.json").write_text(json.dumps(record))
