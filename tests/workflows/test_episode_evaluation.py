# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
import errno
import json
import math
import re

import numpy as np
import pytest
import torch
from interruptions import wait_until
from monai.metrics import compute_hausdorff_distance
from process_groups import TOLD, Exchanged, error_of, failing, in_two_processes

from monai_fewshot.data import AnnotatedEpisodes, SliceStack
from monai_fewshot.networks.nets import FewShotSegmenter
from monai_fewshot.workflows import EpisodeEvaluation, episode_evaluation

SIZE, NAMES = 24, {1: "disc", 4: "square"}


class Threshold(FewShotSegmenter):
    """Finds what is brighter than a number in the red channel, for class 1 of an episode; of green for class 2."""

    def __init__(self, number=0.5, classes=1):
        super().__init__()
        self.number = torch.nn.Parameter(torch.tensor(float(number)))
        self.classes = classes

    def encode_support(self, support_image, support_label):
        return support_image.new_zeros(len(support_image), 1)

    def classify(self, features, context, size):
        margins = features[:, : self.classes] - self.number
        return torch.cat([torch.zeros_like(margins[:, :1]), margins], dim=1)


def make_stack(count=8):
    random = np.random.default_rng(0)
    items = []
    for number in range(count):
        label = np.zeros((1, SIZE, SIZE), np.uint8)
        label[:, 4 : 10 + number, 5:18] = (1, 4)[number % 2]
        label[:, 12] = 255
        image = random.integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8)
        image[0][label[0] > 0] = np.clip(image[0][label[0] > 0] * 1.5, 0, 255).astype(np.uint8)
        items.append({"image": torch.from_numpy(image), "label": torch.from_numpy(label)})
    return SliceStack.from_scans(items, "label")


def make(folder, network=None, length=9, runs=3, ways=1, hd95=False, **options):
    episodes = AnnotatedEpisodes(make_stack(), length, list(NAMES), ways=ways, shots=1, seed=5)
    names = [f"image_{number}" for number in range(8)]
    network = network or Threshold(classes=ways)
    return EpisodeEvaluation(
        network, episodes, runs, NAMES, folder, item_names=names, batch_size=4, hd95=hd95, **options
    )


def by_loop(evaluation):
    """Counts of every episode and class, pixel by pixel."""
    evaluation.network.eval()
    rows = []
    for number in range(evaluation.runs * len(evaluation.episodes)):
        episode = evaluation.episodes[number]
        with torch.no_grad():
            logits = evaluation.network(*(episode[k][None] for k in ("image", "support_image", "support_label")))
        found, truth = logits[0].argmax(0).numpy(), episode["label"][0].numpy()
        for place, value in enumerate(evaluation.episodes.plan(number).labeling, 1):
            counts = [0, 0, 0]
            for y in range(SIZE):
                for x in range(SIZE):
                    if truth[y, x] != 255:
                        is_class, is_found = truth[y, x] == place, found[y, x] == place
                        counts = [counts[0] + is_class, counts[1] + is_found, counts[2] + (is_class and is_found)]
            rows.append((number // len(evaluation.episodes), value, *counts))
    return rows


@pytest.mark.parametrize("ways", [1, 2])
def test_scores_agree_with_a_plain_loop(tmp_path, ways):
    evaluation = make(tmp_path, ways=ways)
    scores = evaluation.run()
    expected = by_loop(evaluation)
    assert len(scores) == len(expected) == 27 * ways
    for score, (run, value, truth, predicted, both) in zip(scores, expected, strict=True):
        assert (score.fold, score.class_number, score.class_name) == (run, value, NAMES[value])
        assert (score.label_voxels, score.predicted_voxels) == (truth, predicted)
        if truth:
            assert score.dice == pytest.approx(2 * both / (truth + predicted))
            assert score.iou == pytest.approx(both / (truth + predicted - both))
        else:
            assert math.isnan(score.dice)
        assert score.intersection == pytest.approx(both if truth else 0)


def test_the_summary_pools_pixels_of_a_run_and_spreads_over_runs(tmp_path):
    evaluation = make(tmp_path)
    rows = np.array(by_loop(evaluation))
    evaluation.run()
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    overall = next(row for row in summary if row["fold"] is None and row["class_number"] is None)
    dice, iou = [], []
    for run in range(3):
        by_class = [rows[(rows[:, 0] == run) & (rows[:, 1] == value)] for value in NAMES]
        dice.append(np.mean([np.mean(2 * c[:, 4] / (c[:, 2] + c[:, 3])) for c in by_class if len(c)]))
        iou.append(np.mean([c[:, 4].sum() / (c[:, 2] + c[:, 3] - c[:, 4]).sum() for c in by_class if len(c)]))
    assert overall["dice"] == pytest.approx(np.mean(dice))
    assert overall["dice_sd"] == pytest.approx(np.std(dice, ddof=1))
    assert overall["iou"] == pytest.approx(np.mean(iou))
    assert overall["iou_sd"] == pytest.approx(np.std(iou, ddof=1))
    assert overall["num_values"] == 27


def test_distances_are_monais_in_pixels(tmp_path):
    evaluation = make(tmp_path, runs=1, hd95=True)
    for number, score in enumerate(evaluation.run()):
        episode = evaluation.episodes[number]
        truth = (episode["label"] == 1)[None]
        found = ((episode["image"][:1] > 0.5) & (episode["label"] != 255))[None]
        expected = compute_hausdorff_distance(found, truth, include_background=True, percentile=95).item()
        assert score.hd95 == pytest.approx(expected)
        assert score.hd95_unit == "pixels"
    assert all(math.isnan(score.hd95) for score in make(tmp_path / "none", runs=1).run())


def test_finding_nothing_and_finding_everything(tmp_path):
    nothing = make(tmp_path / "empty", Threshold(2.0), runs=1).run()
    assert {score.dice for score in nothing} == {0.0}
    assert all(math.isnan(score.hd95) for score in nothing)
    stack = make_stack(4)
    episodes = AnnotatedEpisodes(stack, 4, list(NAMES), seed=1)
    network = Threshold(-1.0)
    everything = EpisodeEvaluation(network, episodes, 1, NAMES, tmp_path / "all").run()
    for number, score in enumerate(everything):
        counted = (episodes[number]["label"] != 255).sum().item()
        assert score.predicted_voxels == counted
        assert score.dice == pytest.approx(2 * score.label_voxels / (score.label_voxels + counted))


def test_episodes_are_numbered_through_and_named_after_their_images(tmp_path):
    evaluation = make(tmp_path)
    scores = evaluation.run()
    assert [int(score.scan.split(":")[0]) for score in scores] == list(range(27))
    for number, score in enumerate(scores):
        places = evaluation.episodes.plan(number).slices
        assert score.scan == f"{number}: image_{places[1]} after image_{places[0]}"
    again = make(tmp_path / "again").run()
    assert [(s.scan, s.dice) for s in again] == [(s.scan, s.dice) for s in scores]
    table = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [float(row["iou"]) for row in table] == pytest.approx([score.iou for score in scores])


def test_every_run_is_written_before_the_next(tmp_path, monkeypatch):
    evaluation = make(tmp_path)
    segment = evaluation._segment
    monkeypatch.setattr(evaluation, "_segment", lambda run, n: segment(run, n) if run < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluation.run()
    assert {row["fold"] for row in csv.DictReader((tmp_path / "results.csv").open())} == {"0", "1"}


def test_the_report_speaks_of_runs_and_episodes_and_shows_colors(tmp_path):
    make(tmp_path, length=120, runs=2, title="Discs").run()
    html = (tmp_path / "report.html").read_text()
    for text in (
        "Evaluation of 240 episodes",
        "2 runs",
        "Scores by run",
        "IoU (%)",
        "HD95 (pixels)",
        "Spread over episodes",
    ):
        assert text in html
    for text in ("fold", "Scores by scan", "voxel sizes"):
        assert text not in html
    assert "The best and the worst 100 of 240; results.csv has all." in html
    assert html.count('class="name"') == 6
    assert len(html) < 2_000_000


def test_what_cannot_be_run(tmp_path):
    with pytest.raises(ValueError, match="runs is 0, must be 1 or more"):
        make(tmp_path, runs=0)
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint absent\.pt: train first"):
        make(tmp_path, checkpoint="absent.pt")


def test_a_checkpoint_is_loaded_and_what_made_it_is_told(tmp_path):
    torch.save({"model": Threshold(0.7).state_dict(), "provenance": {"seed": 3}}, tmp_path / "model.pt")
    loaded = make(tmp_path / "a", checkpoint=tmp_path / "model.pt", runs=1).run()
    assert list(map(str, loaded)) == list(map(str, make(tmp_path / "b", Threshold(0.7), runs=1).run()))
    assert json.loads((tmp_path / "a" / "results.json").read_text())["provenance"]["training"] == {"seed": 3}


class LateThreshold(Threshold):
    """Begins in one process only when the other has done its share of the first run."""

    def __init__(self, is_late, done):
        super().__init__()
        self.is_late, self.done = is_late, done

    def classify(self, features, context, size):
        if self.is_late:
            wait_until(self.done.exists)
        return super().classify(features, context, size)


def _failures(rank, folder):
    """Errors at each place where a process may fail alone."""
    checkpoint = folder / "model.pt"
    if rank == 0:
        torch.save({"model": Threshold().state_dict()}, checkpoint)
    found = {
        "folder": error_of(make, folder / "results" / "results.csv" / "below" if rank == 0 else folder / "elsewhere"),
        "checkpoint": error_of(make, folder / "missing", checkpoint=checkpoint if rank == 0 else folder / "no.pt"),
    }
    evaluation = make(folder / "load", checkpoint=checkpoint)
    plain = episode_evaluation.load_network
    episode_evaluation.load_network = failing(rank == 1, ValueError("half a file"))
    found["load"] = error_of(evaluation.run)
    episode_evaluation.load_network = plain
    evaluation = make(folder / "episode")
    if rank == 1:
        evaluation.inferer = failing(True, ArithmeticError("an episode"))
    found["episode"] = error_of(evaluation.run)
    episode_evaluation.write_scores = failing(rank == 0, OSError(errno.ENOSPC, "No space left on device"))
    found["write"] = error_of(make(folder / "write").run)
    return found


def _in_a_group(rank, folder):
    done = folder / "first_run_done_by_0"
    evaluation = make(folder / "results", LateThreshold(rank == 1, done))
    segment = evaluation._segment

    def segment_and_tell(run, numbers):
        found = segment(run, numbers)
        if rank == 0:
            done.touch()
        return found

    evaluation._segment = segment_and_tell
    exchanged = Exchanged()
    scores = evaluation.run()
    return {"scores": scores, "sizes": exchanged.sizes(), "errors": _failures(rank, folder)}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("group")
    return folder, in_two_processes(_in_a_group, folder)


def test_two_processes_write_the_table_of_one(both, tmp_path):
    folder, (first, second) = both
    alone = make(tmp_path).run()
    assert list(map(str, first["scores"])) == list(map(str, alone))
    assert second["scores"] == []
    one, two = (np.genfromtxt(n / "results.csv", delimiter=",", dtype=str) for n in (tmp_path, folder / "results"))
    assert np.array_equal(one, two)


def test_scores_go_to_the_first_process_alone(both):
    for found in both[1]:
        assert max(found["sizes"]["to_all"]) < 100
        assert len(found["sizes"]["to_first"]) == 3


@pytest.mark.parametrize(
    ("place", "rank", "reason"),
    [
        ("folder", 0, "OSError: output folder .* cannot be written"),
        ("checkpoint", 1, r"FileNotFoundError: There is no checkpoint .*no\.pt"),
        ("load", 1, "ValueError: half a file"),
        ("episode", 1, "ArithmeticError: an episode"),
        ("write", 0, r"OSError: \[Errno 28\] No space left on device"),
    ],
)
def test_an_error_in_one_process_ends_both_with_its_reason(both, place, rank, reason):
    errors = [found["errors"][place] for found in both[1]]
    assert re.match(reason, errors[rank])
    assert errors[1 - rank] == TOLD.format(rank, errors[rank])
