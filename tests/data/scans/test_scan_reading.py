# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from interruptions import PATIENCE, wait_until
from monai.data import Dataset
from monai.transforms import Compose, Lambdad
from process_groups import TOLD, error_of, in_two_processes

from monai_fewshot.data import SliceStack, prepare_scans, read_scans
from monai_fewshot.transforms import SuperpixelLabels, SuperpixelLabelsd

FORK = multiprocessing.get_context("fork")
NUM_SCANS = 6


def volume(seed):
    image = np.kron(np.random.default_rng(seed).uniform(50, 250, (1, 6, 6, 3)), np.ones((1, 8, 8, 1)))
    return np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0))).astype(np.float32)


def scans(transform, number=NUM_SCANS):
    return Dataset([{"name": f"scan{n}", "image": volume(n)} for n in range(number)], transform)


def labeled(cache_dir=None):
    return scans(SuperpixelLabelsd("image", min_size=50, threshold=20, cache_dir=cache_dir))


@pytest.fixture
def computed(monkeypatch):
    """Volumes that superpixels were computed of."""
    calls = []
    compute = SuperpixelLabels.compute
    monkeypatch.setattr(
        SuperpixelLabels, "compute", lambda self, image, settings: calls.append(1) or compute(self, image, settings)
    )
    return calls


@pytest.mark.parametrize("num_workers", [1, 2, 5, None])
def test_workers_change_neither_content_nor_order(num_workers):
    plain = [labeled()[index] for index in range(NUM_SCANS)]
    for expected, found in zip(plain, read_scans(labeled(), num_workers), strict=True):
        assert found["name"] == expected["name"]
        assert (found["pseudo_label"] == expected["pseudo_label"]).all()
        assert expected["pseudo_label"].max() > 3


def test_no_workers_read_in_the_calling_thread():
    threads = list(read_scans(Dataset([0, 1], lambda _: threading.current_thread()), num_workers=0))
    assert threads == [threading.main_thread()] * 2


def test_workers_work_at_the_same_time():
    barrier = threading.Barrier(3, timeout=PATIENCE)
    assert sorted(read_scans(Dataset([0] * 6, lambda _: barrier.wait()), num_workers=3)) == [0, 0, 1, 1, 2, 2]


def test_no_more_scans_are_begun_than_there_are_workers():
    begun = []
    reader = read_scans(Dataset(list(range(20)), lambda n: begun.append(n) or n), num_workers=3)
    for consumed in range(1, 11):
        next(reader)
        time.sleep(0.01)
        assert len(begun) <= consumed + 3
    reader.close()
    time.sleep(0.05)
    assert len(begun) <= 13


def test_torch_computes_on_one_core_in_a_worker_and_as_before_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(read_scans(Dataset([0, 1, 2], lambda _: torch.get_num_threads()), num_workers=2)) == [1, 1, 1]
        assert torch.get_num_threads() == 3
        assert list(read_scans(Dataset([0], lambda _: torch.get_num_threads()), num_workers=1)) == [1]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_scan_is_named_with_the_reason(num_workers):
    def spoil(image):
        return np.where(image.max() > 249.5, np.nan, image)

    transform = Compose([Lambdad("image", spoil), SuperpixelLabelsd("image", min_size=50, threshold=20)])
    bad = next(n for n in range(NUM_SCANS, 100) if volume(n).max() > 249.5)
    good = [{"name": f"scan{n}", "image": volume(n)} for n in range(9) if volume(n).max() <= 249.5]
    data = Dataset([*good, {"name": "patient_7", "image": volume(bad)}], transform)
    reader = read_scans(data, num_workers)
    assert [next(reader)["name"] for _ in good] == [scan["name"] for scan in good]
    with pytest.raises(ValueError, match="Scan patient_7 cannot be read: ValueError: image holds NaN or infinite"):
        next(reader)


def test_name_and_file_are_given_where_known():
    def fail(scan):
        raise OSError("truncated")

    for entry, named in (({"name": "a", "image": "/d/a.nii"}, "a /d/a.nii"), ({"image": "b.nii"}, "b.nii"), (3, "0")):
        with pytest.raises(ValueError, match=re.escape(f"Scan {named} cannot be read: OSError: truncated")):
            list(read_scans(Dataset([entry], fail)))


def test_progress_goes_to_standard_error(capsys):
    list(read_scans(scans(None), num_workers=2, description="labeling"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(r"labeling: 100%.* 6/6 ", captured.err)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_killed_run_keeps_what_it_has_done(tmp_path, computed, num_workers):
    def slowly(scan):
        if scan["name"] == "scan3":
            time.sleep(PATIENCE)
        return labeled(tmp_path).transform(scan)

    process = FORK.Process(target=lambda: list(read_scans(scans(slowly), num_workers)))
    process.start()
    wait_until(lambda: len(list(tmp_path.glob("*.npz"))) >= 3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = len(list(tmp_path.glob("*.npz")))
    assert 3 <= done < NUM_SCANS
    found = list(read_scans(labeled(tmp_path), num_workers))
    assert len(computed) == NUM_SCANS - done
    for index, scan in enumerate(found):
        assert (scan["pseudo_label"] == labeled()[index]["pseudo_label"]).all()
    assert len(list(tmp_path.iterdir())) == NUM_SCANS


def slowly(number, folder):
    (folder / f"begun{number}").touch()
    for _ in range(int(100 * PATIENCE)):
        time.sleep(0.01)
    (folder / f"done{number}").touch()


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_the_threads_do(tmp_path):
    def work():
        try:
            list(read_scans(Dataset(list(range(9)), lambda number: slowly(number, tmp_path)), num_workers=2))
        except KeyboardInterrupt:
            sys.exit(130)

    process = FORK.Process(target=work)
    process.start()
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun0", "begun1"]


def test_an_error_ends_what_the_other_threads_do(tmp_path):
    def read(number):
        if number == 0:
            wait_until((tmp_path / "begun1").exists)
            raise OSError("truncated")
        slowly(number, tmp_path)

    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="Scan 0 cannot be read: OSError: truncated"):
        list(read_scans(Dataset(list(range(9)), read), num_workers=2))
    assert [path.name for path in tmp_path.iterdir()] == ["begun1"]
    begun = set(threading.enumerate()) - before
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in begun)


def prepare_in_processes(rank, folder):
    def is_done_by_0():
        return len(list(folder.glob("*_read_by_0"))) == NUM_SCANS // 2

    def read(scan):
        if rank == 1:
            wait_until(is_done_by_0)
        (folder / f"{scan['name']}_read_by_{rank}").touch()
        return scan

    def read_all_but_one(scan):
        if scan["name"] == "scan5":
            raise OSError("truncated")
        return scan

    prepare_scans(scans(read), num_workers=1)
    return sorted(path.name for path in folder.glob("scan*")), error_of(prepare_scans, scans(read_all_but_one), 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return in_two_processes(prepare_in_processes, tmp_path_factory.mktemp("prepared"))


def test_ranks_share_the_scans_and_wait_for_each_other(prepared):
    assert [read for read, _ in prepared] == [[f"scan{n}_read_by_{n % 2}" for n in range(NUM_SCANS)]] * 2


def test_a_scan_that_one_rank_cannot_read_ends_all_ranks(prepared):
    reason = "ValueError: Scan scan5 cannot be read: OSError: truncated"
    assert [error for _, error in prepared] == [TOLD.format(1, reason), reason]


@pytest.mark.parametrize(("ranks", "workers"), [(None, 6), ("4", 1), ("2", 3), ("8", 1)])
def test_ranks_of_one_machine_share_its_cores(monkeypatch, ranks, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    barrier = threading.Barrier(workers, timeout=PATIENCE)

    def thread(scan):
        barrier.wait()
        return threading.get_ident()

    assert len(set(read_scans(Dataset([0] * 60, thread)))) == workers


def test_one_process_prepares_nothing(computed):
    prepare_scans(labeled())
    assert computed == []


def test_a_stack_of_scans_read_in_parallel_is_the_same():
    tensors = [{key: torch.as_tensor(scan[key]) for key in ("image", "pseudo_label")} for scan in labeled()]
    plain = SliceStack.from_scans(tensors)
    parallel = SliceStack.from_scans(list(read_scans(Dataset(tensors), 3)))
    assert torch.equal(plain.image, parallel.image)
    assert torch.equal(plain.label, parallel.label)
