# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from monai_fewshot.inferers import PROTOCOLS
from monai_fewshot.metrics import ScanScore
from monai_fewshot.visualize import capture_case, write_report

BOTH = [PROTOCOLS["alpnet"], PROTOCOLS["whole_volume"]]
SCANS = ["a", "<script>alert(1)</script>", 'b & "c" $x', "d"]
CLASSES = ["liver", "left <b>kidney</b>"]
PROVENANCE = {"seed": 7, "commit": "<i>abc</i>", "config": {"rate": 0.5, "tags": ["<u>", math.nan]}, "nothing": None}


def make_scores():
    scores = []
    for place, scan in enumerate(SCANS):
        for number, name in enumerate(CLASSES, 1):
            dice = 0.9 - 0.1 * place - 0.01 * number
            scores.append(ScanScore(place % 2, scan, number, name, "alpnet", dice, 4 + place, "mm", 9, 30, 500, 490))
            facts = (place % 2, scan, number, name, "whole_volume")
            whole = ScanScore(*facts, dice / 2, 40 + place, "mm", 30, 30, 500, 900)
            scores.append(whole)
    scores[-1] = ScanScore(1, "d", 2, CLASSES[1], "whole_volume", math.nan, math.nan, "mm", 30, 30, 0, 37)
    scores[0] = ScanScore(0, "a", 1, "liver", "alpnet", 0.0, math.nan, "mm", 9, 30, 500, 0)
    return scores


def make_cases():
    label = np.zeros((40, 40, 4), dtype=bool)
    label[10:20, 10:20, 1:3] = True
    predictions = {protocol.name: label for protocol in BOTH}
    keys = [(place % 2, scan, name) for place, scan in enumerate(SCANS) for name in CLASSES]
    return [capture_case(*key, label * 1.0, label, predictions, np.eye(4)) for key in keys]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.tables, self.stack = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.stack):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new"
    path = write_report(folder / "report.html", make_scores(), make_cases(), BOTH, PROVENANCE, "Phantom <1>")
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def table_with(page, text):
    return next(table for table in page.tables if any(text in cell for row in table[:2] for cell in row))


def test_it_is_one_file_without_links_or_scripts(html):
    page = Page(html)
    assert page.stack == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html


def test_names_are_escaped(html):
    for name in ("<script>alert", "<b>kidney", "<i>abc", "<u>", "Phantom <1>"):
        assert name not in html
        assert name in unescape(html)


def test_every_scan_has_its_rows(html):
    table = table_with(Page(html), "Scan")
    rows = [[cell.strip() for cell in row] for row in table[2:]]
    assert len(rows) == len(SCANS) * len(CLASSES)
    assert {row[1] for row in rows if len(row) == 9} == set(SCANS)
    assert rows[0] == ["0", "a", "liver", "0.0", "nothing predicted", "9 / 30", "44.5", "40.0", "30 / 30"]
    assert rows[-1] == [CLASSES[1], "58.0", "7.0", "9 / 30", "no ground truth, 37 voxels predicted", "30 / 30"]


def test_class_table_has_means_deviations_and_undefined_values_of_both_protocols(html):
    rows = {row[0]: [" ".join(cell.split()) for cell in row[1:]] for row in table_with(Page(html), "Class")[2:]}
    liver = [0.0, 0.79, 0.69, 0.59]
    deviation = np.std(liver, ddof=1)
    iou = [dice / (2 - dice) for dice in liver]
    assert rows["liver"][:7] == [
        f"{100 * np.mean(liver):.1f} ± {100 * deviation:.1f}",
        f"{100 * np.mean(iou):.1f} ± {100 * np.std(iou, ddof=1):.1f}",
        "6.0 ± 1.0",
        "0.0",
        "1",
        "4",
        "0 / 1",
    ]
    second = np.mean([np.mean([0.88, 0.68]), np.mean([0.78, 0.58])])
    assert rows["mean"][0].startswith(f"{100 * np.mean([np.mean(liver), second]):.1f} ")
    assert rows["mean"][6] == "0 / 1"
    assert rows[CLASSES[1]][13] == "1 / 1"
    assert "worst scan: 44.0 % Dice (a) · 1 of 8 values below 50.0 %" in html, "of 0 and 88 %"


def test_fold_table_has_a_row_for_every_fold_and_protocol(html):
    rows = [[cell.strip() for cell in row] for row in table_with(Page(html), "Fold")[1:]]
    assert [row[0] for row in rows] == ["0", "whole_volume", "1", "whole_volume"]
    assert rows[0][1:5] == ["alpnet", "34.5", "78.0", f"{100 * np.mean([0.345, 0.78]):.1f}"]


def test_best_median_and_worst_cases_are_shown_with_both_protocols(html):
    captions = [
        " ".join(re.sub("<[^>]+>", "", text).split()) for text in re.findall("(?s)<figcaption>(.*?)</fig", html)
    ]
    assert len(captions) == 2 * 3
    assert unescape(captions[0]) == (
        "best · <script>alert(1)</script> · fold 1 · slice 1 Dice alpnet 79.0 %, whole_volume 39.5 %"
    )
    assert unescape(captions[2]).startswith("worst · a · fold 0")


def test_what_was_run_and_what_it_means_is_said(html):
    text = unescape(html)
    rows = dict(row for row in table_with(Page(html), "seed") if len(row) == 2)
    assert (rows["seed"], rows["commit"], rows["nothing"]) == ("7", "<i>abc</i>", "None")
    assert '"rate": 0.5' in text
    assert "from the first to the last slice of the class in the query's ground truth" in text
    assert "Not a medical device" in text


def test_no_cases_no_gallery_and_one_protocol_is_enough(tmp_path):
    scores = [score for score in make_scores() if score.protocol == "alpnet"]
    path = write_report(tmp_path / "report.html", scores, [], BOTH[:1], {})
    text = path.read_text(encoding="utf-8")
    assert "figcaption>" not in text
    assert "whole_volume" not in text


def test_units_of_distances_are_told_row_by_row_where_they_differ(tmp_path):
    scores = [replace(score, hd95_unit="voxels") if score.scan == "a" else score for score in make_scores()]
    page = Page(write_report(tmp_path / "report.html", scores, [], BOTH, {}).read_text(encoding="utf-8"))
    by_scan = {row[1]: row[7] for row in table_with(page, "Scan")[2:] if len(row) > 7}
    assert (by_scan["a"], by_scan["d"]) == ("40.0 voxels", "43.0 mm")
    by_fold = [row[-2] for row in table_with(page, "Fold")]
    assert by_fold == ["meanHD95 (mm, voxels)", "5.5", "41.0", "6.0 mm", "41.5 mm"]


def test_scores_of_other_protocols_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"of the protocols \['alpnet', 'whole_volume'\].*to show \['alpnet'\]"):
        write_report(tmp_path / "report.html", make_scores(), [], BOTH[:1], {})
    with pytest.raises(ValueError, match=r"of the protocols \[\]"):
        write_report(tmp_path / "report.html", [], [], [], {})
