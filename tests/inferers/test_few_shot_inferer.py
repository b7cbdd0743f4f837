# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import DataLoader, MetaTensor, decollate_batch
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from torch import nn

from monai_fewshot.inferers import PROTOCOLS, FewShotVolumeInferer, SegmentationProtocol
from monai_fewshot.inferers.few_shot_inferer import NOT_SEGMENTED
from monai_fewshot.losses import DiceBCELoss
from monai_fewshot.meta import InnerLoop
from monai_fewshot.networks.nets import FewShotSegmenter, MetaLearnedSegmenter, PrototypeSegmenter

CLASSES = 3


class Means(NamedTuple):
    foreground: torch.Tensor
    background: torch.Tensor


class TinySegmenter(FewShotSegmenter):
    """Compares smoothed intensities with the means of each shot's foreground and background."""

    def __init__(self, channels=1):
        super().__init__()
        self.encoder = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        with torch.no_grad():
            self.encoder.weight.copy_(
                torch.linspace(-0.1, 0.1, self.encoder.weight.numel()).view_as(self.encoder.weight)
            )
        self.encoded = Counter()

    def _features(self, image, what):
        self.encoded.update((what, float(slice_[0, 0, 0] * 128)) for slice_ in image)
        return self.encoder(image)

    def encode_query(self, image):
        return self._features(image, "query")

    def encode_support(self, support_image, support_label):
        features = self._features(support_image.flatten(0, 1), "support").unflatten(0, support_image.shape[:2])
        mask = F.interpolate(support_label.flatten(0, 1).float(), features.shape[3:]).unflatten(0, features.shape[:2])

        def mean(weight):
            return (features * weight).sum((3, 4)) / weight.sum((3, 4)).clamp(min=1)

        return Means(mean(mask), mean(1 - mask))

    def classify(self, features, context, size):
        def nearest(means):
            return -(features.unsqueeze(1) - means[..., None, None]).square().sum(2).amin(1, keepdim=True)

        logits = torch.cat([nearest(context.background), nearest(context.foreground)], 1)
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def make_scan(seed, depth, size=(48, 40), channels=1, spans=((0.1, 0.9), (0.3, 0.6), (0.5, 1.0))):
    """Noise with a bright or dark box of each class; the first pixel of a slice tells it from all others."""
    rng = np.random.default_rng(seed)
    label = np.zeros((*size, depth), dtype=np.int64)
    for number, (begin, end) in enumerate(spans, 1):
        first, last = int(begin * depth), max(int(begin * depth) + 1, round(end * depth))
        row, column = 3 + 11 * (number - 1) + rng.integers(0, 3), 4 + rng.integers(0, 20)
        label[row : row + 9, column : column + rng.integers(7, 14), first:last] = number
    if depth > 6:
        label[..., depth // 2][label[..., depth // 2] == 1] = 0
    image = rng.normal(size=(channels, *size, depth)) + np.array([0, 3, -3, 6.0])[label]
    image[0, 0, 0] = (100 * seed + np.arange(depth)) / 128
    affine = np.diag([1.5, 1.5, 8.0, 1.0])
    affine[:3, 3] = seed
    return MetaTensor(torch.tensor(image, dtype=torch.float32), affine=affine), torch.tensor(label)[None]


def batched(*tensors):
    return tuple(tensor[None] for tensor in tensors)


def resized(slice_, size, mode):
    if mode == "nearest":
        return F.interpolate(slice_[None].float(), size, mode="nearest-exact")[0].long()
    return F.interpolate(slice_[None], size, mode="bilinear", antialias=True)[0] if slice_.shape[1:] != size else slice_


def plain_chunks(protocol, held, depth):
    """The chunk of each query slice, in the words of the papers."""
    n = protocol.num_chunks
    if protocol.query_slices == "volume":
        return dict.fromkeys(range(depth), 0)
    if protocol.name == "adnet_ep1":
        borders = [int(chunk * len(held) / n) for chunk in range(n + 1)]
        return {z: chunk for chunk in range(n) for z in held[borders[chunk] : borders[chunk + 1]]}
    if not held:
        return {}
    span = max(held[-1] - held[0], 1)
    return {z: min(int((z - held[0]) * n // span), n - 1) for z in range(held[0], held[-1] + 1)}


def plain_shots(protocol, labels, number):
    """For each chunk the (scan, slice) pairs."""
    n, s = protocol.num_chunks, protocol.shots_per_chunk
    chunks = [[] for _ in range(n)]
    for scan, label in enumerate(labels):
        slices = [z for z in range(label.shape[-1]) if (label[..., z] == number).sum() >= protocol.min_pixels]
        for part in range(n * s if slices else 0):
            shot = (scan, slices[(2 * part + 1) * len(slices) // (2 * n * s)])
            if shot not in chunks[part // s]:
                chunks[part // s].append(shot)
    if protocol.support_choice == "all":
        return [list(dict.fromkeys(shot for chunk in chunks for shot in chunk))]
    return chunks


def plain_inference(protocol, image, network, supports, label, image_size=None):
    """Encode support and query anew for every query slice, class and chunk; return margins (N+1, H, W, D)."""
    native = tuple(image.shape[1:3])
    size = image_size or native
    result = torch.full((CLASSES + 1, *native, image.shape[-1]), NOT_SEGMENTED)
    result[0] = 0
    for number in range(1, CLASSES + 1):
        shots = plain_shots(protocol, [support[1] for support in supports], number)
        held = [z for z in range(image.shape[-1]) if (label[0, ..., z] == number).sum() >= protocol.min_pixels]
        for z, chunk in plain_chunks(protocol, held, image.shape[-1]).items():
            margins = []
            for shot in shots if protocol.support_choice == "average" else [shots[chunk]]:
                images = [resized(supports[k][0][..., place], size, "bilinear") for k, place in shot]
                labels = [resized((supports[k][1][..., place] == number).long(), size, "nearest") for k, place in shot]
                context = network.encode_support(torch.stack(images)[None], torch.stack(labels)[None])
                features = network.encode_query(resized(image[..., z], size, "bilinear")[None])
                logits = network.classify(features, context, native)[0]
                margins.append(logits[1] - logits[0])
            result[number, ..., z] = sum(margins) / len(margins)
    return result


class SeparateSegmenter(TinySegmenter):
    """The same of contexts that are handed over one at a time, as networks with adapted weights are."""

    separate_contexts = True

    def __init__(self, channels=1):
        super().__init__(channels)
        self.classified = []

    def classify(self, features, context, size):
        assert [len(tensor) for tensor in context] == [1, 1]
        self.classified.append((context.foreground.flatten().tolist(), len(features)))
        return super().classify(features, context, size)


VARIANTS = {
    **{name: protocol for name, protocol in PROTOCOLS.items() if protocol.expected_span is None},
    "five_shots": dataclasses.replace(PROTOCOLS["alpnet"], name="five_shots", num_chunks=2, shots_per_chunk=5),
    "average": SegmentationProtocol("average", 3, "volume", "average"),
}


@pytest.fixture
def network():
    return TinySegmenter().eval()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@torch.no_grad()
def test_the_result_is_that_of_a_plain_loop(network, name, batch_size):
    image, label = make_scan(1, 17)
    supports = [make_scan(2, 11), make_scan(3, 14)]
    inferer = FewShotVolumeInferer(VARIANTS[name], CLASSES, batch_size=batch_size)
    result = inferer(
        image[None], network, [s[0][None] for s in supports], [s[1][None] for s in supports], label=label[None]
    )
    plain = plain_inference(
        VARIANTS[name], image.as_tensor(), network, [(s[0].as_tensor(), s[1]) for s in supports], label
    )
    assert result.shape == (1, CLASSES + 1, 48, 40, 17)
    assert torch.allclose(result.as_tensor()[0], plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(result.as_tensor()[0].argmax(0), plain.argmax(0))
    assert 0.01 < (plain > 0).float().mean() < 0.5


@pytest.mark.parametrize("name", [*VARIANTS, "all together"])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_separate_contexts_give_what_others_give(name, batch_size):
    """Each is handed over alone, with as many of its slices as fit; each shot is encoded once."""
    image, label = make_scan(1, 17)
    supports = [make_scan(2, 11), make_scan(3, 14)]
    arguments = ([s[0][None] for s in supports], [s[1][None] for s in supports], label[None])
    protocol = VARIANTS[name] if name in VARIANTS else list(VARIANTS.values())
    inferer = FewShotVolumeInferer(protocol, CLASSES, batch_size=batch_size)
    shared, separate = TinySegmenter().eval(), SeparateSegmenter().eval()
    expected, found = (inferer(image[None], network, *arguments) for network in (shared, separate))
    for one, other in zip(*(r.values() if isinstance(r, dict) else [r] for r in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert (one != NOT_SEGMENTED).any()
    assert separate.encoded == shared.encoded
    assert max(count for _, count in separate.classified) <= batch_size
    if batch_size == 64:
        contexts = [str(context) for context, _ in separate.classified]
        assert len(set(contexts)) == len(contexts)


def test_adapted_networks_segment_volumes():
    """Each class is adapted to once, from its own episode; margins are those of the network on single slices."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    network = MetaLearnedSegmenter(base, InnerLoop(3, 0.5), DiceBCELoss()).eval()
    adapted = []
    network.encode_support = lambda image, label: (
        adapted.append(len(image)) or MetaLearnedSegmenter.encode_support(network, image, label)
    )
    image, label = make_scan(1, 9)
    supports = [make_scan(2, 8), make_scan(3, 10)]
    arguments = ([s[0][None] for s in supports], [s[1][None] for s in supports], label[None])
    protocol = SegmentationProtocol("adapted", 3, "volume", "all")
    inferer = FewShotVolumeInferer(protocol, CLASSES, image_size=(24, 20), batch_size=4)
    result = inferer(image[None], network, *arguments).as_tensor()[0]
    assert sum(adapted) == CLASSES
    again = inferer(image[None], network, *arguments).as_tensor()[0]
    assert torch.equal(again, result)
    assert sum(adapted) == CLASSES
    plain = plain_inference(
        protocol, image.as_tensor(), network, [(s[0].as_tensor(), s[1]) for s in supports], label, (24, 20)
    )
    torch.testing.assert_close(result, plain, rtol=1e-4, atol=1e-4)
    adapted.clear()
    network.inner = InnerLoop(4, 0.5)
    changed = inferer(image[None], network, *arguments).as_tensor()[0]
    assert sum(adapted) == CLASSES
    assert (changed - result).abs().max() > 0.01


@pytest.mark.parametrize("size", [(257, 257), (40, 63)])
@torch.no_grad()
def test_slices_of_any_size_are_resized_for_the_network_and_back(network, size):
    image, label = make_scan(1, 5, size)
    supports = [make_scan(2, 6, (257, 257)), make_scan(3, 7, (64, 50))]
    result = FewShotVolumeInferer("alpnet", CLASSES, image_size=(64, 64))(
        image[None], network, [s[0] for s in supports], [s[1] for s in supports], label[None]
    )
    plain = plain_inference(
        PROTOCOLS["alpnet"], image.as_tensor(), network, [(s[0].as_tensor(), s[1]) for s in supports], label, (64, 64)
    )
    assert torch.allclose(result.as_tensor()[0], plain, rtol=1e-5, atol=1e-5)


def test_several_protocols_give_what_each_gives_alone(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 12)), *batched(*make_scan(2, 13)))
    names = ["alpnet", "whole_volume", VARIANTS["average"], "senet"]
    arguments = (image, network, support_image[None], support_label[None], label)
    together = FewShotVolumeInferer(names, CLASSES)(*arguments)
    assert list(together) == ["alpnet", "whole_volume", "average", "senet"]
    for name, protocol in zip(together, names, strict=True):
        assert torch.allclose(together[name], FewShotVolumeInferer(protocol, CLASSES)(*arguments), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_label_maps_are_made_batch_by_batch(network, monkeypatch, batch_size):
    """They are those of the margins, of which no more than one batch of slices is ever there."""
    image, label, support_image, support_label = (*batched(*make_scan(1, 17)), *batched(*make_scan(2, 13)))
    names = ["alpnet", "whole_volume", VARIANTS["average"]]
    arguments = (image, network, support_image[None], support_label[None], label)
    inferer = FewShotVolumeInferer(names, CLASSES, batch_size=batch_size)
    margins, parts = inferer(*arguments), []
    monkeypatch.setattr("monai_fewshot.inferers.few_shot_inferer.check_margins", lambda part: parts.append(part.shape))
    monkeypatch.setattr(FewShotVolumeInferer, "segment", None)
    labels = inferer(*arguments, labels_only=True)
    assert list(labels) == list(margins)
    for name, found in labels.items():
        assert isinstance(found, MetaTensor)
        assert torch.equal(found.affine, margins[name].affine)
        assert torch.equal(found.as_tensor(), margins[name].argmax(1, keepdim=True).float().as_tensor())
        assert len(found.unique()) > 2
    assert max(shape[0] * shape[1] for shape in parts) == CLASSES * min(batch_size, 17)


def test_a_network_that_gives_no_numbers_is_told_for_label_maps_too(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 9)), *batched(*make_scan(2, 8)))
    network.encoder.weight.data[:] = torch.nan
    inferer = FewShotVolumeInferer("alpnet", CLASSES)
    for labels_only in (False, True):
        with pytest.raises(ValueError, match="values that are no numbers"):
            inferer(image, network, support_image[None], support_label[None], label, labels_only=labels_only)


def test_the_threshold_is_subtracted_where_the_protocol_segments(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 9)), *batched(*make_scan(2, 8)))
    arguments = (image, network, support_image[None], support_label[None], label)
    plain = FewShotVolumeInferer("alpnet", CLASSES)(*arguments)
    strict = FewShotVolumeInferer("alpnet", CLASSES, threshold=0.25)(*arguments)
    segmented = plain[:, 1:] != NOT_SEGMENTED
    torch.testing.assert_close(strict[:, 1:][segmented], plain[:, 1:][segmented] - 0.25)
    assert (strict[:, 1:][~segmented] == NOT_SEGMENTED).all()
    assert not strict[:, 0].any()


def test_each_slice_is_encoded_once(network):
    image, label = make_scan(1, 16)
    support_image, support_label = make_scan(2, 13)
    inferer = FewShotVolumeInferer("alpnet", CLASSES, batch_size=4)
    inferer(image[None], network, support_image[None, None], support_label[None, None], label[None])
    shots = [plain_shots(PROTOCOLS["alpnet"], [support_label], number) for number in range(1, CLASSES + 1)]
    expected = Counter(("support", 200.0 + z) for chunks in shots for chunk in chunks for _, z in chunk)
    held = [z for z in range(16) if (label[..., z] > 0).any()]
    expected.update(("query", 100.0 + z) for z in range(held[0], held[-1] + 1))
    assert network.encoded == expected


def test_protocols_share_the_encodings_of_the_query(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 9)), *batched(*make_scan(2, 8)))
    protocols = ["alpnet", "adnet_ep1", "whole_volume"]
    FewShotVolumeInferer(protocols, CLASSES)(image, network, support_image[None], support_label[None], label)
    assert {key: n for key, n in network.encoded.items() if key[0] == "query"} == {
        ("query", 100.0 + z): 1 for z in range(9)
    }


def test_a_second_query_does_not_encode_the_support_again(network):
    support_image, support_label = (tensor[None, None] for tensor in make_scan(2, 8))
    inferer = FewShotVolumeInferer("alpnet", CLASSES)
    fresh = {}
    for seed in (1, 4):
        image, label = batched(*make_scan(seed, 7))
        fresh[seed] = FewShotVolumeInferer("alpnet", CLASSES)(image, network, support_image, support_label, label)
    network.encoded.clear()
    for seed in (1, 4):
        image, label = batched(*make_scan(seed, 7))
        result = inferer(image, network, support_image.clone(), support_label.clone(), label)
        assert torch.equal(result, fresh[seed])
    counts = [n for (what, _), n in network.encoded.items() if what == "support"]
    assert sum(counts) == 9


def change_weight(network, arguments):
    with torch.no_grad():
        network.encoder.weight[0, 0, 0, 0] += 0.5


def change_weight_behind_autograd(network, arguments):
    network.encoder.bias.data[2] += 0.5


def load_weights(network, arguments):
    network.load_state_dict({key: value + 0.1 for key, value in network.state_dict().items()})


def change_image_in_place(network, arguments):
    arguments["support_image"] += 0.3


def change_image(network, arguments):
    arguments["support_image"] = arguments["support_image"] + 0.3


def change_label(network, arguments):
    arguments["support_label"] = arguments["support_label"].roll(1, dims=-3)


@pytest.mark.parametrize(
    "change",
    [change_weight, change_weight_behind_autograd, load_weights, change_image_in_place, change_image, change_label],
)
def test_a_changed_network_or_support_is_noticed(network, change):
    image, label = batched(*make_scan(1, 7))
    support_image, support_label = (tensor[None, None] for tensor in make_scan(2, 8))
    arguments = {"support_image": support_image, "support_label": support_label, "label": label}
    inferer = FewShotVolumeInferer("alpnet", CLASSES)
    before = inferer(image, network, **arguments)
    change(network, arguments)
    after = inferer(image, network, **arguments)
    assert not torch.equal(before, after)
    assert torch.equal(after, FewShotVolumeInferer("alpnet", CLASSES)(image, network, **arguments))


def test_a_changed_attribute_another_network_and_training_are_noticed(network):
    image, label = batched(*make_scan(1, 7))
    support_image, support_label = (tensor[None, None] for tensor in make_scan(2, 8))
    inferer = FewShotVolumeInferer("alpnet", CLASSES)

    def encodes_support(net):
        net.encoded.clear()
        inferer(image, net, support_image, support_label, label)
        return any(what == "support" for what, _ in net.encoded)

    network.window = (2, 2)
    assert encodes_support(network)
    assert not encodes_support(network)
    network.window = (2, 4)
    assert encodes_support(network)
    network.grid = torch.arange(6.0).view(2, 3)
    assert encodes_support(network)
    network.grid = network.grid.view(3, 2)
    assert encodes_support(network)
    assert not encodes_support(network)
    del network.grid
    assert encodes_support(network)
    other = TinySegmenter().eval()
    other.window = (2, 4)
    assert encodes_support(other)
    assert encodes_support(network)
    network.train()
    assert encodes_support(network)
    assert encodes_support(network)


@torch.no_grad()
def test_a_batch_of_queries_with_one_support_or_one_each(network):
    scans = [make_scan(seed, 9) for seed in (1, 4)]
    supports = [make_scan(seed, 8) for seed in (2, 3)]
    images, labels = (torch.stack([scan[i].as_subclass(torch.Tensor) for scan in scans]) for i in (0, 1))
    support_images, support_labels = (
        torch.stack([scan[i].as_subclass(torch.Tensor) for scan in supports])[:, None] for i in (0, 1)
    )
    inferer = FewShotVolumeInferer("alpnet", CLASSES)
    shared = inferer(images, network, support_images[:1], support_labels[:1], labels)
    own = inferer(images, network, support_images, support_labels, labels)
    listed = inferer(images, network, [support_images[:, 0]], [support_labels[:, 0]], labels)
    assert type(own) is torch.Tensor
    assert torch.equal(own, listed)
    for index in range(2):
        for result, used in ((shared, 0), (own, index)):
            support = [(support_images[used, 0], support_labels[used, 0])]
            plain = plain_inference(PROTOCOLS["alpnet"], images[index], network, support, labels[index])
            assert torch.allclose(result[index], plain, rtol=1e-5, atol=1e-5)


def test_it_serves_monais_evaluator_and_keeps_the_affine(network):
    def item(seed):
        image, label = make_scan(seed, 7)
        support_image, support_label = make_scan(9, 8)
        support = {"support_image": support_image.as_tensor()[None], "support_label": support_label[None]}
        return {"image": image, "label": MetaTensor(label, affine=image.affine), **support}

    outputs = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader([item(1), item(2)], batch_size=1),
        network=network,
        inferer=FewShotVolumeInferer("alpnet", CLASSES),
        prepare_batch=PrepareBatchExtraInput(["support_image", "support_label", "label"]),
        decollate=False,
    )
    evaluator.add_event_handler("ITERATION_COMPLETED", lambda engine: outputs.append(engine.state.output["pred"]))
    evaluator.run()
    for seed, output in zip((1, 2), outputs, strict=True):
        assert isinstance(output, MetaTensor)
        assert output.dtype == torch.float32
        assert torch.equal(decollate_batch(output)[0].affine, make_scan(seed, 7)[0].affine)
        assert output.affine[..., 0, 3].item() == seed


def test_autocast_is_respected(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 7)), *batched(*make_scan(2, 8)))
    arguments = (image, network, support_image[None], support_label[None], label)
    inferer = FewShotVolumeInferer("alpnet", CLASSES)
    full = inferer(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = inferer(*arguments)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert torch.equal(inferer(*arguments), full)


def test_no_graph_is_kept(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 7)), *batched(*make_scan(2, 8)))
    result = FewShotVolumeInferer("alpnet", CLASSES)(image, network, support_image[None], support_label[None], label)
    assert not result.requires_grad


def test_slices_beyond_the_expected_span_are_not_segmented(network):
    image, _ = make_scan(1, 20)
    support = [tensor[None, None] for tensor in make_scan(2, 20)]
    arguments = (image[None], network, *support)
    whole, near, aligned = (
        SegmentationProtocol(name, 1, "volume", "all", expected_span=span)
        for name, span in (("whole", None), ("near", "height"), ("aligned", "aligned"))
    )
    result = FewShotVolumeInferer([whole, near, aligned], CLASSES)(*arguments)
    assert (result["whole"] > NOT_SEGMENTED).all()
    inside = (result["near"][0, 2] > NOT_SEGMENTED).any(0).any(0)
    assert torch.nonzero(inside).flatten().tolist() == list(range(6, 12))
    assert torch.allclose(result["near"][0, 2, ..., 6:12], result["whole"][0, 2, ..., 6:12], atol=1e-5)
    assert torch.equal(result["aligned"], result["whole"]), "noise cannot be aligned"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_single_slice_is_a_volume(network, name):
    whole = ((0.0, 1.0),) * CLASSES
    image, label = make_scan(1, 1, spans=whole)
    support_image, support_label = make_scan(2, 1, spans=whole)
    arguments = (image[None], network, support_image[None, None], support_label[None, None], label[None])
    result = FewShotVolumeInferer(name, CLASSES)(*arguments)
    assert result.shape == (1, CLASSES + 1, 48, 40, 1)
    assert (result > NOT_SEGMENTED).all()
    for span in ("height", "aligned"):
        other = FewShotVolumeInferer(SegmentationProtocol("test", 3, "volume", "chunk", expected_span=span), CLASSES)(
            *arguments
        )
        assert torch.allclose(other, result, atol=1e-5)


def test_a_class_absent_from_the_query_is_not_segmented(network):
    image, label = make_scan(1, 9)
    label[label == 2] = 0
    support = [tensor[None, None] for tensor in make_scan(2, 8)]
    result = FewShotVolumeInferer("alpnet", CLASSES)(image[None], network, *support, label[None])
    assert (result[:, 2] == NOT_SEGMENTED).all()
    assert (result[:, 3] > NOT_SEGMENTED).any()
    network.encoded.clear()
    empty = FewShotVolumeInferer("alpnet", CLASSES)(image[None], network, *support, torch.zeros_like(label)[None])
    assert (empty[:, 1:] == NOT_SEGMENTED).all()
    assert not any(what == "query" for what, _ in network.encoded)


def test_a_class_that_one_of_two_support_scans_holds(network):
    image, label = make_scan(1, 9)
    first, second = make_scan(2, 8), make_scan(3, 8)
    first[1][first[1] == 2] = 0
    scans = ([scan[i] for scan in (first, second)] for i in (0, 1))
    result = FewShotVolumeInferer("alpnet", CLASSES)(image[None], network, *scans, label[None])
    alone = FewShotVolumeInferer("alpnet", CLASSES)(
        image[None], network, second[0][None, None], second[1][None, None], label[None]
    )
    assert torch.allclose(result[:, 2], alone[:, 2], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images_and_color(channels):
    network = TinySegmenter(channels).eval()
    support_image, support_label = make_scan(2, 8, channels=channels)
    result = FewShotVolumeInferer(
        ["whole_volume", SegmentationProtocol("aligned", 3, "volume", "average", expected_span="aligned")], CLASSES
    )(torch.full((1, channels, 48, 40, 6), 2.0), network, support_image[None, None], support_label[None, None])
    assert all(torch.isfinite(margins).all() for margins in result.values())


def remove_classes(arguments):
    label = arguments["support_label"]
    arguments["support_label"] = torch.where(label == 2, 0, label)


def few_pixels(arguments):
    label = torch.zeros_like(arguments["support_label"])
    label[..., 5:8, 5, 3], label[..., :20, 8, 3], label[..., :20, 9, 4] = 1, 2, 3
    arguments["support_label"] = label


def not_finite(key, value):
    def change(arguments):
        arguments[key] = arguments[key].clone()
        arguments[key][..., 3, 4, 5] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            remove_classes,
            r"support_label: no slice of the 1 support scan\(s\) holds 11 or more pixels of class\(es\) \[2\]",
        ),
        (few_pixels, r"11 or more pixels of class\(es\) \[1\], as protocol senet"),
        (lambda a: a.pop("label"), "label is missing: senet finds .* whole_volume"),
        (
            lambda a: a.update(label=a["label"][..., :-1]),
            r"label has shape \(1, 1, 48, 40, 6\).*ask for \(1, 1, 48, 40, 7\)",
        ),
        (lambda a: a.update(label=a["label"] + 1), "num_classes=3, found values .*4"),
        (lambda a: a.update(support_label=a["support_label"] * 2), "support_label of scan 0: .*found values .*6"),
        (
            lambda a: a.update(support_label=a["support_label"][..., :-2]),
            r"support_label of scan 0 has shape \(1, 48, 40, 6\), its support_image \(1, 48, 40, 8\)",
        ),
        (lambda a: a.update(support_image=a["support_image"].repeat(1, 1, 3, 1, 1, 1)), "3 channels, the query 1"),
        (lambda a: a.update(support_image=a["support_image"][0]), r"support_image must be \(B or 1, K, C, H, W, D\)"),
        (lambda a: a.update(support_image=a["support_image"].repeat(2, 1, 1, 1, 1, 1)), "beside 1 queries"),
        (lambda a: a.update(support_label=[a["support_label"][0, 0, 0]]), r"support_label\[0\] must be \(C, H, W, D\)"),
        (lambda a: a.update(support_label=[]), "support_image holds 1 scans, support_label 0"),
        (lambda a: a.update(inputs=a["inputs"][0]), r"inputs must be \(B, C, H, W, D\).*\(1, 48, 40, 7\)"),
        (not_finite("inputs", float("nan")), r"inputs holds 1 NaN or infinite values, the first at \(0, 0, 3, 4, 5\)"),
        (not_finite("support_image", float("inf")), "support_image of scan 0 holds 1 NaN or infinite values"),
    ],
)
def test_bad_input_is_explained(network, change, message):
    image, label = batched(*make_scan(1, 7))
    support_image, support_label = (tensor[None, None] for tensor in make_scan(2, 8))
    arguments = {"inputs": image, "support_image": support_image, "support_label": support_label, "label": label}
    change(arguments)
    with pytest.raises(ValueError, match=message):
        FewShotVolumeInferer(["senet", "alpnet", "adnet_ep2"], CLASSES)(network=network, **arguments)


class PooledSegmenter(PrototypeSegmenter):
    """Compares smoothed intensities with one prototype of each class, which all shots make together."""

    def __init__(self, num_classes=1):
        super().__init__(2, TinySegmenter().encoder, num_classes)
        self.encoded = Counter()

    def encode_query(self, image):
        self.encoded.update(float(slice_[0, 0, 0] * 128) for slice_ in image)
        return self.encoder(image)

    def pool_prototypes(self, features, masks):
        sums = torch.einsum("ekfhw,eknhw->enf", features, masks)
        return sums / masks.sum((1, 3, 4)).clamp(min=1e-3)[..., None]

    def scores(self, features, context):
        return -(features[:, None] - context[..., None, None]).square().sum(2)


@pytest.mark.parametrize("name", ["alpnet", "adnet_ep1", "adnet_ep2"])
@pytest.mark.parametrize("way", [2, 3])
@torch.no_grad()
def test_several_classes_are_segmented_at_once(name, way):
    """An episode holds the shots of all its classes, and a margin is over the highest of the other logits."""
    image, label = make_scan(1, 17)
    supports = [make_scan(2, 11), make_scan(3, 14)]
    network, protocol = PooledSegmenter(way).eval(), PROTOCOLS[name]
    inferer = FewShotVolumeInferer(protocol, batch_size=5, threshold=0.5)
    result = inferer(image[None], network, *([scan[i] for scan in supports] for i in (0, 1)), label[None])[0]
    labels = [scan[1] for scan in supports]
    shots = {number: plain_shots(protocol, labels, number) for number in (1, 2, 3)}
    chunks = {}
    for number in shots:
        held = [z for z in range(17) if (label[0, ..., z] == number).any()]
        chunks[number] = plain_chunks(protocol, held, 17)
    compared = 0
    for number, group in {1: (1, 2, 3)[:way], 3: (1, 2, 3)[-way:]}.items():
        for z in chunks[number]:
            if any(z not in chunks[other] for other in group):
                continue
            of_group = [shot for other in group for shot in shots[other][chunks[other][z]]]
            slices = list(dict.fromkeys(of_group))
            numbered = [torch.zeros_like(labels[k][..., place]) for k, place in slices]
            for target, (k, place) in zip(numbered, slices, strict=True):
                for channel, other in enumerate(group, 1):
                    target[labels[k][..., place] == other] = channel
            images = torch.stack([supports[k][0].as_tensor()[..., place] for k, place in slices])
            context = network.encode_support(images[None], torch.stack(numbered)[None])
            logits = network.segment(image.as_tensor()[None, ..., z], context)[0]
            channel = group.index(number) + 1
            others = torch.cat([logits[:channel], logits[channel + 1 :]]).amax(0)
            expected = logits[channel] - others - 0.5
            torch.testing.assert_close(result[number, ..., z].as_tensor(), expected, rtol=1e-4, atol=1e-4)
            compared += 1
        segmented = (result[number] > NOT_SEGMENTED).flatten(0, 1).any(0)
        assert torch.nonzero(segmented).flatten().tolist() == sorted(chunks[number])
    assert compared > 1


def test_a_slice_is_encoded_once_for_all_episodes_it_serves():
    image, label = make_scan(1, 9)
    supports = [make_scan(2, 8), make_scan(3, 10)]
    network = PooledSegmenter().eval()
    FewShotVolumeInferer(["alpnet", "senet"])(
        image[None], network, *([scan[i] for scan in supports] for i in (0, 1)), label[None]
    )
    labels = [scan[1] for scan in supports]
    shots = {
        shot
        for name in ("alpnet", "senet")
        for number in (1, 2, 3)
        for chunk in plain_shots(PROTOCOLS[name], labels, number)
        for shot in chunk
    }
    support = {key: count for key, count in network.encoded.items() if key >= 200}
    assert support == {100.0 * (2 + scan) + place: 1 for scan, place in shots}


def test_the_number_of_classes_is_that_of_the_support(network):
    image, label, support_image, support_label = (*batched(*make_scan(1, 7)), *batched(*make_scan(2, 8)))
    arguments = (image, network, support_image[None], support_label[None], label)
    assert torch.equal(FewShotVolumeInferer("alpnet")(*arguments), FewShotVolumeInferer("alpnet", CLASSES)(*arguments))
    with pytest.raises(ValueError, match="support_label holds no class above 0"):
        FewShotVolumeInferer("adnet_ep2")(image, network, support_image[None], 0 * support_label[None])


def test_a_reversed_stack_of_another_spacing_gives_the_same_mask(network):
    """Slices of the support are given from the other end, each twice and half as thick."""
    support_image, support_label = make_scan(2, 12)
    image = support_image.as_tensor() + 0.05 * make_scan(1, 12)[0].as_tensor()
    query = MetaTensor(image[None], affine=support_image.affine)
    protocol = SegmentationProtocol("test", 3, "volume", "all", expected_span="aligned")
    support = [support_image.as_tensor()[None, None], support_label[None, None]]
    plain = FewShotVolumeInferer(protocol)(query, network, *support, support_affine=support_image.affine[None, None])
    twice = [volume.flip(-1).repeat_interleave(2, -1) for volume in support]
    affine = support_image.affine.clone()
    affine[:3, 2] *= -0.5
    found = FewShotVolumeInferer(protocol)(query, network, *twice, support_affine=affine[None, None])
    segmented = [(result[0, 2] > NOT_SEGMENTED).flatten(0, 1).any(0) for result in (plain, found)]
    assert torch.equal(*segmented)
    assert not segmented[0].all()
    assert segmented[0].any()
    with pytest.raises(ValueError, match=r"support_affine must be \(B or 1, K, 4, 4\) beside 1 queries and 1"):
        FewShotVolumeInferer(protocol)(query, network, *support, support_affine=affine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"logits of shape \(\d+, 4, 48, 40\), not \(\d+, 2, 48, 40\)"),
        ({"way": 4}, "segments 4 classes at once, but the support has 3"),
    ],
)
def test_a_network_of_another_number_of_classes_is_refused(network, options, message):
    image, label, support_image, support_label = (*batched(*make_scan(1, 7)), *batched(*make_scan(2, 8)))
    network.classify = lambda features, context, size: torch.zeros(len(features), 4, *size)
    with pytest.raises(ValueError, match=message):
        FewShotVolumeInferer("alpnet", **options)(image, network, support_image[None], support_label[None], label)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "alpnet", "num_classes": 0}, "num_classes and batch_size must be 1 or more, got 0 and 16"),
        ({"protocol": "alpnet", "batch_size": 0}, "got 3 and 0"),
        ({"protocol": "alpnet", "image_size": (0, 256)}, r"image_size .*\(0, 256\)"),
        ({"protocol": "alpnet", "image_size": (256,)}, "image_size"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FewShotVolumeInferer(**{"num_classes": CLASSES, **arguments})
