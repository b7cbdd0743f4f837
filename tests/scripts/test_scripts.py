# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The scripts that users call: what they print, draw and refuse. CI itself is the test of what they run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_fewshot.apps.phantom import make_phantom_dataset

ROOT = Path(__file__).parents[2]


def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([str(w) for w in words], env=env, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("script", ["quickstart.sh", "runtests.sh"])
def test_help_names_every_option_and_variable(script):
    text = (ROOT / script).read_text()
    options = set(re.findall(r"--[a-z]+(?=[)| ])", text[text.index("case $") : text.index("scripts/make_env")]))
    variables = set(re.findall(r"(?:\$\{|export )(MONAI_[A-Z_]+)", text))
    done = call("bash", ROOT / script, "--help")
    assert done.returncode == 0
    assert options
    assert variables
    assert all(word in done.stdout for word in options | variables)


@pytest.mark.parametrize("script", ["quickstart.sh", "runtests.sh"])
def test_an_unknown_option_is_refused_before_anything_is_installed(script, tmp_path):
    done = call("bash", ROOT / script, "--fast", MONAI_FEWSHOT_VENV=str(tmp_path / "venv"))
    assert done.returncode == 2
    assert "Unknown option --fast." in done.stderr
    assert "usage" in done.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("words", [("--dtype", "float16", "--lint"), ("--dtype",)])
def test_a_precision_that_no_run_can_have_is_refused(words, tmp_path):
    done = call("bash", ROOT / "runtests.sh", *words, MONAI_FEWSHOT_VENV=str(tmp_path / "venv"))
    assert done.returncode == 2
    assert done.stderr == f"--dtype is {[*words, 'missing'][1]}: use float32 or bfloat16.\n"
    assert not (tmp_path / "venv").exists()


PYTHON = """#!/bin/sh
case "$*" in
    *default_dtype*print*) exec {python} "$@" ;;
    *pytest*) echo "$MONAI_FEWSHOT_DTYPE: $*" ;;
esac
"""


@pytest.mark.parametrize(("dtype", "other"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_tests_are_repeated_in_the_other_precision(dtype, other, tmp_path):
    """The scripts run from a copy of the project that has a stand-in for its Python."""
    for name in ("runtests.sh", "scripts/make_environment.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "scripts/make_environment.sh").write_text("#!/bin/sh\n")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    done = call("bash", tmp_path / "runtests.sh", "--dtype", dtype, MONAI_FEWSHOT_VENV="venv")
    assert done.returncode == 0, done.stderr
    runs = [line for line in done.stdout.splitlines() if "pytest" in line]
    assert [run.partition(":")[0] for run in runs] == [dtype, other, dtype, dtype]
    assert [" -m default_dtype " in run for run in runs] == [False, True, False, False]


@pytest.mark.parametrize(
    ("python", "message"),
    [("no_such_python", "There is no no_such_python. Install Python 3.10 or later"), ("", "is Python 3.9.1, but 3.10")],
)
def test_a_python_that_is_absent_or_too_old_is_named(python, message, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = call("bash", ROOT / "scripts/make_environment.sh", tmp_path / "venv", PYTHON=python or str(old))
    assert done.returncode == 1
    assert message in done.stderr


def test_masks_are_compared_with_the_truth(tmp_path):
    data = make_phantom_dataset(tmp_path / "data", 3, size=(64, 64, 12), num_folds=3)
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in (1, 2):
        label = nibabel.load(data / "labelsTr" / f"phantom_00{number}.nii.gz")
        found = np.asarray(label.dataobj).copy()
        if number == 2:
            found[found == 1] = 0
        nibabel.save(nibabel.Nifti1Image(found, label.affine), masks / f"phantom_00{number}_seg.nii.gz")
    done = call(sys.executable, ROOT / "scripts/compare_masks.py", data, masks, "phantom_003")
    assert done.returncode == 0, done.stderr
    table = [line.split()[-2] for line in done.stdout.splitlines()]
    assert table == ["50.0", "100.0", "100.0", "100.0", "87.5", "75.0"]


def test_a_result_is_drawn(tmp_path):
    data = make_phantom_dataset(tmp_path / "data", 5, size=(64, 64, 12))
    images, labels = ([data / kind / f"phantom_00{n}.nii.gz" for n in (1, 3)] for kind in ("imagesTr", "labelsTr"))
    words = ("--image", images[0], "--label", labels[0], "--mask", labels[0])
    support = ("--support_image", images[1], "--support_label", labels[1])
    output = tmp_path / "new" / "result.png"
    done = call(sys.executable, ROOT / "scripts/draw_result.py", *words, *support, "--output", output)
    assert done.returncode == 0, done.stderr
    picture = Image.open(output).convert("RGB")
    assert picture.width > picture.height > 200
    assert {(255, 79, 100), (77, 210, 255), (255, 225, 77), (110, 225, 110)} <= {
        color for _, color in picture.getcolors(1 << 24)
    }
