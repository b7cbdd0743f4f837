# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import AdjustContrast

from monai_fewshot.data import AnnotatedEpisodes, EpisodeSampler, PseudoLabelEpisodes
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.transforms import EpisodeAugmentation, RandAffineElastic
from tests.helpers.slice_stacks import annotated, pseudo_labels


def _augmentation():
    return EpisodeAugmentation(RandAffineElastic())


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def _batches(dataset, **options):
    return list(DataLoader(dataset, **options))


def _items(batches):
    return [{key: value[i] for key, value in batch.items()} for batch in batches for i in range(len(batch["image"]))]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_episode_has_the_keys_and_shapes_of_the_contract(shots, channels):
    episode = PseudoLabelEpisodes(pseudo_labels(channels), 10, shots, augmentation=_augmentation())[3]
    assert {key: tuple(value.shape) for key, value in episode.items()} == {
        "image": (channels, 24, 20),
        "label": (1, 24, 20),
        "support_image": (shots, channels, 24, 20),
        "support_label": (shots, 1, 24, 20),
    }
    assert all(type(value) is torch.Tensor and value.dtype == torch.float32 for value in episode.values())
    assert set(episode["support_label"].unique().tolist()) == {0, 1}


def test_an_episode_depends_on_seed_and_number_alone():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 8, seed=3, augmentation=_augmentation())
    again = PseudoLabelEpisodes(pseudo_labels(), 50, seed=3, augmentation=_augmentation())
    forward, backward = [dataset[i] for i in range(8)], [again[i] for i in reversed(range(8))][::-1]
    assert all(_same(one, other) for one, other in zip(forward, backward, strict=True))
    assert len({episode["image"].sum().item() for episode in forward}) == 8
    other_seed = PseudoLabelEpisodes(pseudo_labels(), 8, seed=4, augmentation=_augmentation())
    assert not any(_same(forward[i], other_seed[i]) for i in range(8))


def test_going_through_the_episodes_ends():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 3, augmentation=_augmentation())
    assert all(_same(episode, dataset[i]) for i, episode in zip(range(3), dataset, strict=True))


def test_a_batch_equals_single_episodes():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 8, shots=2, augmentation=_augmentation())
    for number, episode in zip([5, 0, 7], dataset.__getitems__([5, 0, 7]), strict=True):
        single = dataset[number]
        assert torch.equal(episode["support_label"], single["support_label"])
        for key in single:
            torch.testing.assert_close(episode[key], single[key], atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [PseudoLabelEpisodes, AnnotatedEpisodes])
def test_workers_and_batches_do_not_matter(make):
    if make is PseudoLabelEpisodes:
        dataset = PseudoLabelEpisodes(pseudo_labels(), 7, augmentation=_augmentation())
    else:
        dataset = AnnotatedEpisodes(annotated(), 7, [2, 4, 5], ways=2, shots=2, augmentation=_augmentation())
    expected = [dataset[i] for i in range(7)]
    for options in ({"batch_size": 3}, {"batch_size": 3, "num_workers": 2}, {"batch_size": 1, "num_workers": 1}):
        items = _items(_batches(dataset, **options))
        assert len(items) == 7
        for one, other in zip(items, expected, strict=True):
            assert torch.equal(one["label"], other["label"])
            for key in other:
                torch.testing.assert_close(one[key], other[key], atol=1e-5, rtol=0)


def test_an_episode_equals_the_ordinary_transforms_with_its_draws():
    stack = pseudo_labels()
    dataset = PseudoLabelEpisodes(stack, 6, shots=2, seed=5, augmentation=_augmentation())
    for number in range(6):
        slices, (value,), draws = dataset.plan(number)
        items = []
        for index, draw in zip(slices, draws, strict=True):
            geometry = RandAffineElastic()
            geometry._drawn = draw.warp
            label = (stack.label[index] == value).float()
            image = AdjustContrast(draw.gamma)(geometry(stack.image[index], "bilinear", randomize=False))
            items.append((image, geometry(label, "nearest", randomize=False)))
        episode = dataset[number]
        images, labels = zip(*items, strict=True)
        torch.testing.assert_close(episode["image"], images[-1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(episode["support_image"], torch.stack(images[:-1]), atol=1e-5, rtol=1e-5)
        assert torch.equal(episode["label"], labels[-1])
        assert torch.equal(episode["support_label"], torch.stack(labels[:-1]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_episodes_of_the_cpu():
    stack = pseudo_labels()
    there = replace(stack, image=stack.image.cuda(), label=stack.label.cuda())
    here, gpu = (PseudoLabelEpisodes(s, 8, augmentation=_augmentation()).__getitems__(range(8)) for s in (stack, there))
    for one, other in zip(here, gpu, strict=True):
        assert (one["label"] != other["label"].cpu()).float().mean() < 0.005, "rounding moves a pixel at an edge"
        torch.testing.assert_close(one["image"], other["image"].cpu(), atol=1e-4, rtol=0)


def test_augmentation_of_support_and_query():
    stack = pseudo_labels()
    plain = PseudoLabelEpisodes(stack, 6, shots=2)
    query_only = PseudoLabelEpisodes(stack, 6, shots=2, augmentation=_augmentation(), augment_support=False)
    both = PseudoLabelEpisodes(stack, 6, shots=2, augmentation=_augmentation())
    before = stack.image.clone()
    for i in range(6):
        assert torch.equal(query_only[i]["support_image"], plain[i]["support_image"])
        assert torch.equal(query_only[i]["support_label"], plain[i]["support_label"])
        assert not torch.allclose(query_only[i]["image"], plain[i]["image"])
        images = [both[i]["image"], *both[i]["support_image"], plain[i]["image"]]
        assert not any(torch.allclose(images[a], images[b]) for a in range(4) for b in range(a))
    assert torch.equal(stack.image, before)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_replicas_share_each_global_batch(num_replicas):
    dataset = PseudoLabelEpisodes(pseudo_labels(), 12)
    samplers = [EpisodeSampler(dataset, num_replicas, rank) for rank in range(num_replicas)]
    numbers = []
    for epoch in (1, 2, 3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        dealt = [list(sampler) for sampler in samplers]
        assert {len(part) for part in (*dealt, *samplers)} == {12 // num_replicas}
        each = 4 // num_replicas
        for start in range(0, 12 // num_replicas, each):
            numbers.append(sorted(n for part in dealt for n in part[start : start + each]))
    assert numbers == [list(range(start, start + 4)) for start in range(0, 36, 4)]


def test_uneven_lengths_leave_the_rest_out_on_every_replica():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 7)
    samplers = [EpisodeSampler(dataset, 2, rank) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(2)
    assert [list(sampler) for sampler in samplers] == [[6, 8, 10], [7, 9, 11]]


def test_a_trainer_moves_through_the_episodes():
    dataset = PseudoLabelEpisodes(pseudo_labels(), 4, augmentation=_augmentation())
    sampler = EpisodeSampler(dataset)
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, image, support_image, support_label):
            seen.extend(image)
            return self.weight

    network = Network()
    SupervisedTrainer(
        device="cpu",
        max_epochs=3,
        train_data_loader=DataLoader(dataset, sampler=sampler, batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=lambda output, target: output.sum(),
        prepare_batch=PrepareBatchEpisode(),
        decollate=False,
    ).run()
    assert len(seen) == 12
    for number, image in enumerate(seen):
        torch.testing.assert_close(image, dataset[number]["image"], atol=1e-5, rtol=0)
