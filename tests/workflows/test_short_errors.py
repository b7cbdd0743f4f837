# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from monai_fewshot.workflows.setting_kinds import read_setting
from monai_fewshot.workflows.short_errors import known_error, show_errors_short


def _raised(action):
    """What MONAI makes of an error in an expression."""
    try:
        try:
            action()
        except Exception as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        return error


OURS = _raised(lambda: read_setting("fold", 0.5))
OF_A_FILE = _raised(Path("/no/such/file").read_text)
OTHER = _raised(lambda: torch.zeros(2) + torch.zeros(3))


@pytest.fixture
def as_program(monkeypatch):
    """Let this process be one of ``python -m monai.bundle``, and restore what it changes."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()

    def be(name):
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name=name))
        show_errors_short()

    yield be
    logging.setLogRecordFactory(factory)


def _shown(error, capsys):
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_known_errors():
    assert known_error(OURS) is OURS.__cause__
    assert known_error(OF_A_FILE) is OF_A_FILE.__cause__
    assert known_error(OTHER) is None


def test_a_known_error_is_its_text_alone(as_program, capsys):
    as_program("monai.bundle.__main__")
    text = "ValueError: --fold is 0.5: give a whole number from 0 or a list of them, or None, such as --fold 0.\n"
    assert _shown(OURS, capsys) == text
    assert _shown(OF_A_FILE, capsys) == "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'\n"


def test_other_errors_end_with_their_cause(as_program, capsys):
    as_program("monai.bundle.__main__")
    lines = _shown(OTHER, capsys).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"RuntimeError: {OTHER.__cause__}"


def test_logs_of_known_errors_have_no_frames(as_program, caplog):
    as_program("monai.bundle.__main__")
    for error in (OURS, OTHER):
        logging.getLogger("test").error("It ends.", exc_info=error)
    assert [record.exc_info is None for record in caplog.records] == [True, False]


@pytest.mark.parametrize(("name", "variable"), [("pytest", None), ("monai.bundle.__main__", "1")])
def test_frames_are_left_in_other_programs_and_where_asked(name, variable, as_program, capsys, monkeypatch):
    if variable:
        monkeypatch.setenv("MONAI_FEWSHOT_TRACEBACK", variable)
    before = sys.excepthook
    as_program(name)
    assert sys.excepthook is before
