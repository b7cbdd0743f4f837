# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The check of a machine's GPU, on stand-ins for bundle commands and for what waits for a GPU."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from monai_fewshot.apps.bundles import ChildProcesses, bundle_folder, bundle_names
from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import SliceStack

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bundle_probe
import gpu_check
import gpu_throughput
from logged_command import run_logged

WAITING = bundle_probe.SYNCHRONIZING


@pytest.fixture
def modes(monkeypatch):
    """What the debug mode of synchronizations is set to."""
    found = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", found.append)
    return found


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return gpu_check.make_phantoms(tmp_path_factory.mktemp("phantoms"), quick=True)


class TestSynchronizations:
    def test_are_counted_by_the_line_that_causes_them(self, modes, monkeypatch):
        def device_tensor(values, device, dtype=None):
            warnings.warn(WAITING, stacklevel=1)
            return torch.as_tensor(values, dtype=dtype)

        monkeypatch.setattr("monai_fewshot.data.slices.slice_stack.device_tensor", device_tensor)
        stack = SliceStack(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3))
        with bundle_probe.synchronizations() as counts:
            for place in range(3):
                stack.take([place])
            warnings.warn("something else", stacklevel=1)
            warnings.warn(WAITING, stacklevel=1)
            here = inspect.currentframe().f_lineno - 1
        assert modes == ["warn", "default"]
        lines, first = inspect.getsourcelines(SliceStack.take)
        (line,) = (number for number, text in enumerate(lines, first) if "device_tensor(" in text)
        assert counts == {f"monai_fewshot/data/slices/slice_stack.py:{line}": 3, f"{Path(__file__).name}:{here}": 1}

    def test_the_mode_ends_where_a_step_fails(self, modes):
        def fail():
            with bundle_probe.synchronizations():
                raise ValueError("a step")

        with pytest.raises(ValueError, match="a step"):
            fail()
        assert modes == ["warn", "default"]

    def test_of_a_training_are_those_after_the_timed_steps_of_its_first_epoch(self, modes, monkeypatch):
        def loss(output, target):
            warnings.warn(WAITING, stacklevel=1)
            return (output - target).square()

        def trainer():
            network = torch.nn.Linear(1, 1)
            return SupervisedTrainer(
                device="cpu",
                max_epochs=2,
                train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}] * 8,
                network=network,
                optimizer=torch.optim.SGD(network.parameters()),
                loss_function=loss,
                decollate=False,
            )

        monkeypatch.setattr(bundle_probe, "is_on_gpu", lambda device: True)
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recorder = bundle_probe.StepRecorder(stack)
            for each in (trainer(), trainer()):
                recorder.attach(each)
                each.run()
        assert modes == ["warn", "default"]
        assert len(recorder.seconds) == 5
        assert sum(recorder.counts.values()) == 3


class TestProbe:
    def test_agreement_is_that_of_label_maps_and_margins(self):
        expected = torch.tensor([[0.0, 0, 0, 0, 0], [1, 1, 1, -1, -1], [-1, -1, -1, -1, -4]]).view(1, 3, 1, 5)
        found = expected.clone()
        found[0, 1, 0, 2:4] = torch.tensor([-0.5, 0.25])
        one = bundle_probe.agreement([found], [expected])
        assert one["dice"] == pytest.approx(2 * 2 / (3 + 3)), "the second class is in neither"
        assert (one["difference"], one["largest"]) == (1.5, 1.0)
        same = bundle_probe.agreement([expected, found], [expected, expected])
        assert same["dice"] == pytest.approx((1 + 2 / 3) / 2)
        nothing = torch.zeros(1, 2, 3)
        assert bundle_probe.agreement([nothing], [nothing]) == {"dice": 1.0, "difference": 0.0, "largest": 0.0}

    def test_the_layout_is_that_of_the_weights(self):
        network = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.BatchNorm2d(4))
        assert bundle_probe.layout(network) == "channels-first"
        assert bundle_probe.layout(network.to(memory_format=torch.channels_last)) == "channels-last"

    def test_a_bundle_is_trained_and_compared(self, phantoms, tmp_path):
        small = {"dtype": "$torch.bfloat16", "device": "$torch.device('cpu')", "image_size": [32, 32], "fold": 0}
        small["network_def#features"] = [4, 4, 8, 8, 8, 4]
        scans, model = phantoms["nibabel"], tmp_path / "model"
        steps = {"epoch_length": 5, "max_epochs": 1, "ckpt_dir": str(model)}
        layout = {"channels_last": True, "compile": False}
        trained = bundle_probe.probe_training(
            "supervised", {"dataset_dir": str(scans.folder), **small, **steps, **layout}
        )
        del small["fold"], small["network_def#features"]
        places = {"checkpoint": str(model / "model.pt"), "output_dir": str(tmp_path / "masks")}
        queries = {"dataset_dir": str(scans.queries)}
        compared = bundle_probe.probe_inference("supervised", {**small, **places, **queries})
        set_determinism(None)
        assert (trained["compiled"], trained["layout"], trained["dtype"]) == (False, "channels-last", "bfloat16")
        assert trained["first_s"] > 0
        assert trained["later_s"] > 0
        assert trained["synchronizations"] is None
        assert 0 < compared["difference"] < compared["largest"]
        assert 0.5 < compared["dice"] <= 1
        assert len(list((tmp_path / "masks").glob("[!.]*"))) == gpu_check.QUERIES

    def test_a_part_that_fails_leaves_the_other(self, monkeypatch, tmp_path, capsys):
        def fail(bundle, settings):
            raise RuntimeError("Failed to run it") from ValueError("two lines:\nthe last one")

        monkeypatch.setattr(bundle_probe, "probe_training", fail)
        monkeypatch.setattr(bundle_probe, "probe_inference", lambda bundle, settings: {"dice": settings["dice"]})
        request = {"bundle": "adnet", "train": {}, "inference": {"dice": 0.5}}
        (tmp_path / "request.json").write_text(json.dumps(request))
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "request.json"), str(tmp_path / "result.json")])
        bundle_probe.main()
        found = json.loads((tmp_path / "result.json").read_text())
        assert found == {"train": {"error": "ValueError: the last one"}, "inference": {"dice": 0.5}}


def test_a_failure_is_told_by_its_cause(tmp_path):
    code = "try:\n raise ValueError('no disk')\nexcept ValueError as e:\n raise RuntimeError('instantiate') from e"
    log = tmp_path / "logs" / "train.log"
    with pytest.raises(RuntimeError, match=re.escape("ValueError: no disk (exit code 1, train.log)")):
        run_logged([sys.executable, "-S", "-c", code], tmp_path, log, 1, ChildProcesses())
    assert "RuntimeError: instantiate" in log.read_text()
    with pytest.raises(RuntimeError, match=re.escape("no output (exit code 3, train.log)")):
        run_logged([sys.executable, "-S", "-c", "raise SystemExit(3)"], tmp_path, log, 1, ChildProcesses())
    assert run_logged([sys.executable, "-S", "-c", "pass"], tmp_path, log, 1, ChildProcesses()) > 0


MEASURED = {
    "train": {
        "compiled": True,
        "layout": "channels-last",
        "dtype": "bfloat16",
        "first_s": 31.25,
        "later_s": 0.0125,
        "peak_mb": 512.4,
        "counted_steps": 10,
        "synchronizations": {"a.py:1": 1, "b.py:2": 20},
    },
    "inference": {"synchronizations": {"c.py:3": 4}, "dice": 0.98765, "difference": 0.1234, "largest": 17.5},
}


class Commands:
    """Stands in for running commands: leaves the files that they would leave, unless they shall fail."""

    def __init__(self, failing=()):
        self.failing = failing
        self.ran = []

    def __call__(self, command, folder, log, threads, processes):
        if (folder.name, log.stem) in self.failing:
            raise RuntimeError(f"ValueError: {log.stem} | wrong")
        options = dict(zip(command[4::2], command[5::2], strict=True))
        self.ran.append((log.stem, options))
        if log.stem == "probe":
            self.request = json.loads(Path(command[2]).read_text())
            Path(command[3]).write_text(json.dumps(MEASURED))
            return 1.0
        stages = ["stage_1", "stage_2"] if folder.name == "elsnet" else ["."]
        for stage in stages if "--ckpt_dir" in options else ():
            place = Path(options["--ckpt_dir"]) / stage
            place.mkdir(parents=True, exist_ok=True)
            if log.stem == "resume":
                assert stage == "." or not (place / "model.pt").exists(), "a stage that is done is not trained again"
            (place / f"checkpoint_epoch={options['--max_epochs']}.pt").touch()
            for model in (place / "model.pt", place.parent / "model.pt"):
                model.touch()
        output = Path(options.get("--output_dir", log.parent))
        output.mkdir(exist_ok=True)
        if log.stem == "evaluate":
            (output / "results.json").write_text('{"summary": [{}]}')
        if log.stem == "inference":
            for path in Path(options["--dataset_dir"]).iterdir():
                (output / f"{path.stem}_seg.png").touch()
        return 1.0


def _check(monkeypatch, phantoms, bundle, folder, commands):
    monkeypatch.setattr(gpu_check, "run_logged", commands)
    kind = json.loads((bundle_folder(bundle) / "configs" / "metadata.json").read_text())["data_type"]
    check = gpu_check.BundleCheck(bundle, gpu_check.SMALL_IMAGES, phantoms[kind], folder, 1, 10)
    return check.run(ChildProcesses())


class TestBundleCheck:
    @pytest.mark.parametrize("bundle", bundle_names())
    def test_every_step_is_done_with_settings_that_the_bundle_has(self, bundle, phantoms, monkeypatch, tmp_path):
        commands = Commands()
        rows, lines = _check(monkeypatch, phantoms, bundle, tmp_path, commands)
        configs = bundle_folder(bundle) / "configs"
        trains = (configs / "train.json").is_file()
        expected = (["saliency"] if (configs / "saliency.json").is_file() else []) + ["train", "resume"] * trains
        assert [name for name, _ in commands.ran] == [*expected, "evaluate", "inference", "probe"]
        for name, options in commands.ran[:-1]:
            known = json.loads((configs / f"{'train' if name == 'resume' else name}.json").read_text()).keys()
            assert {re.split("#|::", word[2:])[0] for word in options} <= known | {"config_file"}
            assert str(tmp_path) in options["--output_dir" if "--output_dir" in options else "--ckpt_dir"]
        done = {row for row in ("trained", "resumed", "evaluated", "inferred") if rows[row] == "yes"}
        assert done == ({"trained", "resumed", "evaluated", "inferred"} if trains else {"evaluated", "inferred"})
        if trains:
            resumed = dict(commands.ran)["resume"]
            assert (resumed["--resume"], resumed["--max_epochs"]) == ("True", "2")
            assert commands.request["train"]["epoch_length"] == 15
            assert Path(commands.request["train"]["ckpt_dir"]) != Path(resumed["--ckpt_dir"])
        assert (commands.request["train"] is not None) == trains
        assert lines == ["2.0 in a step: `b.py:2`", "0.1 in a step: `a.py:1`", "4 in a second query: `c.py:3`"]

    def test_what_needs_a_failed_training_is_left_out(self, phantoms, monkeypatch, tmp_path):
        commands = Commands(failing=[("adnet", "train")])
        rows, _ = _check(monkeypatch, phantoms, "adnet", tmp_path, commands)
        assert rows["trained"] == "failed: ValueError: train | wrong"
        assert {rows[row] for row in ("resumed", "evaluated", "inferred")} == {"-"}
        assert commands.request["inference"] is None

    def test_a_training_that_was_not_gone_on_with_has_failed(self, phantoms, monkeypatch, tmp_path):
        class Stopping(Commands):
            def __call__(self, command, folder, log, *rest):
                return 1.0 if log.stem == "resume" else super().__call__(command, folder, log, *rest)

        rows, _ = _check(monkeypatch, phantoms, "elsnet", tmp_path, Stopping())
        assert rows["resumed"] == "failed: epoch 2 left no checkpoint"
        assert rows["evaluated"] == "yes"

    def test_queries_without_masks_have_failed(self, phantoms, monkeypatch, tmp_path):
        class Forgetful(Commands):
            def __call__(self, command, folder, log, *rest):
                seconds = super().__call__(command, folder, log, *rest)
                if log.stem == "inference":
                    next(iter((log.parent / "inference").glob("[!.]*"))).unlink()
                return seconds

        rows, _ = _check(monkeypatch, phantoms, "panet", tmp_path, Forgetful())
        assert rows["inferred"] == "failed: 3 queries gave 2 masks"


def test_measurements_in_words():
    rows, _ = gpu_check.described(MEASURED)
    assert rows == {
        "compiled": "yes",
        "layout": "channels-last",
        "precision": "bfloat16",
        "first step": "31.25 s",
        "later step": "0.0125 s",
        "peak memory": "512 MB",
        "synchronizations in a step": "2.1",
        "synchronizations in a second query": "4",
        "agreement with float32 on the CPU": "Dice 0.9877, margins to 0.123 of 17.5",
    }
    failed = {"train": {"error": "ValueError: a"}, "inference": {"error": "ValueError: b"}}
    assert gpu_check.described(failed)[0] == {
        "first step": "failed: ValueError: a",
        "agreement with float32 on the CPU": "failed: ValueError: b",
    }


def test_a_cpu_has_a_column_for_each_precision_that_a_bundle_can_choose():
    assert gpu_check.variants("adnet", on_gpu=True) == {"defaults": {}}
    assert list(gpu_check.variants("adnet", on_gpu=False)) == ["bfloat16", "float32"]
    assert gpu_check.variants("registration", on_gpu=False) == {"float32": {}}


def test_a_failure_does_not_stop_the_other_bundles(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_check, "run_logged", Commands(failing=[("adnet", "evaluate")]))
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--throughput", "--bundles", "adnet", "registration"])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    (folder,) = tmp_path.iterdir()
    assert ended.value.code == f"The logs are in {folder}."
    text = capsys.readouterr().out
    assert "No GPU is at hand" in text
    assert f"torch {torch.__version__}" in text
    failed = r"failed: ValueError: evaluate \| wrong"
    adnet = ["", "bfloat16", "float32"], ["---"] * 3, ["trained", "yes", "yes"], ["resumed", "yes", "yes"]
    shown = "\n".join(
        f"| {' | '.join(row)} |" for row in (*adnet, ["evaluated", failed, failed], ["inferred", "yes", "yes"])
    )
    assert f"### adnet\n\n{shown}\n" in text
    assert "### registration\n\n|  | float32 |\n| --- | --- |\n| trained | - |" in text
    assert "--throughput needs a GPU, and there is none." in text


def test_nothing_is_left_where_nothing_failed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_check, "run_logged", Commands())
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--bundles", "registration"])
    gpu_check.main()
    assert not list(tmp_path.iterdir())


class TestThroughput:
    def test_tables_come_one_below_the_other(self, monkeypatch, tmp_path):
        monkeypatch.setattr(gpu_throughput, "peak_arithmetic", lambda device, dtype: 790e12)
        monkeypatch.setattr(
            gpu_throughput, "fold_seconds", lambda data, dtype: {"float32": 9.51, "bfloat16": 4.26}[dtype]
        )
        monkeypatch.setattr(gpu_throughput, "training_rows", lambda data, peak: [["unet", *"123456"]])
        monkeypatch.setattr(gpu_throughput, "dice_rows", lambda data, folder: [["float32", "bfloat16", "81.2", "9 s"]])
        text = gpu_throughput.throughput(tmp_path / "CHAOS", tmp_path / "out")
        assert "the peak is 790 Tflop/s:" in text
        assert "| unet | 1 | 2 | 3 | 4 | 5 | 6 |" in text
        assert "fold 0 of CHAOS, resnet101 at 256 px, scans in memory: 9.5 s in float32, 4.3 s in bfloat16." in text
        assert "| float32 | bfloat16 | 81.2 | 9 s |" in text

    def test_a_row_has_the_share_of_the_peak_of_the_whole_step(self):
        parts = {name: {"operations": n, "seconds": 0.1} for name, n in (("network", 6e12), ("heads", 2e12))}
        cell = {"encoder": "unet", "batch_size": 16, "step_s": 0.2, "episodes_per_s": 80.0, "making_share": 0.031}
        row = gpu_throughput.training_row({**cell, "peak_bytes": 3.5e9, "parts": parts}, peak=100e12)
        assert row == ["unet", "16", "80.0", "40 %", "3.1 %", "3.50", "21"]
        none = {"encoder": "unet", "batch_size": 64, "error": "out of memory"}
        assert gpu_throughput.training_row(none, 1.0) == ["unet", "64", "out of memory", "", "", "", ""]

    def test_a_fold_is_evaluated_in_both_precisions(self, monkeypatch, tmp_path):
        monkeypatch.setattr(gpu_throughput, "SIZE", 32)
        monkeypatch.setattr(gpu_throughput, "EVALUATED_ENCODER", "unet")
        data = make_phantom_dataset(tmp_path / "data", 5, (32, 32, 8))
        assert all(gpu_throughput.fold_seconds(data, dtype, "cpu") > 0 for dtype in ("float32", "bfloat16"))

    def test_networks_of_either_precision_are_evaluated_in_both(self, monkeypatch, tmp_path):
        ran = []

        def run(command, folder, log, threads, processes):
            options = dict(zip(command[4::2], command[5::2], strict=True))
            ran.append((log.stem, options["--dtype"]))
            if log.stem == "train_bfloat16":
                raise RuntimeError("no memory")
            if log.stem.startswith("evaluate"):
                if log.stem == "evaluate_float32_bfloat16":
                    raise RuntimeError("no folder")
                rows = [
                    {"fold": None, "class_number": None, "dice": 0.81234, "protocol": "alpnet"},
                    {"fold": 0, "class_number": None, "dice": 0.1, "protocol": "alpnet"},
                    {"fold": None, "class_number": None, "dice": 0.7, "protocol": "whole_volume"},
                ]
                Path(options["--output_dir"]).mkdir(parents=True)
                (Path(options["--output_dir"]) / "results.json").write_text(json.dumps({"summary": rows}))
            return 12.4

        monkeypatch.setattr(gpu_throughput, "run_logged", run)
        rows = list(gpu_throughput.dice_rows(tmp_path, tmp_path / "out"))
        dice = "81.23 (alpnet), 70.00 (whole_volume)"
        assert rows == [
            ["float32", "float32", dice, "12 s"],
            ["float32", "bfloat16", "failed: no folder", ""],
            ["bfloat16", "", "failed: no memory", ""],
        ]
        assert ran == [
            ("train_float32", "$torch.float32"),
            ("evaluate_float32_float32", "$torch.float32"),
            ("evaluate_float32_bfloat16", "$torch.bfloat16"),
            ("train_bfloat16", "$torch.bfloat16"),
        ]
