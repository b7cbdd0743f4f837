# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""How often a segmentation of a folder opens its files, and what stays where scans fail or the run is interrupted."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections import Counter
from functools import partial

import nibabel
import numpy as np
import pytest
import torch

from monai_fewshot.apps.phantom import make_phantom_dataset
from monai_fewshot.data import VolumePreparation
from monai_fewshot.handlers import ResultRecords, ScanResults
from monai_fewshot.inferers import ClassVolumeInferer, FewShotVolumeInferer
from monai_fewshot.metrics import MEASUREMENT_TABLE, QUALITY_TABLE
from monai_fewshot.networks.nets import PANet
from monai_fewshot.transforms import mr_preparation
from monai_fewshot.utils import WriteError
from monai_fewshot.workflows import FolderSegmentation, GivenModel

NAMES = [f"phantom_{number:03d}" for number in range(1, 6)]
TABLES = {"measurements": True, "flag_below": 0.7}
ALL = {**TABLES, "previews": True}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom_dataset(tmp_path_factory.mktemp("phantom") / "data", 6, (32, 32, 8), num_folds=2)


@pytest.fixture
def scans(phantom, tmp_path):
    """Five scans that a test may spoil."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.nii.gz").write_bytes((phantom / "imagesTr" / f"{name}.nii.gz").read_bytes())
    return folder


def _classes(folder, output, **settings):
    """Segmentation by a network that knows its classes, at another spacing than that of the scans."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    spatial = mr_preparation(spacing=[1.5, 1.5, 4.0], size=[24, 24])
    preparation = VolumePreparation(spatial=spatial, classes={2: "spleen", 5: "liver"})
    make = partial(ClassVolumeInferer, "whole_volume")
    return FolderSegmentation(folder, GivenModel(network, preparation, "cpu"), make, output, "conv", **settings)


def _few_shot(phantom, folder, output, **settings):
    torch.manual_seed(0)
    network = PANet(2, torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)).eval()
    support = [phantom / part / "phantom_006.nii.gz" for part in ("imagesTr", "labelsTr")]
    make = partial(FewShotVolumeInferer, "whole_volume")
    model = GivenModel(network, VolumePreparation(), "cpu")
    return FolderSegmentation(folder, model, make, output, "panet", *support, **settings)


def _masks(folder):
    return {file.name: nibabel.load(file).get_fdata() for file in folder.glob("*_seg.nii.gz")}


def _spoil(scans, name):
    """Give a scan one voxel that is no number."""
    file = scans / f"{name}.nii.gz"
    scan = nibabel.load(file)
    voxels = scan.get_fdata(dtype=np.float32)
    sound = file.read_bytes()
    voxels[3, 4, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, scan.affine), file)
    return sound


@pytest.fixture
def unpacked(monkeypatch):
    """How many bytes were unpacked of each gzip file, by its name."""
    found = Counter()
    read, decompress = gzip.GzipFile.read, gzip.decompress

    def counting_read(self, size=-1):
        data = read(self, size)
        found[os.path.basename(self.fileobj.name)] += len(data)
        return data

    def counting_decompress(data):
        found["in memory"] += 1
        return decompress(data)

    monkeypatch.setattr(gzip.GzipFile, "read", counting_read)
    monkeypatch.setattr(gzip, "decompress", counting_decompress)
    return found


def _readings(unpacked, scans):
    """How many times the whole of each scan was unpacked; its header may be read besides."""
    sizes = {file.name: int.from_bytes(file.read_bytes()[-4:], "little") for file in scans.iterdir()}
    return {name: unpacked[name] / size for name, size in sizes.items()}


@pytest.mark.parametrize("kind", ["classes", "few_shot"])
def test_the_voxels_of_each_scan_are_read_once(phantom, scans, tmp_path, unpacked, kind):
    """For checks, the network, measurements, pictures and quality alike."""
    make = _classes if kind == "classes" else partial(_few_shot, phantom)
    segmentation = make(scans, tmp_path / "out", **ALL)
    segmentation.check()
    assert all(times < 0.5 for times in _readings(unpacked, scans).values())
    segmentation.run()
    assert len(_masks(tmp_path / "out")) == 5
    assert all(1 <= times < 1.8 for times in _readings(unpacked, scans).values())


def test_a_finished_run_opens_no_mask_and_no_scan(scans, tmp_path, unpacked):
    for _ in range(2):
        unpacked.clear()
        segmentation = _classes(scans, tmp_path / "out", **TABLES)
        segmentation.check()
        segmentation.run()
    assert segmentation.pending == []
    assert unpacked == {}


def test_a_finished_run_with_another_threshold_changes_the_page(scans, tmp_path):
    """Which masks the page says are to be looked at."""
    page = tmp_path / "out" / "index.html"
    for threshold in (0.0, 1.0):
        segmentation = _classes(scans, tmp_path / "out", measurements=True, flag_below=threshold)
        segmentation.check()
        segmentation.run()
        assert f"{5 * threshold:.0f} of 5 scans have a class below {100 * threshold:.1f} %" in page.read_text()


def test_reading_ahead_and_several_readers_change_nothing(phantom, scans, tmp_path):
    for make, name in ((_classes, "classes"), (partial(_few_shot, phantom), "few_shot")):
        outputs = [tmp_path / f"{name}_{workers}" for workers in (0, 1, 4)]
        for output, workers in zip(outputs, (0, 1, 4), strict=True):
            make(scans, output, num_workers=workers, **TABLES).run()
        for output in outputs[1:]:
            assert (output / "measurements.csv").read_text() == (outputs[0] / "measurements.csv").read_text()
            assert (output / "quality.csv").read_text() == (outputs[0] / "quality.csv").read_text()
            for mask, expected in _masks(outputs[0]).items():
                np.testing.assert_array_equal(_masks(output)[mask], expected)
        assert any(mask.any() for mask in _masks(outputs[0]).values())


@pytest.mark.parametrize("name", [NAMES[0], NAMES[2], NAMES[4]])
def test_a_scan_with_bad_voxels_leaves_the_others_done_and_comes_next(scans, tmp_path, name):
    sound, output = _spoil(scans, name), tmp_path / "out"
    segmentation = _classes(scans, output, **TABLES)
    segmentation.check()
    with pytest.raises(ValueError, match=rf"^1 of 5 scans cannot be segmented:\n{name}: ValueError: .*holds 1 NaN"):
        segmentation.run()
    assert segmentation.acquired.images == {}
    others = [each for each in NAMES if each != name]
    assert sorted(_masks(output)) == [f"{each}_seg.nii.gz" for each in others]
    assert sorted({row.scan for row in MEASUREMENT_TABLE.read(output / "measurements.csv")}) == others
    times = {file.name: file.stat().st_mtime_ns for file in output.glob("*_seg.nii.gz")}
    (scans / f"{name}.nii.gz").write_bytes(sound)
    again = _classes(scans, output, **TABLES)
    assert [scan["name"] for scan in again.pending] == [name]
    again.run()
    assert {each: (output / each).stat().st_mtime_ns for each in times} == times
    assert sorted({row.scan for row in MEASUREMENT_TABLE.read(output / "measurements.csv")}) == NAMES
    assert name in (output / "index.html").read_text()


def test_failures_are_listed_in_a_file_where_one_is_named(scans, tmp_path):
    for name in NAMES[1:3]:
        _spoil(scans, name)
    _classes(scans, tmp_path / "out", failures=tmp_path / "failures.json").run()
    failed = json.loads((tmp_path / "failures.json").read_text())
    assert list(failed) == NAMES[1:3]
    assert all("holds 1 NaN" in reason for reason in failed.values())
    assert len(_masks(tmp_path / "out")) == 3


def test_results_that_cannot_be_made_are_failures_too(scans, tmp_path, monkeypatch):
    """A scan whose picture cannot be drawn, while others are segmented."""
    from monai_fewshot.handlers import scan_results

    draw = scan_results.preview_figure

    def fail_once(image, label, names, affine, title, sure):
        if title == NAMES[1]:
            raise ArithmeticError("no picture")
        return draw(image, label, names, affine, title, sure)

    monkeypatch.setattr(scan_results, "preview_figure", fail_once)
    _classes(scans, tmp_path / "out", failures=tmp_path / "failures.json", **ALL).run()
    assert json.loads((tmp_path / "failures.json").read_text()) == {NAMES[1]: "ArithmeticError: no picture"}
    assert [scan["name"] for scan in _classes(scans, tmp_path / "out", **ALL).pending] == [NAMES[1]]


def test_a_full_disk_ends_the_run_and_what_is_done_stays(scans, tmp_path, monkeypatch):
    from monai_fewshot.handlers import scan_results

    write, written = scan_results._write, []

    def write_two(path, writer, mask):
        if len(written) == 2:
            raise WriteError("Cannot write it") from OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, writer, mask)

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(scan_results, "_write", write_two)
        with pytest.raises(WriteError, match="Cannot write it"):
            _classes(scans, output, failures=tmp_path / "failures.json", **TABLES).run()
    assert sorted({row.scan for row in MEASUREMENT_TABLE.read(output / "measurements.csv")}) == NAMES[:2]
    again = _classes(scans, output, **TABLES)
    assert [scan["name"] for scan in again.pending] == NAMES[2:]
    again.run()
    assert len(_masks(output)) == 5
    assert all(name in (output / "index.html").read_text() for name in NAMES)


def test_rows_of_a_run_that_was_killed_come_into_the_tables(scans, tmp_path):
    """All masks are there, but the process ended before the tables and the page."""
    output, killed = tmp_path / "out", _classes(scans, tmp_path / "out", **TABLES)
    killed.evaluator.run()
    killed.results.background.close()
    assert not list(output.glob("*.csv"))
    again = _classes(scans, output, **TABLES)
    assert again.pending == []
    again.run()
    for table, file in ((MEASUREMENT_TABLE, "measurements.csv"), (QUALITY_TABLE, "quality.csv")):
        assert [row.scan for row in table.read(output / file)] == [name for name in NAMES for _ in range(2)]
    assert (output / "index.html").is_file()
    assert ResultRecords(output).waiting() == []


def test_tables_are_written_once(scans, tmp_path, monkeypatch):
    written = []
    write = type(MEASUREMENT_TABLE).write
    monkeypatch.setattr(
        type(MEASUREMENT_TABLE), "write", lambda self, path, rows: written.append(path.name) or write(self, path, rows)
    )
    _classes(scans, tmp_path / "out", **TABLES).run()
    assert written == ["measurements.csv", "quality.csv"]


def test_images_of_scans_that_cannot_be_written_are_not_kept(scans, tmp_path, monkeypatch):
    """No mask of them is measured, for which their images wait."""

    def fail(self, name, mask, probability):
        raise RuntimeError(f"{name}: no such tag")

    monkeypatch.setattr(ScanResults, "_write_masks", fail)
    segmentation = _classes(scans, tmp_path / "masks", failures=tmp_path / "failures.json", measurements=True)
    segmentation.check()
    segmentation.run()
    assert sorted(json.loads((tmp_path / "failures.json").read_text())) == NAMES
    assert segmentation.acquired.images == {}
