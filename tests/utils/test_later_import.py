# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
from monai.utils import OptionalImportError

from monai_fewshot.utils import later_import

SHOW_HEAVY = """
import sys
import monai_fewshot.workflows
print(sorted({"SimpleITK", "highdicom", "pydicom.sr.codedict"} & sys.modules.keys()))
"""


def test_imports_when_something_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "made_up_package").mkdir()
    (tmp_path / "made_up_package" / "__init__.py").write_text("")
    (tmp_path / "made_up_package" / "part.py").write_text("answer = 42")
    monkeypatch.syspath_prepend(tmp_path)
    part, available = later_import("made_up_package.part")
    assert available
    assert copy.deepcopy(part) is not part
    assert not hasattr(part, "__wrapped__")
    assert "made_up_package" not in sys.modules
    assert part.answer == 42
    assert copy.deepcopy(part).answer == 42
    with pytest.raises(AttributeError, match="question"):
        part.question  # noqa: B018


def test_a_package_that_is_not_there_is_told_when_it_is_used():
    part, available = later_import("no_such_package.part")
    assert not available
    with pytest.raises(OptionalImportError, match=r"no_such_package\.part"):
        part.answer  # noqa: B018


def test_processes_of_a_training_do_not_import_what_few_of_them_use():
    done = subprocess.run([sys.executable, "-c", SHOW_HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
