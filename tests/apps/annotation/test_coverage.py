# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np

from monai_fewshot.apps.annotation.coverage import choose_by_coverage

PLACES = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0])


def between(places):
    return np.abs(places[:, None] - places)


def test_the_first_of_all_is_the_medoid_and_the_next_stands_for_the_other_group():
    distances = between(PLACES)
    first, second = choose_by_coverage(distances, 2)
    assert first.item == distances.sum(1).argmin()
    assert (second.item, second.distance, second.alike) == (6, 8.0, 2)
    assert np.isinf(first.distance)


def test_each_choice_lowers_the_weighted_distances_most():
    """Compared with a plain loop over all candidates."""
    random = np.random.default_rng(0)
    distances = between(random.random(12))
    need, annotated = random.random(12), [3]
    for choice in choose_by_coverage(distances, 4, [3], need):
        left = [item for item in range(12) if item not in annotated]
        costs = {
            item: sum(need[i] * min(distances[i, j] for j in [*annotated, item]) for i in range(12)) for item in left
        }
        assert choice.item == min(costs, key=costs.get)
        annotated.append(choice.item)


def test_what_is_annotated_or_no_candidate_is_not_chosen():
    choices = choose_by_coverage(between(PLACES), 9, [1], candidates=[0, 1, 5, 7])
    assert sorted(choice.item for choice in choices) == [0, 5, 7]


def test_need_draws_the_choice():
    need = np.where(PLACES == 0, 100.0, 0.0)
    assert choose_by_coverage(between(PLACES), 1, [7], need)[0].item == 0
