# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import monai_fewshot
from monai_fewshot.apps.phantom import make_phantom_dataset

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == monai_fewshot.__version__
    assert citation["license"] == "Apache-2.0"


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "models", "eval")
    for name in ("monai_fewshot", "bundles"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", "dist", "."], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def test_a_wheel_holds_every_file_of_the_package_and_the_bundles(wheel):
    source = wheel.parents[1]
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    expected = {path.as_posix() for path in files if path.parts[0] == "monai_fewshot"}
    expected |= {f"monai_fewshot/{path.as_posix()}" for path in files if path.parts[0] == "bundles"}
    assert len(expected) > 300
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_an_installed_wheel_runs_its_bundles_outside_the_checkout(wheel, tmp_path):
    installed, work = tmp_path / "installed", tmp_path / "work"
    zipfile.ZipFile(wheel).extractall(installed)
    work.mkdir()

    def run(*words):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert run("monai_fewshot.apps.bundles", "copy", "registration", "--output_dir", "mine").strip() == "mine"
    assert (work / "mine" / "docs" / "README.md").is_file()
    data = make_phantom_dataset(tmp_path / "data", 2, (32, 32, 8), num_folds=2)
    image, label = (next((data / folder).iterdir()) for folder in ("imagesTr", "labelsTr"))
    bundle = installed / "monai_fewshot" / "bundles" / "registration"
    words = ["run", "--config_file", str(bundle / "configs" / "inference.json"), "--dataset_dir", str(image.parent)]
    words += ["--support_image", str(image), "--support_label", str(label), "--output_dir", str(work / "masks")]
    run("monai.bundle", *words, "--registration#resolution", "16.0", "--registration#deformation_levels", "[]")
    assert len(list((work / "masks").glob("*.nii.gz"))) == 2
    assert {path.name for path in bundle.iterdir()} == {"LICENSE", "configs", "docs"}


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_requirement_has_one_pin_within_its_range(python):
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    requirements = [Requirement(line) for text in wanted for line in text.strip().splitlines()]
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            pinned.setdefault(canonicalize_name(pin.name), []).extend(s.version for s in pin.specifier)
    assert {name: versions for name, versions in pinned.items() if len(versions) != 1} == {}
    outside = [str(r) for r in requirements if not r.specifier.contains(pinned[canonicalize_name(r.name)][0])]
    assert outside == []


def test_torch_is_pinned_for_every_python():
    (torch,) = (pin for pin in pins() if pin.name == "torch")
    assert torch.marker is None
    assert re.fullmatch(r"==[\d.]+", str(torch.specifier))
