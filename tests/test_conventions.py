# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every file of the project."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import monai  # noqa: F401
import pytest
from monai.bundle.config_item import ComponentLocator

import monai_fewshot
from monai_fewshot.utils import default_dtype

ROOT = Path(__file__).parents[1]
HEADER = "# Copyright (c) monai_fewshot contributors\n# SPDX-License-Identifier: Apache-2.0\n"
FOLDERS = ("monai_fewshot", "tests", "benchmarks", "scripts", "bundles")
PYTHON_FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
CONFIGS = sorted((ROOT / "bundles").glob("*/configs/*.json"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(monai_fewshot.__path__, "monai_fewshot.")
    if not module.name.endswith(".__main__")
)

IMPORT_ALL_WITHOUT_OPTIONAL_PACKAGES = """
import importlib, sys

OPTIONAL = {"itk", "numba", "highdicom", "pydicom", "SimpleITK", "torchvision", "cucim", "mlflow"}
OPTIONAL |= {"starlette", "submitit", "uvicorn"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def _defined(module):
    """Public classes and functions that a module defines, as MONAI's component locator sees them."""
    return {
        name
        for name, item in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__ == module.__name__
    }


def _ours():
    return {name: module for module in MODULES for name in _defined(importlib.import_module(module))}


def _strings(config):
    if isinstance(config, dict):
        config = [*config, *config.values()]
    if isinstance(config, list):
        return [text for item in config for text in _strings(item)]
    return [config] if isinstance(config, str) else []


def _targets(config):
    if isinstance(config, dict):
        own = [config["_target_"]] if "_target_" in config else []
        return own + [target for item in config.values() for target in _targets(item)]
    return [target for item in config for target in _targets(item)] if isinstance(config, list) else []


def test_no_name_of_ours_is_one_of_monai():
    theirs = {
        name: module_name
        for module_name, module in list(sys.modules.items())
        if module is not None and module_name.partition(".")[0] == "monai"
        for name in _defined(module)
    }
    assert {"DiceLoss", "RandAffined", "sliding_window_inference"} <= theirs.keys()
    assert {name: (module, theirs[name]) for name, module in _ours().items() if name in theirs} == {}


def test_no_room_holds_more_than_sixteen_modules():
    rooms = [ROOT / "monai_fewshot", ROOT / "tests"]
    folders = [folder for room in rooms for folder in [room, *room.rglob("*")] if folder.is_dir()]
    modules = {f: [m for m in f.glob("*.py") if m.stem not in {"__init__", "__main__", "conftest"}] for f in folders}
    assert {str(f.relative_to(ROOT)): len(found) for f, found in modules.items() if len(found) > 16} == {}


def test_public_names_are_there_once():
    for name in MODULES:
        module = importlib.import_module(name)
        listed = getattr(module, "__all__", [])
        assert [item for item in listed if not hasattr(module, item)] == [], name
        assert len(set(listed)) == len(listed), name


@pytest.mark.slow
def test_every_module_imports_without_optional_packages():
    command = [sys.executable, "-c", IMPORT_ALL_WITHOUT_OPTIONAL_PACKAGES, *MODULES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_python_file_has_the_license_header():
    assert len(PYTHON_FILES) > 100
    lacking = [str(file.relative_to(ROOT)) for file in PYTHON_FILES if not file.read_text().startswith(HEADER)]
    assert not lacking


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parts[-3]}/{file.name}")
def test_configs_name_what_there_is(file):
    text = file.read_text()
    config = json.loads(text)
    assert text == json.dumps(config, indent=4, ensure_ascii=False) + "\n", "indent by 4"
    ours, locator = _ours(), ComponentLocator()
    for target in _targets(config):
        assert target not in ours, f"{target} needs its full dotted path: MONAI's locator takes the first of a name"
        if target.startswith("$"):
            continue
        if "." in target:
            module, _, name = target.rpartition(".")
            assert callable(_attribute(module, name)), target
        else:
            assert locator.get_component_module_name(target), f"MONAI has no {target}"
    for text in _strings(config):
        for path in re.findall(r"(?<![\w/])monai_fewshot(?:\.\w+)+", text):
            assert reduce(getattr, path.split(".")[1:], monai_fewshot) is not None


def _attribute(path, name):
    """The attribute of a module, or of a class in it."""
    try:
        return getattr(importlib.import_module(path), name)
    except ModuleNotFoundError:
        outer, _, inner = path.rpartition(".")
        return getattr(_attribute(outer, inner), name)


def test_the_default_precision_is_refused_to_tests_that_do_not_say_that_they_use_it():
    with pytest.raises(ValueError, match="for tests with the marker default_dtype alone"):
        default_dtype("cpu")


def test_bundles_are_found():
    assert {file.name for file in CONFIGS} >= {"train.json", "evaluate.json", "inference.json"}
