# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DataLoader

from monai_fewshot.data import EpisodeSampler, SliceStack, TaskEpisodes, collate_episodes
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic

POOLS = (2, 5, 7)
SCANS = 6
SIZE = 12


def _stack():
    """Of each pool six scans of two slices; pixel (0, 0) is the number of the slice, (0, 1) is ignored.

    All slices show a class that is no pool, 9, and every second one of the other pools shows pool 7 too.
    """
    count = len(POOLS) * SCANS * 2
    label = torch.zeros(count, 1, SIZE, SIZE, dtype=torch.uint8)
    for index in range(count):
        label[index, 0, 2:6, 2 : 4 + index % 5] = POOLS[index // (2 * SCANS)]
        label[index, 0, 8:10, 8:10] = 9
        if index % 2 and index < 4 * SCANS:
            label[index, 0, 6:8, 3:5] = 7
    label[..., 0, 1] = 255
    image = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    image[:, 0, 0, 0] = torch.arange(count)
    return SliceStack(image, label, torch.arange(count) // 2)


STACK = _stack()


def _tasks(length=40, **options):
    return TaskEpisodes(STACK, length, POOLS, **{"shots": 2, "queries": 3, **options})


def _slices(images):
    """Numbers of the slices that images are."""
    return images[:, 0, 0, 0].long().tolist()


def _expected(slices, pool):
    """What a task's labels are, pixel by pixel."""
    label = torch.zeros(len(slices), 1, SIZE, SIZE)
    for place, number in enumerate(slices):
        for row in range(SIZE):
            for column in range(SIZE):
                value = int(STACK.label[number, 0, row, column])
                label[place, 0, row, column] = 255 if value == 255 else float(value == pool)
    return label


def _pool_of(task):
    """The pool whose pixels are foreground in all images of a task, or part of one."""
    fitting = [pool for pool in POOLS if all(torch.equal(_expected([s], pool)[0], label) for s, label in task)]
    assert len(fitting) == 1
    return fitting[0]


@pytest.mark.parametrize(("shots", "queries"), [(1, 1), (2, 3), (3, 3), (4, 1)])
def test_an_exclusive_task_is_of_one_pool(shots, queries):
    for task in _tasks(12, shots=shots, queries=queries):
        support, query = _slices(task["support_image"]), _slices(task["image"])
        assert (len(support), len(query)) == (shots, queries)
        pool = _pool_of([*zip(support, task["support_label"], strict=True), *zip(query, task["label"], strict=True)])
        assert all(pool in STACK.label[s] for s in (*support, *query))


@pytest.mark.parametrize(("ways", "used"), [(None, 3), (2, 2), (1, 1), (3, 3)])
def test_a_mixed_task_has_as_many_images_of_each_pool(ways, used):
    for task in _tasks(12, composition="mixed", ways=ways, shots=1, queries=2):
        support, query = _slices(task["support_image"]), _slices(task["image"])
        assert (len(support), len(query)) == (used, 2 * used)
        pools = [
            _pool_of(
                [
                    (support[way], task["support_label"][way]),
                    *zip(query[2 * way :][:2], task["label"][2 * way :][:2], strict=True),
                ]
            )
            for way in range(used)
        ]
        assert len(set(pools)) == used


def test_an_exclusive_task_has_no_other_ways():
    assert _tasks(ways=3).ways == 1
    assert len(_tasks(ways=3)[0]["image"]) == 3


@pytest.mark.parametrize(("shots", "queries"), [(2, 3), (3, 3)])
def test_the_images_of_a_pool_are_of_different_scans(shots, queries):
    for task in _tasks(60, shots=shots, queries=queries):
        scans = STACK.scan[_slices(task["support_image"]) + _slices(task["image"])].tolist()
        assert len(set(scans)) == shots + queries


def test_the_images_of_a_mixed_task_are_of_different_scans_where_a_scan_shows_one_pool():
    for task in TaskEpisodes(STACK, 30, (2, 5), shots=3, queries=3, composition="mixed"):
        assert sorted(STACK.scan[_slices(task["support_image"]) + _slices(task["image"])].tolist()) == list(range(12))


@pytest.mark.parametrize(("shots", "queries", "scans"), [(1, 1, 2), (2, 3, 5), (3, 3, 6), (2, 2, 9), (1, 5, 8)])
def test_supports_and_queries_are_of_different_scans_where_every_scan_shows_every_pool(shots, queries, scans):
    label = torch.tensor(POOLS, dtype=torch.uint8).repeat(scans).view(-1, 1, 1, 1)
    stack = SliceStack(torch.rand(3 * scans, 1, 1, 1), label, torch.arange(scans).repeat_interleave(3))
    tasks = TaskEpisodes(stack, 50, POOLS, shots, queries, composition="mixed")
    for index in range(50):
        slices = tasks.plan(index).slices
        assert len(slices) == 3 * (shots + queries)
        numbers = stack.scan[slices].tolist()
        assert not set(numbers[: 3 * shots]) & set(numbers[3 * shots :])
        for way in range(3):
            own = [*numbers[shots * way :][:shots], *numbers[3 * shots + queries * way :][:queries]]
            assert len(set(own)) == shots + queries


def test_images_are_those_of_the_stack():
    for task in _tasks(5):
        for key in ("support_image", "image"):
            assert torch.equal(task[key], STACK.image[_slices(task[key])])


@pytest.mark.parametrize("composition", ["exclusive", "mixed"])
def test_ignored_pixels_stay_and_other_classes_are_background(composition):
    for task in _tasks(10, shots=1, queries=1, composition=composition):
        for key in ("support_label", "label"):
            assert (task[key][..., 0, 1] == 255).all()
            assert (task[key] == 255).sum() == len(task[key])
            assert not task[key][..., 8:10, 8:10].any()
            assert (task[key] == 1).flatten(1).any(1).all()


def test_the_shape_of_a_task():
    task = TaskEpisodes(STACK, 3, POOLS, shots=2)[2]
    assert {key: tuple(value.shape) for key, value in task.items()} == {
        "support_image": (2, 3, SIZE, SIZE),
        "support_label": (2, 1, SIZE, SIZE),
        "image": (2, 3, SIZE, SIZE),
        "label": (2, 1, SIZE, SIZE),
        "number": (),
    }
    assert task["number"] == 2
    assert all(task[key].dtype == torch.float32 for key in ("support_image", "support_label", "image", "label"))


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("composition", ["exclusive", "mixed"])
def test_a_task_is_a_function_of_seed_and_number(composition):
    options = {"composition": composition, "shots": 2, "queries": 2}
    augmentation = EpisodeAugmentation(RandAffineElastic())
    for extra in ({}, {"augmentation": augmentation}):
        one, other = (_tasks(length, seed=3, **options, **extra) for length in (9, 30))
        np.random.seed(1)  # noqa: NPY002
        alone = {index: one[index] for index in (7, 0, 4)}
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(5)
        for index, task in zip((4, 7, 0), other.__getitems__([4, 7, 0]), strict=True):
            for key, value in alone[index].items():
                torch.testing.assert_close(task[key], value, atol=1e-5, rtol=0)
    plain, changed = _tasks(9, seed=3, **options), _tasks(9, seed=4, **options)
    assert not any(_same({**plain[i], "number": 0}, {**changed[i], "number": 0}) for i in range(9))


def test_all_pools_and_all_their_slices_are_drawn_evenly():
    tasks = _tasks(1800, shots=1, queries=1)
    drawn = [tasks.draw_slices(np.random.RandomState(seed)) for seed in range(1800)]
    pools = Counter(values[0] for _, values in drawn)
    assert set(pools) == set(POOLS)
    assert all(540 < count < 660 for count in pools.values())
    for pool in POOLS:
        showing = {s for s in range(len(STACK.scan)) if (STACK.label[s] == pool).any()}
        counts = Counter(s for slices, values in drawn if values[0] == pool for s in slices)
        assert set(counts) == showing
        scans = Counter(STACK.scan[s].item() for slices, values in drawn if values[0] == pool for s in slices)
        mean = sum(scans.values()) / len(scans)
        assert max(abs(count - mean) for count in scans.values()) < 5 * mean**0.5


def test_pairs_of_pools_are_drawn_evenly_and_in_any_order():
    tasks = _tasks(600, composition="mixed", ways=2, shots=1, queries=1)
    drawn = Counter(tuple(tasks.draw_slices(np.random.RandomState(seed))[1][:2]) for seed in range(600))
    assert set(drawn) == {(a, b) for a in POOLS for b in POOLS if a != b}
    assert all(60 < count < 140 for count in drawn.values())


def test_labels_move_with_their_images():
    geometry = RandAffineElastic(rotate=0, translate=0, shear=0, zoom=(1, 1), alpha=0, flip=(0, 1))
    flipped = _tasks(6, augmentation=EpisodeAugmentation(geometry, None))
    for before, after in zip(_tasks(6), flipped, strict=True):
        for key in ("image", "label", "support_image", "support_label"):
            torch.testing.assert_close(after[key], before[key].flip(3), atol=1e-4, rtol=0)


def test_images_are_normalized_and_labels_not():
    plain, normalized = _tasks(3), _tasks(3, normalize=lambda image: 2 * image - 1)
    for before, after in zip(plain, normalized, strict=True):
        assert torch.equal(after["image"], 2 * before["image"] - 1)
        assert torch.equal(after["support_image"], 2 * before["support_image"] - 1)
        assert torch.equal(after["support_label"], before["support_label"])


def test_batches_of_an_epoch():
    tasks = _tasks(6)
    batches = list(DataLoader(tasks, batch_size=2, sampler=EpisodeSampler(tasks), collate_fn=collate_episodes))
    assert [batch["number"].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5]]
    assert batches[0]["support_image"].shape == (2, 2, 3, SIZE, SIZE)
    assert batches[0]["label"].shape == (6, 1, SIZE, SIZE)
    for key in ("image", "label"):
        torch.testing.assert_close(batches[1][key], torch.cat([tasks[2][key], tasks[3][key]]))


def test_too_few_images_of_a_pool():
    with pytest.raises(ValueError, match="Tasks of 4 shots and 3 queries need 7 annotated images, or scans, that") as e:
        _tasks(shots=4)
    assert "show a class; of the classes 2 has 6, 5 has 6. Annotate more, leave these classes out" in str(e.value)
    with pytest.raises(
        ValueError, match="need 2 annotated images, or scans, that show a class; of the classes 3 has 0"
    ):
        TaskEpisodes(STACK, 4, [2, 3], shots=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"composition": "mixed", "ways": 4}, r"Tasks of 4 pool\(s\), 2 shot\(s\) and 3 queries cannot be drawn from"),
        ({"composition": "mixed", "ways": 0}, r"Tasks of 0 pool\(s\), .* pools \[2, 5, 7\]: give one pool, shot and"),
        ({"shots": 0}, r"1 pool\(s\), 0 shot\(s\) and 3 queries"),
        ({"queries": 0}, r"2 shot\(s\) and 0 queries cannot be drawn"),
        ({"composition": "shared"}, "'shared' is not a valid TaskPools"),
    ],
)
def test_tasks_that_cannot_be(options, text):
    with pytest.raises(ValueError, match=text):
        _tasks(**options)


def test_no_pool():
    with pytest.raises(ValueError, match=r"cannot be drawn from pools \[\]: give one pool, shot and query at least"):
        TaskEpisodes(STACK, 4, [], shots=1)
