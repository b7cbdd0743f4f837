# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import errno
import json
import re

import numpy as np
import pytest
import torch
from interruptions import wait_until
from monai.data import MetaTensor
from process_groups import TOLD, Exchanged, error_of, failing, in_two_processes
from scipy import ndimage
from torch import nn

from monai_fewshot.data import cross_validation_folds
from monai_fewshot.inferers import FewShotVolumeInferer, RegistrationInferer, ScanRegistration
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.workflows import FoldEvaluation, fold_evaluation

SCANS = [{"name": name, "image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"} for name in "abcdef"]
FOLDS = cross_validation_folds("abcdef", 3)


class Loader:
    """Stands for a pipeline; fails at scans that it is told to fail at."""

    def __init__(self, broken=()):
        self.broken = broken

    def __call__(self, scan):
        if scan["name"] in self.broken:
            raise RuntimeError(f"cannot read {scan['name']}")
        random = np.random.default_rng(ord(scan["name"]))
        label = np.zeros((1, 24, 20, 5), np.uint8)
        row = random.integers(2, 8)
        label[:, row : row + 12, 4:15, 1:4] = 1
        label[:, :4, 15:, 2:] = 2
        image = label * 2.0 + ndimage.gaussian_filter(random.normal(size=label.shape), (0, 1, 1, 0))
        affine = torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0], dtype=torch.float64))
        volumes = {"image": MetaTensor(image.astype(np.float32)), "label": MetaTensor(label)}
        for volume in volumes.values():
            volume.affine = affine
        return {**scan, **volumes}


def _network(seed=0):
    torch.manual_seed(seed)
    return ALPNet(2, nn.Conv2d(1, 8, 3, stride=2, padding=1))


def _evaluation(output_dir, network=None, folds=FOLDS, broken=(), **options):
    options = {"protocols": ["alpnet", "whole_volume"], **options}
    inferer = FewShotVolumeInferer(options.pop("protocols"), num_classes=2)
    return FoldEvaluation(
        network or _network(), folds, SCANS, Loader(broken), inferer, ["first", "second"], output_dir, **options
    )


def _paths(folder):
    return [str(folder / f"{fold.index}.pt") for fold in FOLDS]


def _rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with a checkpoint for each fold and the results of an evaluation, and its scores."""
    folder = tmp_path_factory.mktemp("folds")
    for fold in FOLDS:
        content = {"model": _network(fold.index).state_dict(), "provenance": {"seed": fold.index + 10}}
        torch.save(content, folder / f"{fold.index}.pt")
    options = {"checkpoints": _paths(folder), "provenance": {"set": "squares"}, "title": "Two squares"}
    return folder, _evaluation(folder, _network(9), **options).run()


def test_every_query_is_scored(evaluated):
    folder, scores = evaluated
    expected = {(fold.index, name) for fold in FOLDS for name in fold.query}
    assert {(score.fold, score.scan) for score in scores} == expected
    assert len(scores) == len(_rows(folder)) == 6 * 2 * 2
    assert "Two squares" in (folder / "report.html").read_text()
    assert np.mean([s.dice for s in scores if s.class_name == "first" and s.protocol == "alpnet"]) > 0.5


def test_results_say_what_made_them(evaluated):
    made = json.loads((evaluated[0] / "results.json").read_text())["provenance"]
    assert made["set"] == "squares"
    assert made["training"] == {"0": {"seed": 10}, "1": {"seed": 11}, "2": {"seed": 12}}


def test_each_fold_has_its_own_weights_and_support(evaluated, tmp_path):
    alone = _evaluation(tmp_path, _network(2), folds=FOLDS[2:]).run()
    assert [(s.scan, s.dice) for s in alone] == [(s.scan, s.dice) for s in evaluated[1] if s.fold == 2]
    load, inferer = Loader(), FewShotVolumeInferer("whole_volume", num_classes=2)
    query, support = load(SCANS[4]), load(SCANS[0])
    assert (FOLDS[2].query[0], FOLDS[2].support) == ("e", ("a",))
    margins = inferer(
        query["image"][None], _network(2).eval(), *(support[key][None, None] for key in ("image", "label"))
    )
    for score in (s for s in alone if s.scan == "e" and s.protocol == "whole_volume"):
        mask, truth = margins[0, score.class_number] > 0, query["label"][0] == score.class_number
        assert score.dice == pytest.approx((2 * (mask & truth).sum() / (mask.sum() + truth.sum())).item())


def test_an_interrupted_evaluation_leaves_the_folds_it_has_done(tmp_path):
    evaluation = _evaluation(tmp_path, broken=["d"])
    with pytest.raises(RuntimeError, match="cannot read d"):
        evaluation.run()
    assert {row["fold"] for row in _rows(tmp_path)} == {"0"}
    assert (tmp_path / "report.html").is_file()


def test_missing_checkpoints_are_found_before_anything_runs(tmp_path):
    torch.save({"model": _network().state_dict()}, tmp_path / "1.pt")
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint .*0\.pt, .*2\.pt: train these folds first"):
        _evaluation(tmp_path / "out", checkpoints=_paths(tmp_path))


def test_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot be written"):
        _evaluation(tmp_path / "file" / "out")


def test_an_inferer_may_need_no_network_and_know_where_supports_lie(tmp_path):
    """Registration that stays where the scanner has it copies the support's labels."""
    inferer = RegistrationInferer("whole_volume", 2, ScanRegistration(iterations=0), placement="scanner")
    fold, names = FOLDS[0], ["first", "second"]
    evaluation = FoldEvaluation(nn.Identity(), [fold], SCANS, Loader(), inferer, names, tmp_path)
    scores = {(score.scan, score.class_number): score.dice for score in evaluation.run()}
    assert set(scores) == {(scan, number) for scan in fold.query for number in (1, 2)}
    labels = {name: Loader()({"name": name})["label"] for name in (*fold.query, *fold.support)}
    for (scan, number), dice in scores.items():
        copied, truth = labels[fold.support[0]] == number, labels[scan] == number
        assert dice == pytest.approx(float(2 * (copied & truth).sum() / (copied.sum() + truth.sum())))


class LateLoader(Loader):
    """Stands for scans that take one process so much longer that the other has finished before."""

    def __init__(self, rank, folder):
        super().__init__()
        self.rank, self.folder = rank, folder

    def __call__(self, scan):
        if self.rank == 1 and scan["name"] == "b":
            wait_until((self.folder / "a_loaded").exists)
        loaded = super().__call__(scan)
        (self.folder / f"{scan['name']}_loaded").touch()
        return loaded


def _failures(rank, folder):
    """Errors at each place where a process may fail alone."""
    found = {
        "scan": error_of(_evaluation(folder / "scan", broken=["b"], folds=FOLDS[:1]).run),
        "folder": error_of(_evaluation, folder / "0.pt" / "below" if rank == 0 else folder / "elsewhere"),
        "checkpoint": error_of(_evaluation, folder / "missing", checkpoints=[str(folder / f"of_{rank}.pt")]),
    }
    checkpoints, plain = _paths(folder), fold_evaluation.load_network
    evaluation = _evaluation(folder / "load", checkpoints=checkpoints)
    fold_evaluation.load_network = failing(rank == 1, ValueError("1.pt is not a whole checkpoint"))
    found["load"] = error_of(evaluation.run)
    fold_evaluation.load_network = plain
    fold_evaluation.write_scores = failing(rank == 0, OSError(errno.ENOSPC, "No space left on device"))
    found["write"] = error_of(_evaluation(folder / "write", checkpoints=checkpoints).run)
    return found


def _in_a_group(rank, folder):
    if rank == 0:
        for name in ("of_0", *(fold.index for fold in FOLDS)):
            torch.save({"model": _network().state_dict()}, folder / f"{name}.pt")
    exchanged = Exchanged()
    evaluation = _evaluation(folder / "results", _network(9))
    evaluation.transform = LateLoader(rank, folder)
    scores = evaluation.run()
    return {"scores": scores, "sizes": exchanged.sizes(), "errors": _failures(rank, folder)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return folder, in_two_processes(_in_a_group, folder)


def test_two_processes_write_the_results_of_one(both, tmp_path):
    folder, (first, second) = both
    alone = _evaluation(tmp_path, _network(9)).run()
    assert [str(score) for score in first["scores"]] == [str(score) for score in alone]
    assert second["scores"] == []
    for name in ("results.csv", "report.html"):
        assert (folder / "results" / name).is_file()
    assert _rows(folder / "results") == _rows(tmp_path)


def test_pictures_and_scores_go_to_the_first_process_alone(both):
    for found in both[1]:
        assert max(found["sizes"]["to_all"]) < 100
        assert min(found["sizes"]["to_first"]) > 1_000


@pytest.mark.parametrize(
    ("place", "rank", "reason"),
    [
        ("scan", 1, "RuntimeError: cannot read b"),
        ("folder", 0, "OSError: output folder .* cannot be written"),
        ("checkpoint", 1, r"FileNotFoundError: There is no checkpoint .*of_1\.pt"),
        ("load", 1, r"ValueError: 1\.pt is not a whole checkpoint"),
        ("write", 0, r"OSError: \[Errno 28\] No space left on device"),
    ],
)
def test_an_error_in_one_process_ends_both_with_its_reason(both, place, rank, reason):
    errors = [found["errors"][place] for found in both[1]]
    assert re.match(reason, errors[rank])
    assert errors[1 - rank] == TOLD.format(rank, errors[rank])
