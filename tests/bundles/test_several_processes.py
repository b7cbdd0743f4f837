# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Training, evaluation and inference in two processes (gloo) against one: SSL-ALPNet, and training of PANet."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from interruptions import PATIENCE, is_alive, wait_until
from process_groups import run_bundle
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_fewshot.handlers import ResultRecords

pytestmark = pytest.mark.slow
SMALL = {
    "num_folds": 3,
    "fold": 0,
    "image_size": [32, 32],
    "dtype": "$torch.float32",
}
TRAINING = {
    **SMALL,
    "encoder::channels": [4, 8],
    "encoder::out_channels": 8,
    "batch_size": 4,
    "epoch_length": 3,
    "max_epochs": 2,
    "num_val_episodes": 6,
    "pseudo_labels::min_size": 40,
    "handlers::log_interval": 1,
}


def command(configs: Path, name: str, processes: int, options: dict[str, object]) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = {**options, "config_file": configs / f"{name}.json"}
    return [
        *(sys.executable, *launcher, "-m", "monai.bundle", "run"),
        *(word for key, value in words.items() for word in (f"--{key}", str(value))),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def run_in(processes: int, configs: Path, name: str, options: dict[str, object], folder: Path) -> str:
    """What processes that succeed print."""
    text, errors = run_bundle(configs, name, processes, options, folder)
    assert errors == [None] * processes, errors
    return text


@pytest.fixture(scope="module")
def trained(configs, dataset_dir, tmp_path_factory):
    """Folders of the same training in one process and in two."""
    folders = {}
    for processes in (1, 2):
        folders[processes] = tmp_path_factory.mktemp(f"in_{processes}")
        options = {**TRAINING, "bundle_root": folders[processes], "dataset_dir": dataset_dir}
        text = run_in(processes, configs, "train", options, folders[processes] / "told")
        assert text.count("Epoch[2] Metrics -- val_dice:") == 1
    return folders


def curve(folder: Path, tag: str = "train_loss") -> list[float]:
    for file in (folder / "models" / "fold0" / "logs").iterdir():
        reader = EventAccumulator(str(file))
        reader.Reload()
        if tag in reader.Tags()["scalars"]:
            return [event.value for event in reader.Scalars(tag)]
    raise AssertionError(f"no {tag} was logged")


def test_two_processes_have_the_loss_curve_of_one(trained):
    one, two = curve(trained[1]), curve(trained[2])
    assert len(one) == 6
    assert one == pytest.approx(two, rel=1e-3)
    assert len(set(one)) == 6
    assert curve(trained[1], "val_dice") == pytest.approx(curve(trained[2], "val_dice"), abs=0.02)


def test_two_processes_train_panet_as_one(configs, dataset_dir, tmp_path):
    curves = []
    for processes in (1, 2):
        options = {**TRAINING, "max_epochs": 1, "shots": 2, "bundle_root": tmp_path / str(processes)}
        panet = configs.parents[1] / "panet" / "configs"
        run_in(processes, panet, "train", {**options, "dataset_dir": dataset_dir}, tmp_path / f"told_{processes}")
        curves.append(curve(tmp_path / str(processes)))
    assert len(set(curves[0])) == 3
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_two_processes_write_the_files_of_one(trained):
    names = [sorted(p.name for p in (trained[n] / "models" / "fold0").iterdir()) for n in (1, 2)]
    assert names[0] == names[1]
    last = [trained[n] / "models" / "fold0" / "checkpoint_epoch=2.pt" for n in (1, 2)]
    one, two = (torch.load(file, weights_only=True)["model"] for file in last)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-3, rtol=1e-2, msg=name)


def evaluation(trained, dataset_dir, folder):
    checkpoint = trained[1] / "models" / "fold0" / "model.pt"
    return {**SMALL, "dataset_dir": dataset_dir, "output_dir": folder, "checkpoint": checkpoint}


def test_any_number_of_processes_gives_the_table_of_one(configs, trained, dataset_dir, tmp_path):
    """Fold 0 has two query scans, so that of three processes one has none."""
    tables = []
    for processes in (1, 2, 3):
        options = evaluation(trained, dataset_dir, tmp_path / str(processes))
        text = run_in(processes, configs, "evaluate", options, tmp_path / f"told_{processes}")
        assert text.count("fold 0 alpnet_dice:") == 1
        tables.append((tmp_path / str(processes) / "results.csv").read_text())
        assert (tmp_path / str(processes) / "report.html").is_file()
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].count("\n") > 4


def test_an_error_in_one_process_ends_all_with_its_reason(configs, trained, dataset_dir, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(dataset_dir, broken)
    label = broken / "labelsTr" / "scan_1.nii.gz"
    label.write_bytes(label.read_bytes()[:-200])
    words = command(configs, "evaluate", 2, evaluation(trained, broken, tmp_path / "out"))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0
    assert "scan_1.nii.gz: is truncated or damaged" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written_ends_all_before_scans_are_read(configs, dataset_dir, tmp_path):
    (tmp_path / "models").write_text("in the way")
    options = {**TRAINING, "bundle_root": tmp_path, "dataset_dir": dataset_dir}
    text, errors = run_bundle(configs, "train", 2, options, tmp_path / "told")
    assert all(re.search(r"OSError: output folder .* cannot be written", str(error)) for error in errors)
    assert "preparing scans" not in text


def test_a_batch_that_cannot_be_shared_is_refused_at_once(configs, dataset_dir, tmp_path):
    options = {**TRAINING, "batch_size": 3, "bundle_root": tmp_path, "dataset_dir": dataset_dir}
    _, errors = run_bundle(configs, "train", 2, options, tmp_path / "told")
    assert all("A batch of 3 episodes cannot be dealt out evenly to 2 processes" in str(error) for error in errors)
    assert not (tmp_path / "models").exists()


def test_a_process_that_is_killed_ends_the_others(configs, dataset_dir, tmp_path):
    options = {**TRAINING, "max_epochs": 1000, "bundle_root": tmp_path, "dataset_dir": dataset_dir}
    with open(tmp_path / "log", "w") as log:
        launcher = subprocess.Popen(command(configs, "train", 2, options), env=environment(), stdout=log, stderr=log)
    try:
        checkpoints = tmp_path / "models" / "fold0"
        wait_until(lambda: launcher.poll() is not None or list(checkpoints.glob("checkpoint_epoch=*.pt")))
        assert launcher.poll() is None, (tmp_path / "log").read_text()[-2000:]
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert launcher.wait(PATIENCE) != 0
    finally:
        launcher.kill()
    text = (tmp_path / "log").read_text()
    assert "SIGKILL" in text or "Signal 9" in text
    assert not any(is_alive(child) for child in children)


@pytest.fixture
def inference(scans, save_model, tmp_path):
    """Settings to segment six scans, of which one is ten times as large as the others."""
    for seed in range(6):
        size = (40, 36, 60 if seed == 2 else 6)
        scans.save(tmp_path / "scans" / f"scan_{seed}.nii.gz", scans.make(seed, size)[0])
    image, label = scans.make(9)
    return {
        "dataset_dir": tmp_path / "scans",
        "support_image": scans.save(tmp_path / "support.nii.gz", image),
        "support_label": scans.save(tmp_path / "support_label.nii.gz", label),
        "checkpoint": save_model(tmp_path / "model.pt"),
        "dtype": "$torch.float32",
        "threshold": -0.2,
        "measurements": True,
    }


def voxels(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(nibabel.load(file).dataobj) for file in folder.glob("*_seg.nii.gz")}


def test_any_number_of_processes_segments_a_folder_as_one(configs, inference, tmp_path):
    for processes in (1, 2):
        output = tmp_path / f"out_{processes}"
        run_in(processes, configs, "inference", {**inference, "output_dir": output}, tmp_path / f"told_{processes}")
    one, two = voxels(tmp_path / "out_1"), voxels(tmp_path / "out_2")
    assert len(one) == 6
    assert any(mask.any() for mask in one.values())
    assert one.keys() == two.keys()
    for name, mask in one.items():
        np.testing.assert_array_equal(two[name], mask, name)
    tables = [(tmp_path / f"out_{processes}" / "measurements.csv").read_text() for processes in (1, 2)]
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == 1 + 2 * 6


def test_a_bad_scan_is_told_once_by_several_processes(configs, inference, tmp_path):
    file = inference["dataset_dir"] / "scan_4.nii.gz"
    file.write_bytes(file.read_bytes()[:-500])
    settings = {**inference, "output_dir": tmp_path / "out"}
    _, errors = run_bundle(configs, "inference", 2, settings, tmp_path / "told")
    told = [error for error in errors if error is not None]
    assert len(told) == 1
    assert "1 of 6 scans cannot be segmented:\nscan_4: ValueError: " in told[0], told[0]
    assert "scan_4.nii.gz: is truncated or damaged" in told[0]
    assert sorted(voxels(tmp_path / "out")) == [f"scan_{number}_seg.nii.gz" for number in (0, 1, 2, 3, 5)]


def test_what_was_segmented_before_a_process_is_killed_stays(configs, inference, tmp_path):
    output = tmp_path / "out"
    settings = {**inference, "output_dir": output}
    with open(tmp_path / "log", "w") as log:
        words = command(configs, "inference", 2, settings)
        launcher = subprocess.Popen(words, env=environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: launcher.poll() is not None or list(output.glob("[!.]*_seg.nii.gz")))
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        launcher.wait(PATIENCE)
    finally:
        launcher.kill()
    times = {file.name: file.stat().st_mtime_ns for file in output.glob("[!.]*_seg.nii.gz")}
    assert times
    done = {name for name in times if name.removesuffix("_seg.nii.gz") in ResultRecords(output).read()}
    run_in(1, configs, "inference", settings, tmp_path / "told")
    assert len(voxels(output)) == 6
    assert (output / "measurements.csv").read_text().count("\n") == 1 + 2 * 6
    assert {name: (output / name).stat().st_mtime_ns for name in done} == {name: times[name] for name in done}
