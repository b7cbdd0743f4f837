# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from process_groups import TOLD, error_of, in_two_processes
from torch.utils.data import DataLoader

from monai_fewshot.data import PseudoLabelEpisodes, SliceStack, collate_episodes, training_stacks
from monai_fewshot.data.slices import slice_stack, slice_storage
from monai_fewshot.transforms import EpisodeAugmentation, IntensityVariation, RandAffineElastic

DEPTHS = (3, 5, 4)


def _scans(depths=DEPTHS, wide=False):
    """Scans of small numbers; wide, the second one needs wider types than the first."""
    generator = np.random.default_rng(0)
    scans = []
    for number, depth in enumerate(depths):
        is_wide = wide and number == 1
        image = generator.normal(size=(1, 24, 20, depth)).astype(np.float32) + (1e5 if is_wide else 0)
        label = generator.integers(0, 40, (1, 6, 5, depth)).repeat(4, 1).repeat(4, 2) + (300 if is_wide else 0)
        scans.append({"image": MetaTensor(image), "pseudo_label": MetaTensor(label.astype(np.int32))})
    return scans


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr(slice_stack, "free_memory", lambda: 1)


def _batches(stack):
    geometry = RandAffineElastic(rotate=0.3, translate=2, shear=0.1, zoom=(0.8, 1.2), alpha=20)
    augmentation = EpisodeAugmentation(geometry, None, IntensityVariation())
    episodes = PseudoLabelEpisodes(stack, 12, seed=3, augmentation=augmentation, successive=True)
    return list(DataLoader(episodes, batch_size=4, collate_fn=collate_episodes))


@pytest.mark.parametrize("wide", [False, True])
def test_batches_are_the_same_from_files_and_from_memory(tmp_path, monkeypatch, wide):
    further = SliceStack.from_scans(_scans((2,)))
    expected = SliceStack.from_scans(_scans(wide=wide), map_dir=tmp_path, further=further)
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(slice_stack, "free_memory", lambda: 1)
    monkeypatch.setattr(slice_storage, "CHUNK", 1000)
    stack = SliceStack.from_scans(_scans(wide=wide), map_dir=tmp_path, further=further)
    for name in ("image", "label", "scan"):
        one, other = getattr(expected, name), getattr(stack, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert (stack.image.dtype == torch.float32) == (stack.label.dtype == torch.int16) == wide
    for one, other in zip(_batches(expected), _batches(stack), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.usefixtures("no_memory")
def test_files_are_removed_once_they_are_mapped(tmp_path):
    stack = SliceStack.from_scans(_scans(), map_dir=tmp_path / "new" / "folder")
    assert not any((tmp_path / "new" / "folder").iterdir())
    stack.image[0] = 0
    assert not stack.take([0])[0].any()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="only Linux tells")
@pytest.mark.usefixtures("no_memory")
def test_slices_lie_in_mapped_files(tmp_path):
    stack = SliceStack.from_scans(_scans(), map_dir=tmp_path)
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 2
    del stack
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


class Told:
    """Scans that, when they are read, note what has been logged."""

    def __init__(self, caplog):
        self.caplog, self.told = caplog, ""

    def __call__(self, scan):
        self.told = self.told or self.caplog.text
        return scan


def test_what_will_be_taken_is_told_before_scans_are_read(tmp_path, monkeypatch, caplog):
    needed = sum(DEPTHS) * 24 * 20 * 4
    enough = slice_stack.COPIES * needed
    monkeypatch.setattr(slice_stack, "free_memory", lambda: enough)
    read = Told(caplog)
    with caplog.at_level(logging.INFO):
        SliceStack.from_scans(_scans(), transform=read, map_dir=tmp_path)
    text = f"About 12 slices will take about {needed / 1e6:.3g} MB, and {enough / 1e6:.3g} MB of memory are free"
    assert f"{text}.\n" in read.told
    caplog.clear()
    monkeypatch.setattr(slice_stack, "free_memory", lambda: enough - 1)
    read = Told(caplog)
    SliceStack.from_scans(_scans(), transform=read, map_dir=tmp_path)
    assert f"they go to files in {tmp_path}; making episodes will be slower." in read.told
    caplog.clear()
    SliceStack.from_scans(_scans())
    assert "MB of memory are free: they may not fit." in caplog.text


@pytest.mark.usefixtures("no_memory")
def test_neither_memory_nor_disk_has_room(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(slice_stack.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 99}))
    read = Told(caplog)
    message = (
        r"About 12 slices will .* and 9.9e-05 MB on the disk of .*: give max_slices, a smaller image_size, or name"
    )
    with pytest.raises(ValueError, match=message):
        SliceStack.from_scans(_scans(), transform=read, map_dir=tmp_path / "new")
    assert read.told == ""


@pytest.mark.usefixtures("no_memory")
def test_a_disk_that_fills_up_is_told_and_nothing_stays_there(tmp_path, monkeypatch):
    add = slice_storage.TensorFile.add

    def fill_up(self, part):
        if self.shape[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, part)

    monkeypatch.setattr(slice_storage.TensorFile, "add", fill_up)
    with pytest.raises(ValueError, match=r"Slices cannot be written to .* \(No space left on device\): free some room"):
        SliceStack.from_scans(_scans(), map_dir=tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("no_memory")
def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="Slices cannot be written to"):
        SliceStack.from_scans(_scans(), map_dir=tmp_path / "file" / "folder")


@pytest.mark.usefixtures("no_memory")
def test_remains_of_a_killed_process_go_after_a_day(tmp_path):
    old, new = tmp_path / ".1.slices", tmp_path / ".2.slices"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, time.time() - 25 * 3600))
    SliceStack.from_scans(_scans(), map_dir=tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_remains_of_another_user_stay_and_stop_nobody(tmp_path, monkeypatch):
    """A scratch disk of a cluster lets people remove their own files alone."""
    old, unlink = tmp_path / ".1.slices", Path.unlink
    old.touch()
    os.utime(old, (0, time.time() - 25 * 3600))

    def owners_only(path, missing_ok=False):
        if path == old:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", owners_only)
    slice_storage.MappedSlices(tmp_path).remove()
    assert list(tmp_path.iterdir()) == [old]


def test_slices_without_room_on_the_device_stay_in_files(tmp_path, monkeypatch):
    expected = SliceStack.from_scans(_scans())
    monkeypatch.setattr(slice_stack, "free_memory", lambda: 1)
    monkeypatch.setattr(slice_stack, "_free_memory", lambda device: 1)
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)
    device = torch.device("cpu:0")  # differs from "cpu" and stands for a GPU
    stack = SliceStack.from_scans(_scans(), map_dir=tmp_path, device=device)
    assert stack.device == device
    assert all(map(torch.equal, stack.take([1, 7, 7]), expected.take([1, 7, 7])))


def test_so_many_slices_are_drawn_and_no_other_scan_is_read(caplog):
    def noting(scan):
        read.append(scan["image"].shape[-1])
        return scan

    read: list[int] = []
    with caplog.at_level(logging.INFO):
        stack = SliceStack.from_scans(_scans((3, 5, 4, 6)), transform=noting, max_slices=10, seed=1)
    assert sum(read) == len(stack.scan) <= 10
    assert f"{len(read)} of 4 scans are drawn for max_slices 10" in caplog.text
    assert sorted(stack.scan.unique().tolist()) == list(range(len(read)))
    others = [SliceStack.from_scans(_scans((3, 5, 4, 6)), max_slices=10, seed=seed).image for seed in (1, 2, 3, 4, 5)]
    assert torch.equal(others[0], stack.image)
    assert not all(torch.equal(others[0], other) for other in others[1:])


def test_scans_of_validation_are_not_drawn():
    trained, validated = training_stacks([_scans((3, 5, 4)), _scans((9, 2))], max_slices=8)
    assert len(trained.scan) <= 8
    assert len(validated.scan) == 11


def _map_in_group(rank, folder):
    slice_stack.free_memory = lambda: 1 if rank else 10**12
    read = []
    stack = SliceStack.from_scans(
        _scans(), label_key=None, transform=lambda scan: read.append(1) or scan, map_dir=folder / "mapped"
    )
    return len(read), stack.image, stack.scan


def test_one_process_of_a_machine_reads_for_all(tmp_path):
    first, second = in_two_processes(_map_in_group, tmp_path)
    assert (first[0], second[0]) == (len(DEPTHS), 0)
    expected = SliceStack.from_scans(_scans(), label_key=None)
    for _, image, scan in (first, second):
        assert torch.equal(image, expected.image)
        assert torch.equal(scan, expected.scan)
    assert not any((tmp_path / "mapped").iterdir())


def _fail_in_group(rank, folder):
    slice_stack.free_memory = lambda: 1

    def failing(scan):
        raise RuntimeError("no voxels")

    return error_of(SliceStack.from_scans, _scans(), label_key=None, transform=failing, map_dir=folder / "mapped")


def test_a_scan_that_cannot_be_read_stops_all_processes(tmp_path):
    first, second = in_two_processes(_fail_in_group, tmp_path)
    reason = "ValueError: Scan 0 cannot be read: RuntimeError: no voxels"
    assert first == reason
    assert second == TOLD.format(0, reason)
    assert not any((tmp_path / "mapped").iterdir())
