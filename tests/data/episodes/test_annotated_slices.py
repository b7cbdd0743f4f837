# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.data import AnnotatedSlices, SliceStack, choose_annotated
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic

SHOWN = {1: 1, 4: 2, 5: 1}


def stack(shown=SHOWN, number=8):
    """Slices whose intensity is their number, some with a square of a class."""
    image = torch.arange(number).float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    label = torch.zeros(number, 1, 16, 16, dtype=torch.uint8)
    for place, value in shown.items():
        label[place, 0, 4:12, 4:12] = value
    return SliceStack(image, label, torch.zeros(number, dtype=torch.int64))


def place(sample):
    return int(sample["image"].max())


def test_every_second_slice_shows_a_class_and_all_slices_are_drawn():
    samples = AnnotatedSlices(stack(), 200, num_classes=2)
    drawn = [place(sample) for sample in samples]
    assert set(drawn[::2]) == {1, 4, 5}
    assert set(drawn[1::2]) == {0, 2, 3, 6, 7}
    counts = [drawn.count(number) for number in (1, 4, 5)]
    assert all(abs(count - 100 / 3) < 4 * (100 * 2 / 9) ** 0.5 for count in counts), "within four deviations of a third"


def test_a_sample_is_a_slice_with_its_label():
    slices = stack()
    for sample in AnnotatedSlices(slices, 20, num_classes=2):
        assert torch.equal(sample["image"], slices.image[place(sample)])
        assert torch.equal(sample["label"], slices.label[place(sample)].float())


def test_a_sample_is_a_function_of_seed_and_number_alone():
    augmentation = EpisodeAugmentation(RandAffineElastic(), (0.5, 1.5))
    samples = AnnotatedSlices(stack(), 8, num_classes=2, seed=3, augmentation=augmentation)
    together, alone = samples.__getitems__([5, 0, 9]), [samples[number] for number in (5, 0, 9)]
    for one, other in zip(together, alone, strict=True):
        assert all(torch.allclose(one[key], other[key], atol=1e-4) for key in ("image", "label"))
    other_seed = AnnotatedSlices(stack(), 8, num_classes=2, seed=4)
    assert [place(s) for s in other_seed] != [place(s) for s in AnnotatedSlices(stack(), 8, num_classes=2, seed=3)]


def test_image_and_label_move_together():
    slices = stack(dict.fromkeys(range(8), 1))
    slices.image[:] = slices.label.float()
    still = AnnotatedSlices(slices, 4, num_classes=1)
    moved = AnnotatedSlices(slices, 4, 1, augmentation=EpisodeAugmentation(RandAffineElastic(), gamma=None))
    for before, after in zip(still, moved, strict=True):
        assert not torch.equal(before["label"], after["label"])
        inside, outside = after["image"] > 0.999, after["image"] < 0.001
        assert after["label"][inside].all()
        assert not after["label"][outside].any()
        assert inside.any()


def test_where_all_slices_show_a_class_all_are_drawn():
    samples = AnnotatedSlices(stack(dict.fromkeys(range(8), 1)), 100, num_classes=1)
    assert {place(sample) for sample in samples} == set(range(8))


def test_a_class_that_no_slice_shows():
    with pytest.raises(ValueError, match="No annotated slice shows class 3, 4 of 1 to 4"):
        AnnotatedSlices(stack(), 4, num_classes=4)


class TestBalanced:
    def test_classes_are_shown_in_turn_and_after_every_third_and_the_last_a_slice_that_shows_none(self):
        shown = {1: 1, 2: 2, 3: 3, 4: 4, 5: 1, 6: 1, 7: 1}
        samples = AnnotatedSlices(stack(shown, 10), 120, num_classes=4, balanced=True)
        values = [int(sample["label"].max()) for sample in samples]
        assert values == [1, 2, 3, 0, 4, 0] * 20
        drawn = [place(sample) for sample in samples]
        assert set(drawn[::6]) == {1, 5, 6, 7}
        assert set(drawn[3::6]) | set(drawn[5::6]) == {0, 8, 9}

    @pytest.mark.parametrize(("num_classes", "turn"), [(1, [1, 0]), (3, [1, 2, 3, 0]), (2, [1, 2, 0])])
    def test_a_turn_ends_with_one_slice_that_shows_none(self, num_classes, turn):
        samples = AnnotatedSlices(stack({n: n for n in range(1, num_classes + 1)}), 12, num_classes, balanced=True)
        values = [int(sample["label"].max()) for sample in samples]
        assert values == (turn * 12)[:12]

    def test_slices_that_show_several_classes_serve_each(self):
        slices = stack({1: 1, 2: 2}, 4)
        slices.label[1, 0, :2] = 2
        samples = AnnotatedSlices(slices, 90, 2, balanced=True)
        drawn = [place(sample) for sample in samples]
        assert set(drawn[::3]) == {1}
        assert set(drawn[1::3]) == {1, 2}

    def test_where_all_slices_show_a_class_one_of_them_stands_in(self):
        samples = AnnotatedSlices(stack({0: 1, 1: 2}, 2), 60, 2, balanced=True)
        assert {place(sample) for number, sample in enumerate(samples) if number % 3 == 2} == {0, 1}


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_of_classes_are_powers_of_their_shares_with_a_mean_of_1_over_the_pixels(power):
    slices = stack()
    slices.label[0, 0, 0, :3] = 255
    found = AnnotatedSlices(slices, 4, num_classes=2).class_weights(power).tolist()
    shares = [(slices.label == value).float().mean().item() for value in range(3)]
    scale = sum(shares) / sum(share ** (1 - power) for share in shares)
    assert found == pytest.approx([scale * share**-power for share in shares], rel=1e-5)
    if power == 0:
        assert found == pytest.approx([1, 1, 1])


def test_weights_where_there_is_no_background():
    slices = stack()
    slices.label[:4], slices.label[4:] = 1, 2
    found = AnnotatedSlices(slices, 4, num_classes=2).class_weights()
    assert found[1:].tolist() == pytest.approx([1, 1])
    assert found.isfinite().all()


def two_scans():
    """Scans of six and four slices, of which some show a class."""
    made = stack({2: 1, 3: 2, 8: 1}, 10)
    return SliceStack(made.image, made.label, torch.tensor([0] * 6 + [1] * 4))


class TestChooseAnnotated:
    @pytest.mark.parametrize(
        ("chosen", "slices"),
        [
            (None, range(10)),
            ("labeled", [2, 3, 8]),
            (1, range(10)),
            (2, [0, 2, 4, 6, 8]),
            (3, [1, 4, 7]),
            (4, [1, 5, 7]),
            (100, [2, 7]),
            ([[3, 0], [2]], [0, 3, 8]),
            (((5,), (0, 3)), [5, 6, 9]),
            ([[], [2]], [8]),
            ([None, [2]], [0, 1, 2, 3, 4, 5, 8]),
            ([3, None], [1, 4, 6, 7, 8, 9]),
            (["labeled", [0]], [2, 3, 6]),
        ],
    )
    def test_of_several_scans(self, chosen, slices):
        assert choose_annotated(two_scans(), chosen) == list(slices)

    @pytest.mark.parametrize(("chosen", "slices"), [([3, 1], [1, 3]), ((7,), [7]), ([[4, 5]], [4, 5]), (5, [2, 7])])
    def test_of_one_scan(self, chosen, slices):
        assert choose_annotated(stack(), chosen) == slices

    @pytest.mark.parametrize(
        ("chosen", "message"),
        [
            (0, "annotated_slices is 0: give a number n for every n-th slice, a list of numbers, or 'labeled'"),
            (-2, "annotated_slices is -2: give a number n"),
            (2.5, "annotated_slices is 2.5: give a number n"),
            ("all", "annotated_slices is 'all': give a number n"),
            ([1, 2], "annotated_slices lists slices of 1 scans, but 2 are annotated"),
            ([[1], [2], [3]], "annotated_slices lists slices of 3 scans, but 2 are annotated"),
            ([[1, 6, -1], [0]], r"annotated_slices: no slices \[6, -1\], the scan has 0 to 5"),
            ([[1], [4]], r"annotated_slices: no slices \[4\], the scan has 0 to 3"),
            ([[], []], r"annotated_slices is \[\[\], \[\]\], which leaves no slice"),
        ],
    )
    def test_what_cannot_be(self, chosen, message):
        with pytest.raises(ValueError, match=message):
            choose_annotated(two_scans(), chosen)

    def test_nothing_at_all(self):
        with pytest.raises(ValueError, match=r"annotated_slices is \[\], which leaves no slice: name slices that show"):
            choose_annotated(stack(), [])
        with pytest.raises(ValueError, match="annotated_slices is 'labeled', which leaves no slice"):
            choose_annotated(stack({}), "labeled")


def test_rare_classes_weigh_more():
    slices = stack()
    label = torch.zeros_like(slices.label)
    label[0, 0, 0, :4], label[1, 0, 0, 0] = 1, 2
    samples = AnnotatedSlices(SliceStack(slices.image, label, slices.scan), 4, 2)
    counts = torch.tensor([label.numel() - 5, 4, 1])
    weights = samples.class_weights(0.5)
    torch.testing.assert_close((weights * counts).sum() / counts.sum(), torch.tensor(1.0))
    assert weights[2] / weights[1] == pytest.approx(2)
    assert samples.class_weights(0).tolist() == pytest.approx([1, 1, 1])
