# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy

import pytest
import torch
import torch._inductor.lowering
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._inductor.decomposition import select_decomp_table

from monai_fewshot.losses import EpisodeLoss
from monai_fewshot.networks import network_preparation, prepare_network
from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.networks.encoders import DilatedResNetEncoder, UNetEncoder, VGG16Encoder
from monai_fewshot.networks.nets import ALPNet
from monai_fewshot.utils import compiler_error

ENCODERS = {
    "unet": lambda: UNetEncoder(channels=(4, 8, 8), out_channels=6),
    "unet, batch norm": lambda: UNetEncoder(channels=(4, 8), out_channels=6, norm="batch"),
    "resnet": lambda: DilatedResNetEncoder(18, out_channels=8),
    "vgg": lambda: VGG16Encoder(num_blocks=4, stride=4, batch_norm=True),
}


def _episodes(seed=0, batch=2, size=64):
    generator = torch.Generator().manual_seed(seed)
    image, support = (torch.rand(batch, 1, size, size, generator=generator) for _ in range(2))
    label = torch.zeros(batch, 1, size, size)
    label[:, :, 10:40, 16:48] = 1
    return (image, support[:, None], label[:, None]), TrainingTarget(label, label[:, None])


def _step(network, seed=0, size=64):
    inputs, targets = _episodes(seed, size=size)
    loss = EpisodeLoss(0.1)(network(*inputs), targets)
    loss.backward()
    return loss.item()


def _network(encoder):
    torch.manual_seed(0)
    return ALPNet(2, ENCODERS[encoder](), train_window=2)


def _gradients(network):
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_checkpointing_changes_neither_gradients_nor_statistics(encoder):
    plain, thrifty = _network(encoder), _network(encoder)
    assert prepare_network(thrifty, "cpu", checkpointing=True) is thrifty
    for network in (plain, thrifty):
        _step(network)
    for (name, one), two in zip(plain.state_dict().items(), thrifty.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, msg=name)
    for name, gradient in _gradients(plain).items():
        torch.testing.assert_close(gradient, _gradients(thrifty)[name], msg=name)


def _kept_for_backward(network):
    """Numbers that a forward pass keeps, the weights aside."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept = {}

    def count(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        features = network.encoder(_episodes()[0][0])
    return sum(kept.values()), features


@pytest.mark.parametrize("encoder", ENCODERS)
def test_checkpointing_keeps_less(encoder):
    network = _network(encoder)
    plain, _features = _kept_for_backward(network)
    thrifty, _features = _kept_for_backward(prepare_network(network, "cpu", checkpointing=True))
    assert thrifty < 0.6 * plain


@pytest.mark.parametrize(
    ("encoder", "checkpointing"), [*((name, False) for name in ENCODERS), ("unet", True), ("unet, batch norm", True)]
)
def test_a_step_compiles_as_one_graph_once_and_scatters_no_gradient(encoder, checkpointing):
    operators = set()

    def record(graph, inputs):
        operators.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    network, reference = prepare_network(_network(encoder), "cpu", checkpointing=checkpointing), _network(encoder)
    torch._dynamo.reset()
    graphs, autograd = [], aot_autograd(fw_compiler=record, bw_compiler=record, decompositions=select_decomp_table())

    def backend(graph, inputs):
        graphs.append(graph)
        return autograd(graph, inputs)

    compiled = torch.compile(network, backend=backend, fullgraph=True)
    loss = torch.compile(EpisodeLoss(0.1), backend=backend, fullgraph=True)
    for seed in (1, 2, 0):
        network.zero_grad()
        inputs, targets = _episodes(seed)
        loss(compiled(*inputs), targets).backward()
    assert len(graphs) == 2, "the network and the loss, each once"
    assert [name for name in operators if "index_put" in name] == []
    _step(reference)
    for name, gradient in _gradients(reference).items():
        assert (_gradients(network)[name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-4, name


@pytest.mark.slow
@pytest.mark.skipif(compiler_error(torch.device("cpu")) is not None, reason="torch.compile has no C++ compiler")
def test_the_defaults_of_a_gpu_train_as_eagerly(monkeypatch, tmp_path):
    """Compiled for real and with channels innermost, at the size at which scattered gradients went wrong."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = ALPNet(2, UNetEncoder(2, 1, channels=(8, 16), norm="instance"), train_window=8)
    network = prepare_network(copy.deepcopy(plain), "cpu", channels_last=True, compile=True)
    assert _step(network, size=128) == pytest.approx(_step(plain, size=128), rel=1e-4)
    for name, gradient in _gradients(plain).items():
        assert (_gradients(network)[name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-4, name


@pytest.fixture
def compiled(monkeypatch):
    """Networks that were compiled, with their options."""
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: calls.append((self, options)))
    return calls


def test_names_stay_when_compiled_in_place(compiled):
    network = _network("unet")
    names = list(network.state_dict())
    prepare_network(network, "cpu")
    assert not compiled
    prepare_network(network, "cpu", compile=True)
    assert compiled == [(network, {"fullgraph": True})]
    assert list(network.state_dict()) == names


def test_channels_last_gives_the_same():
    network = _network("unet")
    other = prepare_network(copy.deepcopy(network), "cpu", channels_last=True)
    weight = other.encoder.stem[1].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert _step(network) == pytest.approx(_step(other), abs=1e-5)


@pytest.fixture
def gpu(monkeypatch, compiled):
    """A pretended GPU that can compile: networks are not moved there."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: self)
    monkeypatch.setattr(network_preparation, "compiler_error", lambda device: None)


def test_a_gpu_has_channels_last_and_compiles(gpu, compiled):
    network = prepare_network(_network("unet"), "cuda")
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.ndim == 4)
    assert compiled == [(network, {"fullgraph": True})]


def test_a_gpu_that_cannot_compile_does_without(gpu, monkeypatch, compiled, caplog):
    monkeypatch.setattr(network_preparation, "compiler_error", lambda device: "no Triton")
    prepare_network(_network("unet"), "cuda")
    assert compiled == []
    assert "not compiled, which makes training slower: no Triton" in caplog.text


def test_a_gpu_takes_3d_networks(gpu, compiled):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.Conv3d(4, 4, 3))
    prepare_network(network, "cuda")
    assert network[1].weight.is_contiguous()
    assert compiled == [(network, {"fullgraph": True})]
    prepare_network(network, "cuda", channels_last=True)
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_synchronized_normalization_is_not_compiled_as_one_graph(gpu, compiled):
    network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(_network("unet, batch norm"))
    prepare_network(network, "cuda")
    assert compiled == []
    prepare_network(network, "cuda", compile=True)
    assert compiled == [(network, {"fullgraph": False})]


def test_nothing_to_checkpoint():
    network = ALPNet(2, torch.nn.Conv2d(1, 4, 3, stride=2, padding=1))
    with pytest.raises(ValueError, match="ALPNet has no FeatureEncoder whose activations could be checkpointed"):
        prepare_network(network, "cpu", checkpointing=True)
