# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Tables of cells that are filled in by hand, against a plain computation."""

from __future__ import annotations

import csv
import itertools
import json
import re
import statistics

import pytest
from benchmark_cells import CLASSES, dice_of, fill, make_config

from monai_fewshot.apps.benchmark.command import main, write_leaderboard
from monai_fewshot.apps.benchmark.leaderboard.boards import boards
from monai_fewshot.apps.benchmark.leaderboard.overview import (
    method_colors,
    overview_figure,
    overview_header,
    overview_markdown,
    overview_rows,
)
from monai_fewshot.apps.benchmark.matrix.matrix_reading import read_matrix
from monai_fewshot.apps.benchmark.running.schedule import Schedule


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path, _ = make_config(tmp_path_factory.mktemp("benchmark"))
    for cell in Schedule(read_matrix(path)).cells:
        if cell.row.method.name != "plain":
            fill(cell)
    return path


@pytest.fixture(scope="module")
def written(config):
    matrix = read_matrix(config)
    write_leaderboard(matrix)
    return matrix.output_dir


def value(board, name, fold, seed, class_name, scope="in range"):
    (standing,) = [standing for standing in board.standings if standing.row.method.name == name]
    (cell, *_) = [c for c in standing.cells if (c.fold, c.seed) == (fold, seed) and class_name in c.tested]
    return 100 * statistics.fmean(dice_of(cell, n, class_name) - 0.2 * (scope != "in range") for n in range(2))


@pytest.mark.parametrize(("name", "scope"), itertools.product(["images", "others"], ["in range", "whole volume"]))
def test_means_and_spreads_are_those_of_a_plain_computation(name, scope, config):
    for board in boards(read_matrix(config))[:2]:
        (standing,) = [standing for standing in board.standings if standing.row.method.name == name]
        table = {
            (fold, seed): [value(board, name, fold, seed, c, scope) for c in CLASSES]
            for fold in (0, 1)
            for seed in (0, 1)
        }
        cells = {key: statistics.fmean(values) for key, values in table.items()}
        folds = [statistics.fmean(cells[fold, seed] for seed in (0, 1)) for fold in (0, 1)]
        seeds = [statistics.fmean(cells[fold, seed] for fold in (0, 1)) for seed in (0, 1)]
        figure = standing.figure(scope, "dice")
        assert figure.mean == pytest.approx(statistics.fmean(folds))
        assert figure.over_folds == pytest.approx(statistics.stdev(folds))
        assert figure.over_seeds == pytest.approx(statistics.stdev(seeds))
        for number, _ in enumerate(CLASSES, 1):
            expected = statistics.fmean(values[number - 1] for values in table.values())
            assert standing.figure(scope, "dice", number).mean == pytest.approx(expected)
        assert standing.undefined_hd95(scope) == (8 if scope == "whole volume" else 0)


def test_rows_are_compared_on_the_same_scans(config):
    board = boards(read_matrix(config))[0]
    images, others = board.standings[:2]
    found = board.compare(others, "in range")
    assert found.pairs == 4
    assert found.gain == pytest.approx(others.figure("in range", "dice").mean - images.figure("in range", "dice").mean)
    assert found.p_value == pytest.approx(2 / 2**4)
    assert board.compare(images, "in range") is None
    assert board.compare(board.standings[3], "in range") is None


def test_a_fold_counts_when_all_classes_are_there(tmp_path):
    path, _ = make_config(tmp_path)
    cells = [cell for cell in Schedule(read_matrix(path)).cells if cell.row.method.name == "others"]
    fill(cells[0])
    standing = boards(read_matrix(path))[0].standings[1]
    assert (len(standing.done), standing.scores) == (1, {})
    fill(cells[1])
    assert list(boards(read_matrix(path))[0].standings[1].scores) == [(0, 0)]


def test_tables_stand_in_markdown(written):
    text = (written / "leaderboard.md").read_text()
    titles = re.findall(r"^### (.*)$", text, re.M)
    assert titles == ["All tables", "mr, setting 1", "mr, setting 2", "ct", "Trained on ct, tested on mr"]
    first = text.split("### ")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first.splitlines() if line[:1] == "|"]
    header, _, *lines = rows[: rows.index(next(row for row in rows if row[0] == "Dice by class"))]
    ours = [dict(zip(header, line, strict=True)) for line in lines if "published" not in line[1]]
    assert {line["method"] for line in ours} == {"From images", "others", "exemplar"}
    dice = [float(line["Dice in range"].split()[0]) for line in ours]
    assert dice == sorted(dice, reverse=True)
    by_name = {line["method"]: line for line in ours}
    assert by_name["From images"]["gain in range"] == "-"
    assert re.fullmatch(r"[+-]\d+\.\d \(p = 0\.12, 4 pairs\)", by_name["others"]["gain in range"])
    assert re.fullmatch(r"[\d.]+ ± [\d.]+; [\d.]+ \(8 undefined\)", by_name["others"]["HD95 whole volume"])
    assert by_name["others"]["training min"] == "1.5"
    assert by_name["others"]["test min"] == "0.4"
    assert by_name["others"]["memory"] == "2.0 GB"
    assert by_name["others"]["cells"] == "8 of 8"
    published = [line for line in lines if "published" in line[1]]
    assert ["*SSL-ALPNet*", "*published*", "*78.8*"] in [line[:3] for line in published]
    assert "Not run yet: plain." in first
    assert "voxels" not in first
    assert re.search(r"^\| From images \|.* [\d.]+ ± [\d.]+; [\d.]+ voxels \|", text.split("### ")[4], re.M)
    assert "published" not in text.split("### ")[5].partition("\n- ")[0]
    assert "A pair is a scan" in text
    assert "Wilcoxon" in text


def test_every_case_stands_in_one_table(written):
    with open(written / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ("method", "trained_on", "tested_on", "setting", "seed", "fold", "scan", "class_name", "protocol")
    assert len({tuple(row[key] for key in keys) for row in rows}) == len(rows)
    of_one = [row for row in rows if (row["method"], row["tested_on"], row["setting"]) == ("others", "mr", "2")]
    assert len(of_one) == 2 * 2 * 2 * 4 * 2
    assert {row["class_number"] + row["class_name"] for row in of_one} == {f"{n}{c}" for n, c in enumerate(CLASSES, 1)}


def test_the_page_needs_nothing_else_and_shows_the_same_cases_of_all_methods(written):
    html = (written / "leaderboard.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert html.count("<h2 id=") == 1 + 4
    assert html.count("Box plots of Dice and HD95") == 8
    assert html.count("of scan0 by all methods") + html.count("of scan1 by all methods") >= 4 * 2
    assert "SSL-ALPNet" in html
    assert "<th" in html
    content = json.loads((written / "benchmark.json").read_text())
    assert content["settings"]["seeds"] == [0, 1]
    assert "torch" in content["versions"]


def test_failures_are_told(tmp_path):
    path, _ = make_config(tmp_path)
    matrix = read_matrix(path)
    cell = Schedule(matrix).cells[0]
    cell.folder.mkdir(parents=True)
    (cell.folder / "failure.json").write_text('{"error": "train ended with <code> 1"}')
    write_leaderboard(matrix)
    assert f"Failed: {cell.name}: train ended with <code> 1" in (matrix.output_dir / "leaderboard.md").read_text()
    assert "train ended with &lt;code&gt; 1" in (matrix.output_dir / "leaderboard.html").read_text()


def test_the_command_plans_and_reports(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(config), "--plan_only"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "| others | mr | 2 | 8 | 8 | 0 | - |" in out
    assert "  plain/mr/any_setting/all/fold0_seed0/on_mr" in out
    results, overview, readme = (tmp_path / name for name in ("all_methods.md", "results.md", "README.md"))
    results.write_text("<!-- benchmark:begin -->\n<!-- benchmark:end -->")
    overview.write_text("<!-- overview:begin -->\n<!-- overview:end -->")
    readme.write_text("before <!-- leaderboard:begin -->\n<!-- leaderboard:end --> after")
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(config), "--report_only", "--results", f"{results},{overview},{readme}"])
    assert ended.value.code == 0
    assert "### mr, setting 1" in results.read_text()
    assert "### mr" not in readme.read_text()
    assert "| method | learns from | mr, setting 1 |" in readme.read_text()
    rows = overview_markdown(boards(read_matrix(config)))
    assert overview.read_text() == f"<!-- overview:begin -->\n\n{rows}\n\n<!-- overview:end -->"


def test_the_overview_has_the_means_of_all_tables_and_its_head_the_first_rows(config):
    found = boards(read_matrix(config))
    header, rows = overview_header(found), overview_rows(found)
    assert header == ["method", "learns from", *(board.title for board in found)]
    assert len(rows) == len({row[0] for row in rows}) == 3
    for place, board in enumerate(found, 2):
        for standing in board.ranked:
            (row,) = [row for row in rows if row[0] == standing.row.method.title]
            whole, in_range = (standing.figure(scope, "dice").mean for scope in ("whole volume", "in range"))
            assert row[place] == f"{whole:.1f} ({in_range:.1f})"
        without = {standing.row.method.title for standing in board.standings} - {
            s.row.method.title for s in board.ranked
        }
        assert all(row[place] == "-" for row in rows if row[0] in without)
    first = [float(row[2].split()[0]) for row in rows]
    assert first == sorted(first, reverse=True)
    assert overview_markdown([]) == ""
    assert overview_markdown(found, 2).splitlines() == overview_markdown(found).splitlines()[:4]


def test_bars_of_the_overview_are_as_long_as_dice(config):
    matrix = read_matrix(config)
    found = boards(matrix)
    figure = overview_figure(found, method_colors(matrix))
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title().replace("\n", " ") for axes in shown] == [board.title for board in found]
    for axes, board in zip(shown, found, strict=True):
        expected = [standing.figure("whole volume", "dice").mean for standing in board.ranked]
        assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(sorted(expected))


@pytest.mark.parametrize(("tables", "columns"), [(1, 1), (5, 5), (7, 4), (9, 5), (11, 4)])
def test_the_overview_has_rows_of_equal_length_and_numbers_below_each_column(config, tables, columns):
    matrix = read_matrix(config)
    figure = overview_figure((boards(matrix) * tables)[:tables], method_colors(matrix))
    assert figure.axes[0].get_gridspec().ncols == columns
    labeled = [axes.xaxis.get_tick_params()["labelbottom"] for axes in figure.axes[:tables]]
    assert all(labeled[-columns:])
    assert not any(labeled[:-columns])


def test_the_command_refuses_in_words(config, tmp_path):
    for words, reason in (
        (["--config", str(tmp_path / "no.yaml")], "There is no file"),
        (["--config", str(config), "--only", "nobody/"], "no cell has this"),
        (["--config", str(config), "--results", str(config)], "must hold the lines"),
    ):
        with pytest.raises(SystemExit, match=reason):
            main(words)
