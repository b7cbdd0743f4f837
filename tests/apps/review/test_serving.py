# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import socket
import urllib.request
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from monai_fewshot.apps.command.cli import app
from monai_fewshot.apps.review import review_masks, serving

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


def run(*words):
    return CliRunner().invoke(app, ["review", *map(str, words)])


def test_it_answers_on_the_loopback_address_alone_and_ends_on_interruption(served):
    process, address = served
    parts = urlsplit(address)
    assert parts.hostname == "127.0.0.1"
    with urllib.request.urlopen(address) as answer:
        assert answer.status == 200
    with pytest.raises(HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{parts.port}/scans")
    for other in {"127.0.0.2", *socket.gethostbyname_ex(socket.gethostname())[2]} - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|assign|unreachable"):
            socket.create_connection((other, parts.port), timeout=10).close()
    process.send_signal(2)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in told


def test_a_port_that_is_taken_is_told(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run(folder, "--no-browser", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "is taken: name another --port" in result.output


def test_bad_input_is_told_before_anything_is_served(folder, tmp_path):
    result = run(tmp_path, "--no-browser")
    assert result.exit_code == 2
    assert "holds no masks" in result.output
    (folder / "review.csv").write_text("scan,verdict,note,time\na,good,,\n")
    result = run(folder, "--no-browser")
    assert result.exit_code == 2
    assert "line 2: the verdict is 'good'" in result.output


def test_without_the_extra_its_name_is_told(monkeypatch, folder):
    monkeypatch.setattr(serving, "has_uvicorn", False)
    with pytest.raises(ImportError, match=r"pip install 'monai_fewshot\[review\]'"):
        review_masks(folder)
