# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "monai_fewshot", tmp_path / "monai_fewshot", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", "dist", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    expected = {
        path.relative_to(tmp_path).as_posix() for path in (tmp_path / "monai_fewshot").rglob("*") if path.is_file()
    }
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


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
