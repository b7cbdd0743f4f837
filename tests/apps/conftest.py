# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from monai_fewshot.apps.bundles.command import copy_bundle
from monai_fewshot.apps.bundles.step_process import run_step
from monai_fewshot.apps.command import running, segment
from monai_fewshot.apps.phantom import make_phantom_dataset

QUICK = {"epoch_length": 2, "max_epochs": 1, "batch_size": 2, "image_size": [32, 32]}


LOG = """2026-01-01 00:00:00,000 - monai.data - WARNING - not ours
2026-01-01 00:00:01,000 - monai_fewshot.handlers.class_progress - WARNING - Hardly found: liver (Dice 0.10).
2026-01-01 00:00:02,000 - monai_fewshot.handlers.class_progress - WARNING - Hardly found: liver (Dice 0.40).
2026-01-01 00:00:03,000 - monai_fewshot.workflows - INFO - 300 steps
"""


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Three small scans with labels, in the layout of the Decathlon."""
    return make_phantom_dataset(tmp_path_factory.mktemp("phantom") / "data", 3, (32, 32, 8), num_folds=2)


@pytest.fixture
def scans(phantom, tmp_path):
    """A nested folder of the scans, without labels."""
    for number, file in enumerate(sorted((phantom / "imagesTr").iterdir())):
        target = tmp_path / "scans" / f"study{number % 2}" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, target)
    return tmp_path / "scans"


@pytest.fixture
def example(phantom):
    """Image and label of the annotated scan."""
    return phantom / "imagesTr" / "phantom_001.nii.gz", phantom / "labelsTr" / "phantom_001.nii.gz"


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory):
    """The supervised bundle with a training of two steps."""
    bundle = copy_bundle("supervised", tmp_path_factory.mktemp("bundles") / "quick")
    config = bundle / "configs" / "train.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **QUICK}))
    return bundle


@pytest.fixture(scope="session")
def quick_self_training(tmp_path_factory):
    """The bundle of self-training with a small network and epochs of two steps."""
    bundle = copy_bundle("self_training", tmp_path_factory.mktemp("bundles") / "quick_self_training")
    file = bundle / "configs" / "train.json"
    config = json.loads(file.read_text()) | QUICK | {"unlabeled_batch_size": 2, "image_size": [64, 64]}
    config["base"]["features"] = [8, 8, 8, 8, 8, 8]
    file.write_text(json.dumps(config))
    return str(bundle)


def run_steps_here(monkeypatch):
    """Let steps run in this process, which takes less time; the list gets their names."""
    names = []

    def run_here(step, command, log_path, *rest, **options):
        names.append(log_path.stem)
        log_path.touch()
        before = Path.cwd()
        os.chdir(step.folder)
        try:
            run_step(command[3:])
        except SystemExit as error:
            raise RuntimeError(f"{log_path.stem} ended with code {error.code}") from error
        finally:
            os.chdir(before)

    monkeypatch.setattr(running, "run_logged", run_here)
    return names


@pytest.fixture
def steps(monkeypatch):
    """Steps run in this process; the list gets their names."""
    return run_steps_here(monkeypatch)


@pytest.fixture(scope="session")
def segmented(phantom, quick_self_training, tmp_path_factory):
    """Folder of three scans, ``scans``, and of their masks by a network that has taken two steps, ``masks``."""
    folder = tmp_path_factory.mktemp("segmented")
    shutil.copytree(phantom / "imagesTr", folder / "scans")
    example = (phantom / "imagesTr" / "phantom_001.nii.gz", phantom / "labelsTr" / "phantom_001.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEWSHOT_DTYPE", "float32")
        run_steps_here(patch)
        request = (folder / "scans", [example], folder / "masks", quick_self_training, 0.0001)
        segment(*request, device="cpu", say=lambda text: None)
    return folder


@pytest.fixture
def masks(segmented, tmp_path):
    """A copy of the masks, to be changed."""
    return shutil.copytree(segmented / "masks", tmp_path / "masks")


@pytest.fixture
def pretended_steps(monkeypatch):
    """Nothing is run; the list gets name and settings of each step, and every scan is said to have failed."""
    told = []

    def pretend(runner, name, settings):
        told.append((name, settings))
        (runner.folder / f"{name}.log").write_text(LOG)
        if name == "inference":
            listed = json.loads((settings["dataset_dir"] / "dataset.json").read_text())["training"]
            Path(settings["segmentation#failures"]).write_text(json.dumps({scan["name"]: "no" for scan in listed}))

    monkeypatch.setattr(running.StepRunner, "run", pretend)
    return told
