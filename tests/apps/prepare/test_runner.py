# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from interruptions import PATIENCE, is_alive, wait_until
from made_cases import AFFINE, CLASS_NAMES, SIZE, Halve, load_case, load_or_die, make_case

from monai_fewshot.apps.prepare.cases.case import Case, Problem
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
from monai_fewshot.data.scans.folds import load_folds
from monai_fewshot.data.scans.scan_folder import load_class_names, load_scans
from monai_fewshot.utils import WriteError

DESCRIPTION = DatasetDescription("Made", "MR", CLASS_NAMES, "Scans made up.", "CC0", "https://example.org")
NAMES = ("a", "b", "c", "d")


@pytest.fixture
def cases(tmp_path):
    return [make_case(tmp_path / "source", name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture
def prepare(tmp_path):
    def run(cases, problems=(), load=load_case, preparation=None, settings=None, **arguments):
        folders = {"source": tmp_path / "source", "output_dir": tmp_path / "out"}
        arguments = {**folders, "settings": settings or {"factor": 0.5}, "workers": 0, "num_folds": 2, **arguments}
        return prepare_dataset(cases, problems, load, preparation or Halve(), DESCRIPTION, **arguments)

    return run


def state(folder):
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


def changed(folder, before):
    after = state(folder)
    assert not before.keys() - after.keys()
    return {file.relative_to(folder).as_posix() for file in after if after[file] != before.get(file)}


def files_of(name):
    return {f"imagesTr/{name}.nii.gz", f"labelsTr/{name}.nii.gz", f"provenance/{name}.json"}


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture(params=[0, 2], ids=["here", "processes"])
def workers(request):
    return request.param


def test_prepared_set_holds_what_was_prepared(cases, prepare, workers):
    folder = prepare(cases, workers=workers)
    scans = load_scans(folder, require_labels=True)
    assert [scan["name"] for scan in scans] == list(NAMES)
    for scan, case in zip(scans, cases, strict=True):
        for key, source, factor, dtype in (("image", case.image, 0.5, "f4"), ("label", case.label, 1, "u1")):
            result, original = nib.load(scan[key]), nib.load(source[0])
            np.testing.assert_array_equal(result.get_fdata(), original.get_fdata() * factor)
            np.testing.assert_allclose(result.affine, AFFINE, atol=1e-6)
            np.testing.assert_allclose(result.get_qform(), AFFINE, atol=0.1)
            assert result.get_data_dtype() == np.dtype(dtype)
            assert result.header.get_xyzt_units()[0] == "mm"
    assert load_class_names(folder) == CLASS_NAMES
    assert not [file for file in folder.rglob("*") if file.name.startswith(".")]


def test_description_tells_what_made_the_set(cases, prepare, tmp_path):
    content = json.loads((prepare(cases) / "dataset.json").read_text())
    assert content["labels"] == {"0": "background", "1": "liver", "3": "spleen"}
    assert (content["modality"], content["numTraining"], content["licence"]) == ({"0": "MR"}, 4, "CC0")
    assert content["provenance"]["settings"] == {"factor": 0.5}
    for case in cases:
        scan = content["provenance"]["scans"][case.name]
        assert scan["sources"] == {
            "image": {f"{case.name}-image.nii.gz": sha256(case.image[0])},
            "label": {f"{case.name}-label.nii.gz": sha256(case.label[0])},
        }
        assert scan["outputs"] == {path: sha256(tmp_path / "out" / path) for path in scan["outputs"]}
        assert len(scan["outputs"]) == 2
        assert {"monai", "monai_fewshot", "torch"} <= scan["versions"].keys()


def test_whole_intensities_stay_integers(cases, prepare):
    folder = prepare(cases, preparation=dict)
    image = nib.load(folder / "imagesTr" / "a.nii.gz")
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(image.get_fdata(), nib.load(cases[0].image[0]).get_fdata())


def test_second_run_does_nothing(cases, prepare):
    before = state(prepare(cases))
    assert changed(prepare(cases), before) == set()


def test_second_run_starts_no_process(cases, prepare, monkeypatch):
    prepare(cases)
    monkeypatch.setattr("monai_fewshot.apps.prepare.prepared_scans.ScanPreparation.__call__", None)
    prepare(cases, workers=2)


def test_moved_source_and_output_are_the_same(cases, prepare, tmp_path):
    before = state(prepare(cases))
    for file in (tmp_path / "source").iterdir():
        os.utime(file, (1, 1))
    (tmp_path / "source").rename(tmp_path / "moved")
    moved = [Case(c.name, *((tmp_path / "moved" / p[0].name,) for p in (c.image, c.label))) for c in cases]
    assert changed(prepare(moved, source=tmp_path / "moved"), before) == set()


def test_changed_source_is_prepared_again_alone(cases, prepare, tmp_path):
    before = state(prepare(cases))
    make_case(tmp_path / "source", "b", seed=77)
    folder = prepare(cases)
    assert changed(folder, before) == {"dataset.json", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz", "provenance/b.json"}
    expected = nib.load(cases[1].image[0]).get_fdata() / 2
    np.testing.assert_array_equal(nib.load(folder / "imagesTr" / "b.nii.gz").get_fdata(), expected)


def test_changed_settings_prepare_all_again(cases, prepare):
    before = state(prepare(cases))
    assert changed(prepare(cases, settings={"factor": 0.25}), before) >= {f"imagesTr/{name}.nii.gz" for name in NAMES}


@pytest.mark.parametrize("file", ["imagesTr/c.nii.gz", "labelsTr/c.nii.gz", "provenance/c.json"])
def test_what_is_missing_is_prepared_again(cases, prepare, file):
    folder = prepare(cases)
    before = state(folder)
    (folder / file).unlink()
    del before[folder / file]
    assert changed(prepare(cases), before) - {"dataset.json"} == files_of("c")


def test_damaged_record_is_made_again(cases, prepare):
    folder = prepare(cases)
    before = state(folder)
    (folder / "provenance" / "c.json").write_text('{"settings"')
    assert changed(prepare(cases), before) - {"dataset.json"} <= files_of("c")
    json.loads((folder / "provenance" / "c.json").read_text())


def test_an_added_scan_leaves_the_others(cases, prepare):
    before = state(prepare(cases[:3]))
    assert changed(prepare(cases), before) == files_of("d") | {"dataset.json"}


def test_corrections_by_hand_are_not_undone(cases, prepare):
    folder = prepare(cases)
    path = folder / "labelsTr" / "b.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SIZE, np.uint8), AFFINE), path)
    before = state(folder)
    for settings in ({"factor": 0.5}, {"factor": 0.7}):
        with pytest.raises(ValueError, match=r"^1 problem.*\nb: \./labelsTr/b\.nii\.gz changed since .* move it away"):
            prepare(cases, settings=settings)
        assert changed(folder, before) == set()
    path.unlink()
    prepare(cases)
    assert nib.load(path).get_fdata().max() == 3


def test_all_problems_are_reported_at_once_and_nothing_is_written(cases, prepare, tmp_path):
    cases[0].image[0].unlink()
    cases[1].label[0].write_bytes(cases[1].label[0].read_bytes()[:-30])
    moved = AFFINE + np.outer([0.3, 0, 0.4, 0], [0, 0, 0, 1])
    nib.save(nib.Nifti1Image(np.ones(SIZE, np.uint8), moved), cases[2].label[0])
    nib.save(nib.Nifti1Image(np.ones((12, 10, 5), np.uint8), AFFINE), cases[3].label[0])
    whole = make_case(tmp_path / "source", "f")
    twice = Case("d", cases[3].image, ())
    with pytest.raises(ValueError, match="problem") as error:
        prepare([*cases, twice, whole], [Problem("e", tmp_path / "e", "lacks its label; draw it.")])
    lines = str(error.value).splitlines()
    assert lines[0] == "6 problem(s) in 5 of 6 scans:"
    assert lines[1] == f"e: {tmp_path / 'e'}: lacks its label; draw it."
    assert [line.partition(":")[0] for line in lines[1:7]] == ["e", "d", "a", "b", "c", "d"]
    assert "is there more than once" in lines[2]
    assert lines[3].endswith("a-image.nii.gz: is missing; download or copy it again.")
    assert "b-label.nii.gz: is truncated" in lines[4]
    assert "lies up to 0.5 mm away from its image" in lines[5]
    assert "has (12, 10, 5) voxels, but its image" in lines[6]
    assert lines[7] == "Correct them and run the same command again, or leave these scans out by --skip_broken true."
    assert not (tmp_path / "out").exists()


def test_broken_scans_are_left_out_on_request(cases, prepare, caplog):
    cases[0].image[0].unlink()
    assert [scan["name"] for scan in load_scans(prepare(cases, skip_broken=True))] == ["b", "c", "d"]
    assert "a-image.nii.gz: is missing" in caplog.text


def test_no_scan_at_all(prepare):
    with pytest.raises(ValueError, match="no scan was found; name the folder or archive"):
        prepare([])


def test_unknown_label_values_are_reported_and_the_rest_is_kept(cases, prepare, tmp_path, workers):
    odd = np.zeros(SIZE, np.uint8)
    odd[3, 3, 3] = 2
    nib.save(nib.Nifti1Image(odd, AFFINE), cases[1].label[0])
    with pytest.raises(ValueError, match=r"1 problem\(s\) in 1 of 4 scans:\nb: .*b-label\.nii\.gz: holds 2; expected"):
        prepare(cases, workers=workers)
    folder = tmp_path / "out"
    assert not (folder / "dataset.json").exists()
    before = state(folder)
    assert len(before) == 9
    make_case(tmp_path / "source", "b", 1)
    assert changed(prepare(cases, workers=workers), before) == {*files_of("b"), "dataset.json"}


def test_a_label_that_is_cut_off_is_reported(cases, prepare):
    with pytest.raises(ValueError, match=r"\na: after its preparation, .*is empty"):
        prepare(cases, preparation=cut)


def cut(scan):
    return {key: volume[..., :1] for key, volume in scan.items()}


def test_a_killed_process_and_a_failing_scan_leave_the_others(cases, prepare, tmp_path):
    bad = [make_case(tmp_path / "source", name) for name in ("killed", "failing")]
    with pytest.raises(ValueError, match="problem") as error:
        prepare([*bad, *cases], load=load_or_die, workers=2)
    lines = str(error.value).splitlines()
    assert lines[1:3] == [
        "failing: is not what it should be; draw it anew.",
        "killed: its process ended with exit code -9. Most often the memory is full then: work with fewer workers.",
    ]
    assert {file.name[:1] for file in (tmp_path / "out" / "imagesTr").iterdir()} == set(NAMES)
    folder = prepare([*bad, *cases], load=load_or_die, workers=2, skip_broken=True)
    assert [scan["name"] for scan in load_scans(folder)] == list(NAMES)


INTERRUPTED = """
import sys
from pathlib import Path
from made_cases import CLASS_NAMES, Halve, load_or_die, make_case
from monai_fewshot.apps.prepare.dataset_description import DatasetDescription
from monai_fewshot.apps.prepare.runner import prepare_dataset
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cases = [make_case(folder / "source", name) for name in ("a", "slow", "slower", "z")]
    description = DatasetDescription("Made", "MR", CLASS_NAMES)
    prepare_dataset(cases, [], load_or_die, Halve(), description, folder / "source", folder / "out", {}, 2, num_folds=0)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_ends_its_processes_and_keeps_what_is_done(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests' / 'helpers'}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.PIPE, text=True)
    begun = [tmp_path / "source" / f"begun_{name}" for name in ("slow", "slower")]
    wait_until(lambda: process.poll() is not None or all(file.exists() and file.read_text() for file in begun))
    children = [int(file.read_text()) for file in begun]
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=PATIENCE)[1]
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert error.count("Traceback") == 1
    wait_until(lambda: not any(map(is_alive, children)))
    assert {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()} == {"a.nii.gz", "a.json"}


def test_folds_never_part_a_patient(prepare, tmp_path):
    names = [("p1_ed", "p1"), ("p1_es", "p1"), ("p2_ed", "p2"), ("p2_es", "p2"), ("p3_ed", "p3"), ("p3_es", "p3")]
    folder = prepare([make_case(tmp_path / "source", *n[:1], group=n[1]) for n in names], num_folds=3)
    folds = load_folds(folder)
    assert [fold.query for fold in folds] == [("p1_ed", "p1_es"), ("p2_ed", "p2_es"), ("p3_ed", "p3_es")]
    assert [fold.support for fold in folds] == [("p2_ed",), ("p3_ed",), ("p1_ed",)]
    assert [fold.train for fold in folds] == [("p3_ed", "p3_es"), ("p1_ed", "p1_es"), ("p2_ed", "p2_es")]


def test_too_many_folds_stop_before_anything_is_written(cases, prepare, tmp_path):
    with pytest.raises(ValueError, match="num_folds is 5; give 2 to 4, the number of patients"):
        prepare(cases, num_folds=5)
    assert not (tmp_path / "out").exists()
    assert "folds" not in json.loads((prepare(cases, num_folds=0) / "dataset.json").read_text())


def test_other_data_is_left_alone(cases, prepare, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match=r"out holds thesis\.txt, which no preparation wrote"):
        prepare(cases)
    (folder / "dataset.json").write_text('{"name": "CHAOS"}')
    with pytest.raises(FileExistsError, match="out holds the data set 'CHAOS': name an empty or new folder"):
        prepare(cases)
    with pytest.raises(ValueError, match=r"lies in the source .* name a folder outside"):
        prepare(cases, output_dir=tmp_path / "source" / "out")
    with pytest.raises(ValueError, match="workers is -1; give the number"):
        prepare(cases, workers=-1)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("skip_broken", [False, True])
def test_a_scan_that_cannot_be_written_is_no_broken_scan(cases, prepare, tmp_path, monkeypatch, skip_broken):
    save = nib.save

    def fill(image, path):
        if path.name.endswith(".c.nii.gz"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(image, path)

    monkeypatch.setattr(nib, "save", fill)
    with pytest.raises(WriteError, match=r"Cannot write .*c\.nii\.gz: No space left on device\. It needs"):
        prepare(cases, skip_broken=skip_broken)
    assert not (tmp_path / "out" / "dataset.json").exists()
    monkeypatch.setattr(nib, "save", save)
    assert [scan["name"] for scan in load_scans(prepare(cases))] == list(NAMES)
