# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Jobs of submitit's local executor, and of Slurm where there is one."""

from __future__ import annotations

import json
import shutil

import pytest
from benchmark_cells import fill, make_config
from interruptions import interrupted_when, is_alive, wait_until
from monai.utils import OptionalImportError

from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix
from monai_fewshot.apps.benchmark.running import cluster as cluster_module
from monai_fewshot.apps.benchmark.running.cluster import Cluster, run_on_cluster
from monai_fewshot.apps.benchmark.running.schedule import Schedule


@pytest.fixture(params=["local", "slurm"])
def cluster(request):
    pytest.importorskip("submitit")
    if request.param == "slurm" and shutil.which("sbatch") is None:
        pytest.skip("there is no Slurm")
    return Cluster(request.param, hours=0.5)


def _run(jobs, cluster, folder):
    found = {}
    run_on_cluster(jobs, cluster, folder / "jobs", lambda name, result, error: found.update({name: (result, error)}))
    return found


def _alone(marker):
    """A job that fails where another one of its kind runs."""

    def work(processes):
        marker.mkdir()
        processes.run(["sleep", "0.5"])
        marker.rmdir()
        return "done"

    return work


def test_a_job_that_fails_stops_no_other_and_tells_why(tmp_path, cluster):
    def fail(processes):
        raise ValueError("no room")

    found = _run({"a": fail, "b": lambda processes: processes.run(["sh", "-c", "exit 3"])}, cluster, tmp_path)
    assert found["b"] == (3, None)
    result, error = found["a"]
    assert result is None
    assert "ValueError: no room (see " in str(error)
    assert str(tmp_path / "jobs") in str(error)


def test_no_more_jobs_run_on_this_machine_at_a_time_than_are_asked_for(tmp_path):
    pytest.importorskip("submitit")
    jobs = dict.fromkeys("ab", _alone(tmp_path / "running"))
    assert _run(jobs, Cluster("local", parallel=1), tmp_path) == dict.fromkeys("ab", ("done", None))


def test_an_interruption_ends_the_commands_of_jobs(tmp_path, cluster):
    pid = tmp_path / "pid"

    def work(processes):
        return processes.run(["sh", "-c", f"echo $$ > {pid}.part; mv {pid}.part {pid}; sleep 600"])

    with interrupted_when(pid.exists):
        _run({"a": work}, cluster, tmp_path)
    wait_until(lambda: not is_alive(int(pid.read_text())))


@pytest.mark.slow
def test_cells_are_jobs_that_are_not_repeated(tmp_path, cluster):
    path, _ = make_config(
        tmp_path,
        methods={"plain": {}, "broken": {"bundle": str(tmp_path / "bundles/broken")}},
        reference=None,
        seeds=[0],
    )
    for name, line in {"plain": "$open(@output_dir + '/results.csv', 'w').write('scores')", "broken": "$1 / 0"}.items():
        configs = tmp_path / "bundles" / name / "configs"
        if name == "broken":
            shutil.copytree(tmp_path / "bundles" / "plain", configs.parent)
        content = json.loads((configs / "evaluate.json").read_text())
        (configs / "evaluate.json").write_text(json.dumps({**content, "initialize": [], "run": [line], "finalize": []}))
    schedule = Schedule(read_matrix(path), "ct/any_setting/all/fold0_seed0/on_ct", cluster)
    finished = []
    failures = schedule.run(lambda: finished.append(1))
    ((name, reason),) = failures.items()
    assert name == "broken/ct/any_setting/all/fold0_seed0/on_ct"
    assert "evaluate ended with code 1" in reason
    assert len(finished) == 2
    assert {cell.row.method.name for cell in schedule.waiting} == {"broken"}
    assert all(cell.results()["evaluation"]["seconds"] > 0 for cell in schedule.cells if cell not in schedule.waiting)
    again = Schedule(read_matrix(path), "plain/ct/any_setting/all/fold0_seed0/on_ct", cluster)
    assert again.run(lambda: finished.append(1)) == {}
    assert len(finished) == 2


@pytest.mark.parametrize(
    ("kind", "unknown", "known"),
    [
        ("slurm", "trainings take shows once", "About 0 h 01 min of jobs are left."),
        ("local", "trainings take, 2 at a time, shows once", "About 0 h 00 min are left, 2 at a time."),
    ],
)
def test_slurm_says_not_how_many_jobs_it_runs_at_a_time(tmp_path, kind, unknown, known):
    pytest.importorskip("submitit")
    path, _ = make_config(tmp_path, methods={"plain": {}}, reference=None, seeds=[0], parallel=4)
    place = Cluster(kind, parallel=2)
    schedule = Schedule(read_matrix(path), "plain/ct/", place)
    assert unknown in schedule.time_left(schedule.waiting)
    fill(schedule.cells[0])
    schedule = Schedule(read_matrix(path), "plain/", place)
    one = [cell for cell in schedule.waiting if cell.row.train.name == "mr"][:2]
    assert schedule.time_left(one) == known


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sge"}, "--cluster is 'sge': use slurm or local"),
        ({"kind": "local", "partition": "gpu"}, "--partition is one of Slurm"),
        ({"kind": "slurm", "hours": 0}, "--hours is 0: a job needs more than 0"),
    ],
)
def test_options_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Cluster(**settings)


def test_without_submitit(monkeypatch):
    monkeypatch.setattr(cluster_module, "has_submitit", False)
    with pytest.raises(OptionalImportError, match=r'pip install "monai_fewshot\[cluster\]"'):
        Cluster("slurm")


def test_what_slurm_is_asked_for(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    asked = {}

    class Executor:
        def __init__(self, folder, cluster):
            asked.update(folder=folder, cluster=cluster)

        def update_parameters(self, **parameters):
            asked.update(parameters)

    monkeypatch.setattr(cluster_module.submitit, "AutoExecutor", Executor)
    Cluster("slurm", "gpu", 1.5, 2, 4).executor(tmp_path)
    assert asked == {
        "folder": tmp_path,
        "cluster": "slurm",
        "name": "monai_fewshot",
        "timeout_min": 90,
        "cpus_per_task": 4,
        "gpus_per_node": 2,
        "slurm_partition": "gpu",
    }
