# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from scipy import ndimage

from monai_fewshot.apps.phantom import make_phantom_lesions, make_phantom_shapes
from monai_fewshot.data import VolumePreparation
from monai_fewshot.utils import define
from monai_fewshot.workflows import ModelRecord

CONFIGS = Path(__file__).parents[2] / "bundles" / "ssl_alpnet" / "configs"

SMALL = {"device": "$torch.device('cpu')", "image_size": [32, 32]}
SHORT_TRAINING = {
    "encoder#channels": [4, 8],
    "encoder#out_channels": 8,
    "batch_size": 2,
    "epoch_length": 2,
    "max_epochs": 2,
    "num_val_episodes": 2,
    "num_folds": 3,
    "pseudo_labels#min_size": 40,
    "handlers#log_interval": 2,
}
CLASSES = {"0": "background", "1": "liver", "2": "spleen"}
OBLIQUE = np.array([[-1.4, 0.1, 0.3, 40], [0.1, 1.6, -0.2, -30], [0.05, 0.06, 7.5, 12], [0, 0, 0, 1]])


class Scans:
    """Small abdominal scans: a body with noise and two organs, on an oblique grid."""

    affine = OBLIQUE

    @staticmethod
    def make(seed: int, size: tuple[int, int, int] = (40, 36, 6)) -> tuple[np.ndarray, np.ndarray]:
        """Image and label of one patient."""
        random = np.random.default_rng(seed)
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size[:2]), [0.0], indexing="ij"))[:2]

        def ellipse(center, radii):
            moved = (grid - np.reshape(center, (2, 1, 1, 1))) / np.reshape(radii, (2, 1, 1, 1))
            return np.broadcast_to((moved**2).sum(0) < 1, size)

        body, label = ellipse((0, 0), (0.9, 0.85)), np.zeros(size, np.uint8)
        label[ellipse(random.uniform((-0.5, -0.3), (-0.3, 0.1)), (0.4, 0.35))] = 1
        label[ellipse(random.uniform((0.35, -0.2), (0.5, 0.2)), (0.25, 0.3))] = 2
        label[..., 0] = label[..., -1] = 0
        texture = ndimage.gaussian_filter(random.normal(size=size), (1, 1, 0))
        image = np.where(body, 300 + 250 * (label == 1) + 120 * (label == 2) + 60 * texture, 5 * random.random(size))
        return image.astype(np.float32), label

    @staticmethod
    def save(file: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
        """Write one volume."""
        file.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), file)
        return file

    @classmethod
    def data_set(cls, folder: Path, number: int = 6, **content: Any) -> Path:
        """Write a data set in the layout of the Medical Segmentation Decathlon."""
        names = [f"scan_{i}" for i in range(number)]
        for seed, name in enumerate(names):
            image, label = cls.make(seed)
            cls.save(folder / "imagesTr" / f"{name}.nii.gz", image)
            cls.save(folder / "labelsTr" / f"{name}.nii.gz", label)
        content = {
            "labels": CLASSES,
            "training": [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names],
            **content,
        }
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder


class Bundle(NamedTuple):
    """The bundle's configurations, with settings that take a second."""

    root: Path

    def workflow(self, *names: str, workflow_type: str | None = None, **override: Any) -> ConfigWorkflow:
        """Read and initialize a configuration, or several on top of one another."""
        training = SHORT_TRAINING if names[0] == "train" else {"num_folds": 3} if names[0] == "evaluate" else {}
        workflow = ConfigWorkflow(
            config_file=[str(CONFIGS / f"{name}.json") for name in names],
            workflow_type=workflow_type,
            logging_file=False,
            **{"bundle_root": str(self.root), **SMALL, **training, **override},
        )
        workflow.initialize()
        return workflow

    def run(self, *names: str, **override: Any) -> ConfigWorkflow:
        """Run a configuration to its end."""
        workflow = self.workflow(*names, **override)
        workflow.run()
        workflow.finalize()
        return workflow


@pytest.fixture(autouse=True)
def _randomness_afterwards():
    yield
    set_determinism(seed=None)


@pytest.fixture(scope="session")
def configs() -> Path:
    return CONFIGS


@pytest.fixture(scope="session")
def scans() -> type[Scans]:
    return Scans


@pytest.fixture(scope="session")
def at_root() -> type[Bundle]:
    """Makes a bundle whose data, models and results lie in a folder."""
    return Bundle


@pytest.fixture(scope="session")
def save_model() -> Callable[..., str]:
    """Writes a checkpoint of an ALPNet, as if it had been trained, and tells its path."""

    def save(file: Path, weights_of: Sequence[int] = (4, 8), channels: Sequence[int] = (4, 8), **preparation) -> str:
        networks = []
        for widths in (channels, weights_of):
            torch.manual_seed(0)
            layers = {"spatial_dims": 2, "in_channels": 1, "channels": widths, "out_channels": 8, "norm": "instance"}
            encoder = define("monai_fewshot.networks.encoders.UNetEncoder", **layers)
            networks.append(define("monai_fewshot.networks.nets.ALPNet", spatial_dims=2, encoder=encoder))
        settings = ModelRecord(networks[0], VolumePreparation(**{"image_size": [32, 32], **preparation})).state_dict()
        torch.save({"model": networks[1].state_dict(), "settings": settings}, file)
        return str(file)

    return save


@pytest.fixture(scope="session")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six annotated scans; in three folds each has two queries, one support and three scans to train on."""
    return Scans.data_set(tmp_path_factory.mktemp("annotated"))


@pytest.fixture(scope="session")
def nine_scans(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of nine annotated scans: in three folds each has three queries, one support and five to train on."""
    return str(Scans.data_set(tmp_path_factory.mktemp("nine"), 9))


@pytest.fixture(scope="session")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a set of phantom lesions."""
    return str(make_phantom_lesions(tmp_path_factory.mktemp("lesions"), 10, 48))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of phantom shapes, a folder a class."""
    return str(make_phantom_shapes(tmp_path_factory.mktemp("shapes"), 10, 3, 48))
