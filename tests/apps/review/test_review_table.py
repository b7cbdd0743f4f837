# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
from datetime import datetime

import pytest

from monai_fewshot.apps.review.review_table import Review, add_review, read_reviews

HEADING = "scan,verdict,note,time\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "review.csv"


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_review_is_in_the_file_at_once_in_the_place_of_the_former_one(path):
    add_review(path, Review("b", "accepted"))
    add_review(path, Review("a", "rejected", 'misses, "the" tail\nand more'))
    done = add_review(path, Review("b", "rejected", "=1+1"))
    assert [(row["scan"], row["verdict"], row["note"]) for row in rows(path)] == [
        ("b", "rejected", "=1+1"),
        ("a", "rejected", 'misses, "the" tail\nand more'),
    ]
    assert datetime.fromisoformat(rows(path)[0]["time"]).tzinfo is not None
    assert read_reviews(path)["b"] == done


def test_what_was_edited_by_hand_is_kept(path):
    path.write_text(
        "\ufeffscan,reader,verdict,note,time\n\ngone,me, Accepted ,,yesterday\na,you,,,\n", encoding="utf-8"
    )
    assert read_reviews(path)["gone"] == Review("gone", "accepted", "", "yesterday")
    add_review(path, Review("a", "rejected"))
    assert [(row["scan"], row["reader"], row["verdict"]) for row in rows(path)] == [
        ("gone", "me", "accepted"),
        ("a", "you", "rejected"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            HEADING + "a,fine,,\n",
            r"review.csv, line 2: the verdict is 'fine'; expected 'accepted', 'rejected' or nothing",
        ),
        (HEADING + 'a,accepted,"two\nlines",\nb,bad,,\n', "line 4: the verdict is 'bad'"),
        ("scan,verdict\na,accepted\n", r"line 1: lacks the column\(s\) note, time; .*Expected the heading"),
        ("scan;verdict;note;time\na;accepted;;\n", "line 1: lacks .*separated by commas"),
        ("scan,verdict,note,time,note\n", "line 1: has the column 'note' twice"),
        (HEADING + "a,accepted,misses, the tail,\n", r"line 2: has 5 field\(s\), the heading has 4"),
        (HEADING + "a,accepted,,\na,rejected,,\n", "line 3: the scan 'a' is in line 2 too"),
        (HEADING + ",accepted,,\n", "line 2: names no scan"),
        (HEADING + 'a,accepted,"open,\n', "cannot be read as a table"),
    ],
)
def test_a_broken_file_is_refused_by_line_and_never_overwritten(path, text, problem):
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_reviews(path)
    with pytest.raises(ValueError, match="left as it is"):
        add_review(path, Review("b", "accepted"))
    assert path.read_text() == text


def test_a_file_of_other_bytes_is_refused(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="save it as CSV in UTF-8"):
        read_reviews(path)


def test_an_empty_file_holds_no_reviews(path):
    path.touch()
    add_review(path, Review("a", "", "look again"))
    assert list(read_reviews(path)) == ["a"]


def test_an_unknown_verdict_is_not_written(path):
    with pytest.raises(ValueError, match="give 'accepted', 'rejected' or nothing"):
        add_review(path, Review("a", "maybe"))
    assert not path.exists()
