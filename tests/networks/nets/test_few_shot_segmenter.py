# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What holds for every method: outputs by name, and E supports for B queries."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator, SupervisedTrainer
from monai.networks.nets import BasicUNet
from process_groups import in_two_processes
from torch.nn.parallel import DistributedDataParallel

from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.losses import DiceBCELoss, EpisodeLoss
from monai_fewshot.meta import InnerLoop
from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import (
    ADNet,
    ALPNet,
    FewShotSENet,
    MaskSplitNet,
    MetaLearnedSegmenter,
    PANet,
    PrototypeSegmenter,
    SurrogateNetwork,
    TiledPrototypeNet,
)

NEEDED = {"ADNet": {"support_logits", "auxiliary_loss"}, "ALPNet": {"support_logits"}, "PANet": {"support_logits"}}
"""What the losses of methods need beside logits."""
NETWORKS = {
    "ADNet": lambda: ADNet(2, _encoder()),
    "ALPNet": lambda: ALPNet(2, _encoder(), train_window=2),
    "FewShotSENet": lambda: FewShotSENet(2, 1, 1, 2, 4, 2, 3),
    "MaskSplitNet": lambda: MaskSplitNet(2, _encoder(), 1, 8, (8, 8), freeze_encoder=False),
    "MaskSplitNet, predictions": lambda: MaskSplitNet(2, _encoder(), 1, 8, (8, 8), False, "predictions"),
    "MetaLearnedSegmenter": lambda: MetaLearnedSegmenter(
        BasicUNet(2, 1, 1, features=(4, 4, 8, 8, 8, 4)), InnerLoop(2, 0.1), DiceBCELoss()
    ),
    "PANet": lambda: PANet(2, _encoder()),
    "SurrogateNetwork": lambda: SurrogateNetwork(TiledPrototypeNet(2, _encoder(), channels=(8, 4))),
    "TiledPrototypeNet": lambda: TiledPrototypeNet(2, _encoder(), channels=(8, 4)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def _encoder():
    return UNetEncoder(2, 1, (4, 8), 6)


def _network(name):
    torch.manual_seed(0)
    return NETWORKS[name]()


def _episodes(queries=6, episodes=3, shots=2, size=(32, 36)):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(queries, 1, *size, generator=generator)
    support = torch.randn(episodes, shots, 1, *size, generator=generator)
    label = torch.zeros(episodes, shots, 1, *size)
    for episode in range(episodes):
        label[episode, :, :, 4 + 2 * episode : 20, 6 : 26 + episode] = 1
    return image, support, label


@every_network
def test_outputs_are_named_in_training_and_plain_logits_in_evaluation(name):
    network, episode = _network(name), _episodes()
    output = network.train()(*episode)
    assert isinstance(output, TrainingOutput)
    assert output.logits.shape == (6, 2, 32, 36)
    given = {field for field, value in output._asdict().items() if value is not None}
    assert given == {"logits", *NEEDED.get(name, ())}
    logits = network.eval()(*episode)
    assert type(logits) is torch.Tensor
    assert logits.shape == (6, 2, 32, 36)


@every_network
def test_an_episode_serves_its_consecutive_queries(name):
    network, (image, support, label) = _network(name).eval(), _episodes()
    shared = network(image, support, label)
    context = network.encode_support(support, label)
    torch.testing.assert_close(network.segment(image, context), shared, atol=1e-4, rtol=1e-4)
    rows = torch.arange(6) // 2
    torch.testing.assert_close(network(image, support[rows], label[rows]), shared, atol=1e-4, rtol=1e-4)
    for episode in range(3):
        own = slice(2 * episode, 2 * episode + 2)
        alone = network(image[own], support[[episode]], label[[episode]])
        torch.testing.assert_close(alone, shared[own], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("episodes", [1, 3])
@pytest.mark.parametrize("name", NEEDED)
def test_every_query_segments_the_support_of_its_episode(name, episodes):
    network, (image, support, label) = _network(name), _episodes(episodes=episodes)
    rows = torch.arange(6) * episodes // 6
    shared, repeated = network(image, support, label), network(image, support[rows], label[rows])
    torch.testing.assert_close(shared, repeated, atol=1e-4, rtol=1e-4)
    assert shared.support_logits.shape == (6, 2, 2, 32, 36)
    losses = [
        EpisodeLoss()(output, TrainingTarget((image > 0).float(), own))
        for output, own in ((shared, label), (repeated, label[rows]))
    ]
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)


SHAPES = [
    (
        ((2, 1, 8, 8), (2, 1, 8, 8), (2, 1, 1, 8, 8)),
        r"support_image \(2, 1, 8, 8\) and support_label \(2, 1, 1, 8, 8\)",
    ),
    (((2, 1, 8, 8), (2, 1, 1, 8, 8), (2, 1, 1, 8, 9)), r"\(2, 1, 1, 8, 9\) do not fit: expected \(E, K, C, \*S\)"),
    (((2, 1, 8, 8), (2, 2, 1, 8, 8), (2, 1, 1, 8, 8)), r"\(2, 2, 1, 8, 8\) and support_label \(2, 1, 1, 8, 8\)"),
    (((2, 1, 8, 8), (2, 1, 1, 8, 8), (2, 1, 2, 8, 8)), r"and \(E, K, 1, \*S\) with 2 or 3 spatial dimensions"),
    (
        ((3, 1, 8, 8), (2, 1, 1, 8, 8), (2, 1, 1, 8, 8)),
        r"\(2, 1, 1, 8, 8\) do not fit queries \(3, 1, 8, 8\): expected",
    ),
    (((2, 1, 8, 9), (2, 1, 1, 8, 8), (2, 1, 1, 8, 8)), r"\(E, K, C, \*S\) beside \(B, C, \*S\), where E divides B"),
    (((2, 3, 8, 8), (2, 1, 1, 8, 8), (2, 1, 1, 8, 8)), r"do not fit queries \(2, 3, 8, 8\)"),
    (((2, 2, 1, 8, 8), (2, 1, 1, 8, 8), (2, 1, 1, 8, 8)), r"do not fit queries \(2, 2, 1, 8, 8\)"),
]


@pytest.mark.parametrize(("shapes", "message"), SHAPES)
@every_network
def test_shapes_that_do_not_fit(name, shapes, message):
    network, tensors = _network(name), [torch.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        network(*tensors)
    if "queries" not in message and "divides" not in message:
        with pytest.raises(ValueError, match=message):
            network.encode_support(*tensors[1:])


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "MetaLearnedSegmenter"])
def test_a_context_that_cannot_be_dealt_out(name):
    network, (image, support, label) = _network(name).eval(), _episodes()
    context = network.encode_support(support[:2], label[:2])
    with pytest.raises(ValueError, match="5 queries cannot be dealt out to 2 episodes"):
        network.segment(image[:5], context)


@pytest.mark.parametrize("name", ["ADNet", "PANet", "MaskSplitNet", "SurrogateNetwork"])
def test_a_step_compiles_as_one_graph_that_gives_the_same(name):
    network, episode = _network(name), _episodes()
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*episode), network(*episode), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ADNet", "FewShotSENet", "MaskSplitNet", "TiledPrototypeNet"])
def test_evaluation_exports(name):
    network, episode = _network(name).eval(), _episodes()
    with torch.no_grad():
        exported = torch.export.export(network, episode)
        torch.testing.assert_close(exported.module()(*episode), network(*episode), atol=1e-4, rtol=1e-4)


def test_outputs_keep_their_names_in_mixed_precision():
    network, episode = _network("ADNet"), _episodes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(*episode)
    assert output.logits.dtype == output.support_logits.dtype == torch.float32
    torch.testing.assert_close(output, network(*episode), atol=1.0, rtol=0)


@pytest.mark.parametrize("decollate", [False, True])
@pytest.mark.parametrize("name", ["ADNet", "FewShotSENet"])
def test_monais_engines_train_and_evaluate(name, decollate):
    network, (image, support, label) = _network(name), _episodes(2, 2)
    names = ("image", "label", "support_image", "support_label")
    items = [dict(zip(names, parts, strict=True)) for parts in zip(image, label[:, 0], support, label, strict=True)]
    common = {"device": torch.device("cpu"), "network": network, "decollate": decollate}
    trainer = SupervisedTrainer(
        max_epochs=1,
        train_data_loader=torch.utils.data.DataLoader(items, batch_size=2),
        optimizer=torch.optim.SGD(network.parameters(), 0.1),
        loss_function=EpisodeLoss(),
        prepare_batch=PrepareBatchEpisode(),
        **common,
    )
    before = [p.clone() for p in network.parameters()]
    trainer.run()
    assert any(not torch.equal(*pair) for pair in zip(network.parameters(), before, strict=True))
    evaluator = SupervisedEvaluator(
        val_data_loader=torch.utils.data.DataLoader(items, batch_size=2),
        prepare_batch=PrepareBatchExtraInput(["support_image", "support_label"]),
        **common,
    )
    evaluator.run()
    outputs = evaluator.state.output if decollate else [{"pred": p} for p in evaluator.state.output["pred"]]
    assert [tuple(output["pred"].shape) for output in outputs] == [(2, 32, 36)] * 2


def _gradients(rank, _folder):
    found = {}
    for name in ("ADNet", "FewShotSENet"):
        network = _network(name)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        wrapped = DistributedDataParallel(network)
        image, support, label = _episodes(4, 2)
        own, queries = slice(rank, rank + 1), slice(2 * rank, 2 * rank + 2)
        target = TrainingTarget((image[queries] > 0).float(), label[own])
        EpisodeLoss()(wrapped(image[queries], support[own], label[own]), target).backward()
        found[name] = {key: p.grad.numpy() for key, p in network.named_parameters()}
    assert dist.get_world_size() == 2
    return found


def test_two_processes_have_the_gradients_of_one(tmp_path):
    first, second = in_two_processes(_gradients, tmp_path)
    for name, gradients in first.items():
        network = _network(name)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        image, support, label = _episodes(4, 2)
        EpisodeLoss()(network(image, support, label), TrainingTarget((image > 0).float(), label)).backward()
        for key, parameter in network.named_parameters():
            torch.testing.assert_close(torch.from_numpy(gradients[key]), parameter.grad, atol=1e-5, rtol=1e-4, msg=key)
            assert (gradients[key] == second[name][key]).all()


def test_a_method_without_scores_has_to_decode():
    class Neither(PrototypeSegmenter):
        def pool_prototypes(self, features, masks):
            return features

    with pytest.raises(NotImplementedError, match="Neither has no scores: implement them, or classify without align"):
        Neither(2, _encoder())(*_episodes())
