# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_fewshot.data import ExemplarSamples, SliceStack
from monai_fewshot.transforms import EpisodeAugmentation, NormalizeChannels, RandAffineElastic, RandExemplarSynthesis


def stack(number, values, offset=0.0):
    """Slices of noise around a level of their own, with a square of each class."""
    torch.manual_seed(number)
    image = torch.rand(number, 1, 24, 24) + offset + torch.arange(number).view(-1, 1, 1, 1)
    label = torch.zeros(number, 1, 24, 24, dtype=torch.uint8)
    for place, value in enumerate(values):
        label[:, 0, 3 + 9 * place : 9 + 9 * place, 4:12] = value
    return SliceStack(image, label, torch.zeros(number, dtype=torch.int64))


EXEMPLARS, UNLABELED = stack(3, (1, 2)), stack(4, (2,), 100.0)


def equal(one, other):
    return all(torch.allclose(one[key], other[key], atol=1e-4) for key in ("image", "label"))


@pytest.fixture
def synthesis():
    return RandExemplarSynthesis(2, black_prob=1.0)


def test_a_sample_has_an_exemplar_a_synthetic_image_and_an_unlabeled_one(synthesis):
    samples = ExemplarSamples(EXEMPLARS, 10, synthesis, UNLABELED)
    assert len(list(samples)) == 10
    places = set()
    for sample in samples:
        assert sample["image"].shape == (3, 1, 24, 24)
        assert sample["label"].shape == (3, 1, 24, 24)
        place = int(sample["image"][0].min())
        places.add(place)
        assert torch.equal(sample["image"][0], EXEMPLARS.image[place])
        assert torch.equal(sample["label"][0], EXEMPLARS.label[place].float())
        assert not any(torch.equal(sample["image"][1], image) for image in EXEMPLARS.image)
        assert set(sample["label"][1].unique().tolist()) <= {0, 1, 2}
        assert any(torch.equal(sample["image"][2], image) for image in UNLABELED.image)
    assert places == {0, 1, 2}


@pytest.mark.parametrize(("with_synthesis", "with_unlabeled", "parts"), [(0, 0, 1), (1, 0, 2), (0, 1, 2)])
def test_parts_may_be_left_out(with_synthesis, with_unlabeled, parts, synthesis):
    settings = {"synthesis": synthesis if with_synthesis else None, "unlabeled": UNLABELED if with_unlabeled else None}
    sample = ExemplarSamples(EXEMPLARS, 2, **settings)[0]
    assert len(sample["image"]) == parts
    assert (sample["image"][-1].min() >= 100) == bool(with_unlabeled)


def test_a_sample_is_a_function_of_seed_and_number_alone(synthesis):
    settings = {"synthesis": synthesis, "unlabeled": UNLABELED}
    geometry = RandAffineElastic(rotate=0.3, alpha=0)
    settings["augmentation"] = EpisodeAugmentation(geometry=geometry, gamma=None)
    samples = ExemplarSamples(EXEMPLARS, 6, **settings, seed=4)
    together = samples.__getitems__([5, 0, 3])
    assert all(equal(sample, samples[number]) for sample, number in zip(together, (5, 0, 3), strict=True))
    assert equal(ExemplarSamples(EXEMPLARS, 9, **settings, seed=4)[3], samples[3])
    assert not equal(ExemplarSamples(EXEMPLARS, 6, **settings, seed=5)[3], samples[3])


def test_every_image_is_augmented_for_itself_and_ignored_pixels_stay(synthesis):
    unlabeled = SliceStack(UNLABELED.image, torch.full_like(UNLABELED.label, 255), UNLABELED.scan)
    flips = EpisodeAugmentation(geometry=RandAffineElastic(rotate=1.0, zoom=(1.0, 1.0), alpha=0), gamma=None)
    plain = ExemplarSamples(EXEMPLARS, 4, None, unlabeled)
    turned = ExemplarSamples(EXEMPLARS, 4, None, unlabeled, augmentation=flips)
    for number in range(4):
        assert not torch.equal(plain[number]["image"][0], turned[number]["image"][0])
        assert not torch.equal(plain[number]["image"][1], turned[number]["image"][1])
        assert 255 in turned[number]["label"][1]


def test_images_are_normalized_last():
    plain = ExemplarSamples(EXEMPLARS, 2)
    normalized = ExemplarSamples(EXEMPLARS, 2, normalize=NormalizeChannels([1.0], [2.0]))
    torch.testing.assert_close(normalized[1]["image"], (plain[1]["image"] - 1) / 2)


def test_instances_are_cut_from_exemplars_that_show_all_classes(synthesis):
    both = SliceStack(EXEMPLARS.image, EXEMPLARS.label.clone(), EXEMPLARS.scan)
    both.label[:2][both.label[:2] == 2] = 0
    samples = ExemplarSamples(both, 20, RandExemplarSynthesis(2, exemplar_geometry=False, exemplar_intensity=False))
    for sample in samples:
        pasted = sample["label"][1] > 0
        torch.testing.assert_close(sample["image"][1][pasted], EXEMPLARS.image[2][pasted])
    both.label[2][both.label[2] == 1] = 0
    with pytest.raises(ValueError, match="No exemplar shows all 2 classes, of which instances could be cut"):
        ExemplarSamples(both, 2, synthesis)
