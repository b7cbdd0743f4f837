# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What a bundle command is found to have used."""

from __future__ import annotations

import json
import sys

from monai_fewshot.apps.benchmark.running.measured import run_measured


def test_waiting_is_not_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    config, usage = tmp_path / "config.json", tmp_path / "usage.json"
    work = "$next(None for _ in itertools.count() if time.process_time() > @began + 0.3)"
    content = {"imports": ["$import itertools", "$import time"], "began": "$time.process_time()"}
    config.write_text(json.dumps({**content, "run": ["$time.sleep(2)", work]}))
    run_measured(usage, ["run", "--config_file", str(config)])
    used = json.loads(usage.read_text())
    assert 0.3 < used["busy_seconds"] <= used["seconds"] - 1.9
    assert used["peak_memory_mb"] > 50
    assert used["peak_gpu_memory_mb"] is None
