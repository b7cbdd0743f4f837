# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import math
import re

import numpy as np
import pytest

from monai_fewshot.metrics import Measurement, PredictedQuality
from monai_fewshot.visualize import figure_to_png, preview_figure, write_scan_index

PICTURE = figure_to_png(preview_figure(np.eye(4)[..., None] * np.ones(3), np.zeros((4, 4, 3)), {1: "a"}, np.eye(4)), 20)
ODD = "scan #1 <b>&"


def _row(scan, label, name, volume):
    if not volume:
        return Measurement(scan, label, name, 0, 0.0, *[math.nan] * 7)
    return Measurement(scan, label, name, 7, volume, 12.34, 101.5, 1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.fixture
def page(tmp_path):
    previews, files = {}, {}
    for name in ("b", ODD):
        previews[name] = tmp_path / "previews" / f"{name}.png"
        previews[name].parent.mkdir(exist_ok=True)
        previews[name].write_bytes(PICTURE)
        files[name] = [tmp_path / f"{name}_seg.nii.gz", tmp_path / f"{name}_seg.dcm"]
    files["no picture"] = [tmp_path / "no picture_seg.nii.gz"]
    rows = [_row("b", 2, "spleen", 0), _row("b", 1, "liver & co", 1234.56), _row(ODD, 1, "liver & co", 7.0)]
    path = write_scan_index(
        tmp_path / "index.html", files, previews, rows, tmp_path / "measurements.csv", {"algorithm": "net <1>"}, "T <2>"
    )
    return path.read_text()


def test_the_page_holds_everything(page):
    assert [base64.b64decode(text) for text in re.findall(r"base64,([\w+/=]+)", page)] == [PICTURE, PICTURE]
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    assert "<script" not in page
    assert "Not a medical device" in page


def test_scans_are_in_order_with_their_figures(page):
    headings = re.findall(r'<h2 id="scan-\d+" class="name">(.*?)</h2>', page)
    assert headings == ["b", "no picture", "scan #1 &lt;b&gt;&amp;"]
    assert "1234.6" in page
    assert "12.3" in page
    assert page.count("not found") == 2
    assert "liver &amp; co" in page
    assert "T &lt;2&gt;" in page
    assert "net &lt;1&gt;" in page
    assert "3 scans" in page


def test_links_are_relative(page):
    links = re.findall(r'href="([^"#][^"]*)"', page)
    assert links[0] == "measurements.csv"
    assert "b_seg.dcm" in links
    assert "scan%20%231%20%3Cb%3E%26_seg.nii.gz" in links


def test_many_pictures_stay_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_fewshot.visualize.scan_index.EMBEDDED", 2)
    previews = {f"scan {number}": tmp_path / "previews" / f"scan {number}.png" for number in range(4)}
    (tmp_path / "previews").mkdir()
    for file in previews.values():
        file.write_bytes(PICTURE)
    text = write_scan_index(tmp_path / "index.html", {}, previews).read_text()
    assert text.count("base64,") == 2
    assert re.findall(r'src="(previews[^"]*)"', text) == ["previews/scan%202.png", "previews/scan%203.png"]
    assert "What the numbers mean" not in text
    assert "What was run" not in text


def test_the_worst_scan_comes_first(tmp_path):
    dice = {"a": (0.95, 0.62), "b": (0.9, 0.9), "c": (0.0, 0.99)}
    qualities = [
        PredictedQuality(name, number, f"organ {number}", value, value / 2, value)
        for name, values in dice.items()
        for number, value in enumerate(values, 1)
    ]
    files = {name: [tmp_path / f"{name}_seg.nii.gz"] for name in ("d", *dice)}
    text = write_scan_index(tmp_path / "index.html", files, {}, qualities=qualities, flag_below=0.7).read_text()
    assert re.findall(r'<h2 id="scan-\d+" class="name">(.*?)</h2>', text) == ["d", "c", "a", "b"]
    assert re.findall(r'<a href="#scan-(\d)">(.)</a>', text) == [("2", "c"), ("3", "a"), ("4", "b")]
    assert "2 of 4 scans have a class below 70.0 %" in text
    assert re.findall(r'class="first flagged">([\w. ]+?) ?<', text) == ["not found", "62.0"]
    assert "31.0 to 62.0" in text
    assert "Volumes" not in text
