# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Adapted networks against networks that ``torch.optim`` adapts, one image at a time through their own normalization.

In training mode, batch normalization of a single image is what the segmenter shall make of it.
"""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet, SegResNet, UNet
from torch import nn

from monai_fewshot.losses import DiceBCELoss
from monai_fewshot.meta import MAML, ImplicitMAML, InnerLoop, Reptile
from monai_fewshot.networks.nets import MetaLearnedSegmenter

EPISODES, SHOTS, QUERIES = 2, 2, 2
NETWORKS = {
    "AttentionUnet": (lambda: AttentionUnet(2, 1, 1, (4, 8), (2,)), (8, 8)),
    "UNet": (lambda: UNet(2, 1, 1, (4, 8, 8), (2, 2), num_res_units=1), (16, 16)),
    "UNet, 3D": (lambda: UNet(3, 1, 1, (4, 8), (2,), norm="batch"), (8, 8, 4)),
    "BasicUNet": (lambda: BasicUNet(2, 1, 1, (4, 4, 4, 4, 4, 4), norm="batch"), (32, 32)),
    "BasicUNetPlusPlus": (lambda: BasicUNetPlusPlus(2, 1, 1, (4, 4, 4, 4, 4, 4), norm="batch"), (32, 32)),
    "SegResNet": (lambda: SegResNet(2, 8, 1, 1, blocks_down=(1, 1), blocks_up=(1,)), (16, 16)),
    "DynUNet": (
        lambda: DynUNet(
            2, 1, 1, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 8), norm_name=("batch", {"affine": True})
        ),
        (16, 16),
    ),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
LOOP = InnerLoop(3, 0.05)


def build(name="AttentionUnet", inner=LOOP, **options):
    """A segmenter, and the network it is made of as it was."""
    torch.manual_seed(0)
    base = NETWORKS[name][0]().double()
    original = copy.deepcopy(base)
    return MetaLearnedSegmenter(base, inner, DiceBCELoss(), **options).double().eval(), original


def episodes(name="AttentionUnet", count=EPISODES, images=SHOTS, seed=0):
    """Images (E, K, 1, *S), and labels that are brighter in each episode."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn((count, images, 1, *NETWORKS[name][1]), generator=generator).double()
    threshold = torch.linspace(0, 1, count).view(-1, *[1] * (image.ndim - 1))
    return image, (image > threshold).double()


def of_single_images(network, images):
    """Logits of a network that sees one image at a time, in training mode."""
    network.train()
    logits = [network(image[None]) for image in images]
    return torch.cat([found[0] if isinstance(found, list) else found for found in logits])


def by_hand(original, image, label, inner=LOOP, factor=None):
    """Adapt a copy of a network with an optimizer of torch."""
    network = copy.deepcopy(original)
    start = [p.detach().clone() for p in network.parameters()]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[str(inner.optimizer)]
    groups = [
        {"params": [p], "lr": inner.lr * (1 if factor is None else factor[index])}
        for index, p in enumerate(network.parameters())
    ]
    optimizer = kind([group for group in groups if group["params"][0].requires_grad], lr=inner.lr)
    for _ in range(inner.steps):
        optimizer.zero_grad()
        distance = sum((p - s).square().sum() for p, s in zip(network.parameters(), start, strict=True))
        (DiceBCELoss()(of_single_images(network, image), label) + inner.proximal / 2 * distance).backward()
        optimizer.step()
    return network


def of_episode(context, index):
    return {name: p[index] for name, p in context.items()}


def assert_adapted_as(context, index, network, **tolerances):
    expected = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert context.keys() == expected.keys()
    for name, p in expected.items():
        torch.testing.assert_close(context[name][index], p.detach(), **tolerances)


def assert_same_tree(found, expected, **tolerances):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **tolerances)


def copied(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        *((name, LOOP) for name in NETWORKS),
        ("AttentionUnet", InnerLoop(1, 0.5)),
        ("AttentionUnet", InnerLoop(4, 0.05, proximal=2)),
        *((name, InnerLoop(3, 0.01, "adam")) for name in ("AttentionUnet", "UNet, 3D")),
    ],
    ids=str,
)
def test_adaptation_is_that_of_torch_optim(name, inner):
    """To a hundredth of a step for Adam, whose epsilon is within the root here."""
    segmenter, original = build(name, inner)
    image, label = episodes(name)
    context = segmenter.encode_support(image, label)
    slack = 1e-4 if inner.optimizer == "adam" else 1e-7
    for index in range(EPISODES):
        expected = by_hand(original, image[index], label[index], inner)
        assert_adapted_as(context, index, expected, rtol=1e-5, atol=slack)


@pytest.mark.parametrize(
    ("name", "inner"),
    [*((name, LOOP) for name in NETWORKS), ("AttentionUnet", InnerLoop(4, 0.01, "adam", proximal=2))],
    ids=str,
)
def test_adapted_networks_segment_as_those_that_torch_adapts(name, inner):
    segmenter, original = build(name, inner)
    support, query = episodes(name), episodes(name, images=QUERIES, seed=1)[0]
    logits = segmenter(query.flatten(0, 1), *support)
    assert logits.shape == (EPISODES * QUERIES, 2, *query.shape[3:])
    assert not logits[:, 0].any()
    slack = 1e-4 if inner.optimizer == "adam" else 1e-7
    for index, (image, label) in enumerate(zip(*support, strict=True)):
        expected = of_single_images(by_hand(original, image, label, inner), query[index]).detach()
        torch.testing.assert_close(logits[QUERIES * index :][:QUERIES, 1:], expected, rtol=1e-5, atol=slack)


@every_network
def test_adaptation_lowers_the_loss_of_each_support(name):
    segmenter, _ = build(name, InnerLoop(10, 0.02))
    support = episodes(name)
    context = segmenter.encode_support(*support)
    for index in range(EPISODES):
        task = (support[0][index], support[1][index])
        assert segmenter.task_loss(of_episode(context, index), task) < segmenter.task_loss(segmenter.start, task) - 0.01


def judged(segmenter, support, query, moved):
    """Mean loss on the query of a network that torch has adapted from other weights, not differentiated."""
    segmenter = copy.deepcopy(segmenter)
    with torch.no_grad():
        for p, by in zip(segmenter.start.values(), moved, strict=True):
            p += by
    context = segmenter.encode_support(*support)
    losses = [segmenter.task_loss(of_episode(context, i), (query[0][i], query[1][i])) for i in range(EPISODES)]
    return torch.stack(losses).mean()


@every_network
def test_the_meta_gradient_is_the_slope_of_the_loss_after_adaptation(name):
    """Central differences along a random direction."""
    segmenter, _ = build(name, InnerLoop(2, 0.05))
    support, query = episodes(name), episodes(name, images=QUERIES, seed=1)
    step = MAML(segmenter.inner)(segmenter.task_loss, segmenter.start, support, query)
    torch.manual_seed(1)
    direction = [torch.randn_like(p) for p in segmenter.start.values()]
    slope = sum((g * d).sum() for g, d in zip(step.parameters.values(), direction, strict=True))
    ahead, behind = (judged(segmenter, support, query, [sign * 1e-8 * d for d in direction]) for sign in (1, -1))
    assert abs(slope) > 1e-3
    torch.testing.assert_close((ahead - behind) / 2e-8, slope, rtol=1e-5, atol=1e-6)
    assert step.sound.all()


@every_network
@pytest.mark.parametrize(
    "method",
    [lambda loop: MAML(loop, first_order=True), lambda loop: ImplicitMAML(loop, max_steps=2), Reptile],
    ids=["first order", "implicit", "reptile"],
)
def test_every_method_has_a_meta_gradient_for_every_network(name, method):
    segmenter, _ = build(name, InnerLoop(2, 0.05, proximal=2.0))
    before = copied(segmenter)
    support, query = episodes(name), episodes(name, images=QUERIES, seed=1)
    step = method(segmenter.inner)(segmenter.task_loss, segmenter.start, support, query)
    assert step.sound.all()
    assert step.parameters.keys() == segmenter.start.keys()
    assert sum(g.abs().sum() for g in step.parameters.values()) > 0.01
    assert_same_tree(segmenter.state_dict(), before, rtol=0, atol=0)


@every_network
def test_nothing_of_a_task_is_left_in_the_network(name):
    segmenter, _ = build(name)
    before, identities = copied(segmenter), [id(p) for p in segmenter.parameters()]
    support, query = episodes(name), episodes(name, images=1, seed=1)[0]
    first = segmenter(query[:, 0], *support)
    segmenter(query[:1, 0], *episodes(name, count=1, seed=2))
    segmenter.task_loss(of_episode(segmenter.encode_support(*support), 0), (support[0][0], support[1][0]))
    assert_same_tree(segmenter.state_dict(), before, rtol=0, atol=0)
    assert [id(p) for p in segmenter.parameters()] == identities
    assert all(p.grad is None and p.requires_grad for p in segmenter.parameters())
    assert torch.equal(segmenter(query[:, 0], *support), first)


@pytest.mark.parametrize("name", ["AttentionUnet", "DynUNet", "SegResNet"])
@pytest.mark.parametrize("bad", [None, torch.nan])
def test_episodes_together_are_adapted_as_each_alone(name, bad):
    segmenter, _ = build(name)
    image, label = episodes(name, count=3)
    alone = [segmenter.encode_support(image[[i]], label[[i]]) for i in (0, 2)]
    image[1] = 100 * image[1] if bad is None else bad
    together = segmenter.encode_support(image, label)
    for index, context in zip((0, 2), alone, strict=True):
        assert_same_tree({n: p[[index]] for n, p in together.items()}, context, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["AttentionUnet", "DynUNet", "UNet, 3D"])
def test_contexts_with_their_queries_segment_as_each_alone(name):
    segmenter, _ = build(name)
    context = segmenter.encode_support(*episodes(name, count=3))
    query = episodes(name, count=3, images=4, seed=1)[0]
    together = segmenter.segment(query.flatten(0, 1), context).unflatten(0, (3, 4))
    for index in range(3):
        one = {n: p[[index]] for n, p in context.items()}
        shared = segmenter.segment(query[index], one)
        torch.testing.assert_close(together[index], shared)
        for place in range(4):
            torch.testing.assert_close(segmenter.segment(query[index, [place]], one), shared[[place]])


def test_logits_of_another_size_are_interpolated():
    segmenter, _ = build()
    context = segmenter.encode_support(*episodes())
    query = episodes(seed=1)[0].flatten(0, 1)
    larger = segmenter.classify(segmenter.encode_query(query), context, (13, 20))
    expected = nn.functional.interpolate(segmenter.segment(query, context), (13, 20), mode="bilinear")
    torch.testing.assert_close(larger, expected)


def test_several_classes_and_ignored_pixels():
    torch.manual_seed(0)
    original = UNet(2, 1, 2, (4, 8), (2,), norm="batch").double()
    segmenter = MetaLearnedSegmenter(copy.deepcopy(original), LOOP, DiceBCELoss()).eval()
    image, _ = episodes()
    label = (image > 0).double() + (image > 0.7)
    label[:, 0, :, :3] = 255
    logits = segmenter(image[:, 0], image, label)
    assert logits.shape == (EPISODES, 3, 8, 8)
    assert not logits[:, 0].any()
    for index in range(EPISODES):
        expected = of_single_images(by_hand(original, image[index], label[index]), image[index, :1]).detach()
        torch.testing.assert_close(logits[[index], 1:], expected)


def test_parameters_that_need_no_gradient_stay():
    segmenter, original = build()
    for network in (segmenter.base, original):
        for p in list(network.parameters())[:4]:
            p.requires_grad = False
    image, label = episodes()
    context = segmenter.encode_support(image, label)
    assert len(context) == len(list(original.parameters())) - 4
    assert_adapted_as(context, 1, by_hand(original, image[1], label[1]), rtol=1e-6, atol=1e-9)
    query = episodes(images=1, seed=1)[0][:, 0]
    expected = of_single_images(by_hand(original, image[1], label[1]), query[[1]])
    torch.testing.assert_close(segmenter.segment(query, context)[[1], 1:], expected.detach())


def test_a_parameter_in_two_places_is_one():
    torch.manual_seed(0)

    def tied():
        network = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh(), nn.Conv2d(1, 1, 3, padding=1)).double()
        network[2].weight = network[0].weight
        return network

    base = tied()
    original = tied()
    original.load_state_dict(base.state_dict())
    segmenter = MetaLearnedSegmenter(base, LOOP, DiceBCELoss())
    image, label = episodes()
    context = segmenter.encode_support(image, label)
    assert set(context) == {"0.weight", "0.bias", "2.bias"}
    assert_adapted_as(context, 0, by_hand(original, image[0], label[0]))


def test_a_network_may_be_a_single_layer():
    torch.manual_seed(0)
    base = nn.Conv2d(1, 1, 3, padding=1).double()
    original = copy.deepcopy(base)
    image, label = episodes()
    context = MetaLearnedSegmenter(base, LOOP, DiceBCELoss()).encode_support(image, label)
    assert_adapted_as(context, 0, by_hand(original, image[0], label[0]))


def test_dropout_is_off_from_the_beginning_and_in_every_mode():
    torch.manual_seed(0)
    segmenter = MetaLearnedSegmenter(UNet(2, 1, 1, (4, 8), (2,), dropout=0.5), LOOP, DiceBCELoss()).double()
    support, query = episodes(), episodes(images=1, seed=1)[0][:, 0]
    found = []
    for mode in (None, True, False, True):
        if mode is not None:
            assert segmenter.train(mode) is segmenter
            assert segmenter.training is mode
        assert not any(module.training for module in segmenter.base.modules())
        output = segmenter(query, *support)
        found.append(output.logits if segmenter.training else output)
    assert all(torch.equal(logits, found[0]) for logits in found)


def test_rates_are_factors_of_the_steps():
    plain, original = build()
    learned, _ = build(learn_rates=True)
    support = episodes()
    assert_same_tree(learned.encode_support(*support), plain.encode_support(*support), rtol=0, atol=0)
    assert [r.shape for r in learned.rate_factors.values()] == [p.shape for p in learned.start.values()]
    assert plain.rate_factors == {}
    factors = torch.linspace(0, 3, len(learned.rates)).tolist()
    with torch.no_grad():
        for rate, factor in zip(learned.rates, factors, strict=True):
            rate.fill_(factor)
    context = learned.encode_support(*support)
    assert torch.equal(context[next(iter(context))][0], next(iter(learned.start.values())))
    expected = by_hand(original, support[0][1], support[1][1], factor=factors)
    assert_adapted_as(context, 1, expected, rtol=1e-6, atol=1e-9)


def test_rates_have_a_meta_gradient():
    segmenter, _ = build(learn_rates=True)
    query = episodes(seed=1)
    step = MAML(LOOP)(segmenter.task_loss, segmenter.start, episodes(), query, segmenter.rate_factors)
    assert step.rates.keys() == segmenter.start.keys()
    assert all(g.isfinite().all() and g.shape == segmenter.start[n].shape for n, g in step.rates.items())
    assert sum(g.abs().sum() for g in step.rates.values()) > 0


@pytest.mark.parametrize("learn_rates", [False, True])
def test_state_dict_round_trip(learn_rates):
    segmenter, _ = build(learn_rates=learn_rates)
    with torch.no_grad():
        for p in segmenter.parameters():
            p += 0.1 * torch.rand_like(p)
    other, _ = build(learn_rates=learn_rates)
    support, query = episodes(), episodes(images=1, seed=1)[0][:, 0]
    expected = segmenter(query, *support)
    assert not torch.equal(other(query, *support), expected)
    other.load_state_dict(segmenter.state_dict())
    assert torch.equal(other(query, *support), expected)
    assert torch.equal(copy.deepcopy(segmenter)(query, *support), expected)
    assert not [name for name in segmenter.state_dict() if "running" in name or "num_batches" in name]


def test_initial_weights_of_a_checkpoint(tmp_path):
    """Of the same network, whose running statistics have no place any more."""
    torch.manual_seed(5)
    trained = NETWORKS["AttentionUnet"][0]()
    trained(torch.rand(4, 1, 8, 8))
    torch.save({"state_dict": {f"module.{n}": t for n, t in trained.state_dict().items()}}, tmp_path / "weights.pt")
    segmenter, _ = build(weights=tmp_path / "weights.pt")
    assert_same_tree(segmenter.start, dict(trained.double().named_parameters()), rtol=0, atol=0)
    with pytest.raises(FileNotFoundError, match=r"no weight file .*absent\.pt"):
        build(weights=tmp_path / "absent.pt")


def test_it_adapts_where_gradients_are_off():
    segmenter, _ = build()
    support, query = episodes(), episodes(images=1, seed=1)[0][:, 0]
    expected = segmenter(query, *support)
    with torch.no_grad():
        assert torch.equal(segmenter(query, *support), expected)
    with torch.inference_mode():
        torch.testing.assert_close(segmenter(query, *support), expected)
    assert not any(p.requires_grad for p in segmenter.encode_support(*support).values())


def test_a_support_without_foreground():
    segmenter, _ = build()
    image, label = episodes(count=3)
    label[1] = 0
    label[2, 0] = 0
    message = "support of episode 1 has no foreground, nothing can be learned from it: is the mask empty, or too small"
    with pytest.raises(ValueError, match=message):
        segmenter.encode_support(image, label)
    label[2] = 0
    with pytest.raises(ValueError, match="support of episode 1, 2 has no foreground"):
        segmenter.encode_support(image, label)
