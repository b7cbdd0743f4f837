# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Training steps and inference on a GPU that is only pretended: tensors there have a place and a shape, but no values.

    python tests/helpers/pretended_gpu.py

prints, as JSON, what each step waited for on the host, and the error where one failed: a tensor on the wrong device, or
a value that was asked for. A process of its own, for the device is registered with torch for good.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from torch.utils.data import default_collate

from monai_fewshot.data import (
    AnnotatedEpisodes,
    ExemplarSamples,
    MaskSplitEpisodes,
    PseudoLabelEpisodes,
    SliceStack,
    SurrogateEpisodes,
    TaskEpisodes,
)
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.engines.exemplar_training import PrepareBatchSamples
from monai_fewshot.inferers import FewShotVolumeInferer
from monai_fewshot.inferers.support_encoding import SupportScan
from monai_fewshot.inferers.volume_inferer import QueryScan
from monai_fewshot.losses import EpisodeLoss, ExemplarLoss, SurrogateLoss
from monai_fewshot.meta import MAML, InnerLoop
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import (
    ADNet,
    ALPNet,
    EmbeddingNetwork,
    FewShotSENet,
    MaskSplitNet,
    MetaLearnedSegmenter,
    PANet,
    SurrogateNetwork,
    TiledPrototypeNet,
)
from monai_fewshot.transforms import (
    Denoising,
    EpisodeAugmentation,
    NormalizeChannels,
    RandAffineElastic,
    RandColorJitter,
    RandExemplarSynthesis,
    RandMaskSplit,
)


class BackendModule(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("gpu", BackendModule())
GPU = torch.device("gpu", 0)
SIZE = 32
SCALARS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal")


class PretendedGpu(FakeTensorMode):
    """Fake tensors that are never computed, not even small constants on their way to the device."""

    avoid_device_init = True


class Waits(TorchDispatchMode):
    """Lists the operations for which the host would wait for the device, with the line of ours that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        here = any(x.device.type == GPU.type for x in tensors)
        if here and name in SCALARS:
            self._note(name)
        if name == "index" and here and any(x is not None and x.device.type == "cpu" for x in args[1]):
            self._note("an index on the host")
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if source.device.type != target.type and (waits or target.type == "cpu"):
                self._note(f"a copy to {target.type}")
        return func(*args, **kwargs)

    def _note(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if "monai_fewshot/" in f.filename]
        place = f"{frames[-1].filename.rpartition('monai_fewshot/')[2]}:{frames[-1].lineno}" if frames else "the test"
        self.found.append(f"{what} ({place})")


def stack(channels: int = 1, slices: int = 12) -> SliceStack:
    random = torch.Generator().manual_seed(0)
    image = torch.rand(slices, channels, SIZE, SIZE, generator=random)
    label = torch.zeros(slices, 1, SIZE, SIZE, dtype=torch.uint8)
    label[:, :, 4:20, 4:12], label[:, :, 8:20, 16:28] = 1, 2
    return SliceStack(image, label, torch.arange(slices) // 2)


def on_gpu(item: Any) -> Any:
    """Bring slices, or a network, there; values are lost."""
    if isinstance(item, SliceStack):
        return replace(item, image=on_gpu(item.image), label=on_gpu(item.label))
    if isinstance(item, torch.Tensor):
        return torch.empty_strided(item.shape, item.stride(), dtype=item.dtype, device=GPU)
    for module in item.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(on_gpu(parameter.detach()), parameter.requires_grad)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = on_gpu(buffer)
    return item


def encoder(levels: bool = False) -> UNetEncoder:
    return UNetEncoder(2, 3 if levels else 1, channels=(4, 8), out_channels=8, norm="instance")


AUGMENTATION = EpisodeAugmentation(RandAffineElastic(prob=0.5, flip=(0.5, 0.0)))
COLOR = EpisodeAugmentation(RandAffineElastic(), gamma=None, color=RandColorJitter(blur_prob=0.5))


def train(samples: Any, stacks: dict[str, SliceStack], network: Any, loss: Any, prepare: Any = None) -> list[str]:
    """Make a batch, and take a step, after another one to begin with."""
    prepare = prepare or PrepareBatchEpisode()
    with PretendedGpu(allow_non_fake_inputs=True):
        for name, slices in stacks.items():
            setattr(samples.episodes if name == "stack of episodes" else samples, name.split()[0], on_gpu(slices))
        network = on_gpu(network.train())
        optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
        for _ in range(2):
            with Waits() as waits:
                batch = default_collate(samples.__getitems__([0, 1, 2, 3]))
                image, target, *further = prepare(batch, GPU, non_blocking=True)
                loss(network(image, *(further[0] if further else ())), target).backward()
                optimizer.step()
                optimizer.zero_grad()
    return waits.found


def pseudo_labels(network: Any) -> list[str]:
    slices = stack()
    samples = PseudoLabelEpisodes(slices, 8, shots=2, augmentation=AUGMENTATION)
    return train(samples, {"stack": slices}, network, EpisodeLoss())


def annotated(network: Any) -> list[str]:
    slices = stack()
    samples = AnnotatedEpisodes(slices, 8, [1, 2], augmentation=AUGMENTATION, augment_support=False)
    return train(samples, {"stack": slices}, network, EpisodeLoss())


def mask_split() -> list[str]:
    slices = stack(3)
    samples = MaskSplitEpisodes(slices, 8, RandMaskSplit(), augmentation=COLOR, normalize=NormalizeChannels())
    network = MaskSplitNet(2, encoder(True), channels=8, decoder_channels=(8, 8), freeze_encoder=False)
    return train(samples, {"stack": slices}, network, EpisodeLoss())


def surrogate() -> list[str]:
    slices = stack(3)
    episodes = AnnotatedEpisodes(slices, 8, [1, 2], augmentation=COLOR)
    samples = SurrogateEpisodes(episodes, slices, 2, Denoising())
    few_shot = TiledPrototypeNet(2, encoder(True), channels=(8, 4))
    stacks = {"stack of episodes": slices, "unlabeled": slices}
    return train(samples, stacks, SurrogateNetwork(few_shot), SurrogateLoss(EpisodeLoss()))


class ClassLoss(torch.nn.Module):
    """In the place of MONAI's Dice loss, which makes a tensor on the host and asks for its values."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(input, target[:, 0].long(), ignore_index=255)


def exemplars() -> list[str]:
    slices = stack()
    synthesis = RandExemplarSynthesis(2, slices.image, arrangement="whole", geometry=RandAffineElastic(prob=0.5))
    samples = ExemplarSamples(slices, 8, synthesis, slices, augmentation=AUGMENTATION)
    network = EmbeddingNetwork(BasicUNet(2, 1, 3, features=(4, 4, 8, 8, 8, 4)), "down_4")
    loss = ExemplarLoss(segmentation=ClassLoss())
    stacks = {"exemplars": slices, "unlabeled": slices}
    return train(samples, stacks, network, loss, PrepareBatchSamples())


def tasks() -> list[str]:
    slices = stack(slices=24)
    samples = TaskEpisodes(slices, 8, [1, 2], shots=2, queries=2, augmentation=AUGMENTATION)
    base = BasicUNet(2, 1, 1, features=(4, 4, 8, 8, 8, 4))
    network = MetaLearnedSegmenter(base, InnerLoop(2), torch.nn.BCEWithLogitsLoss())
    with PretendedGpu(allow_non_fake_inputs=True):
        samples.stack, network = on_gpu(slices), on_gpu(network)
        with Waits() as waits:
            batch = default_collate(samples.__getitems__([0, 1]))
            support, query = ((batch[f"{part}image"], batch[f"{part}label"]) for part in ("support_", ""))
            MAML(network.inner)(network.task_loss, network.start, support, query, network.rate_factors)
    return waits.found


def volumes() -> list[str]:
    inferer = FewShotVolumeInferer("adnet_ep2", 2, image_size=(24, 24), batch_size=4)
    network = ALPNet(2, encoder()).eval()
    with PretendedGpu(allow_non_fake_inputs=True), torch.no_grad():
        label = torch.empty(SIZE, SIZE, 6, device=GPU, dtype=torch.long)
        scans = [SupportScan(torch.empty(1, SIZE, SIZE, 6, device=GPU), label, np.full((2, 6), 50))]
        network = on_gpu(network)
        with Waits() as waits:
            inferer.segment(QueryScan(torch.empty(1, SIZE, SIZE, 5, device=GPU), np.eye(4), None), network, scans)
    return waits.found


def mistake(make: Callable[[torch.Tensor], Any]) -> list[str]:
    with PretendedGpu(), Waits() as waits:
        make(torch.empty(4, 3, device=GPU))
    return waits.found


CASES: dict[str, Callable[[], list[str]]] = {
    "ALPNet": lambda: pseudo_labels(ALPNet(2, encoder(), train_window=2)),
    "PANet": lambda: pseudo_labels(PANet(2, encoder())),
    "ADNet": lambda: pseudo_labels(ADNet(2, encoder())),
    "SE-Net": lambda: annotated(FewShotSENet(2, conditioner_channels=2, channels=4, num_levels=2)),
    "MaskSplit": mask_split,
    "surrogate task": surrogate,
    "ELSNet": exemplars,
    "meta-learning": tasks,
    "a query volume": volumes,
    "a mistake: a tensor on the host": lambda: mistake(lambda x: x + torch.ones(3)),
    "a mistake: a list as an index": lambda: mistake(lambda x: x[[0, 1]]),
}


def main() -> None:
    outcome = {}
    for name, case in CASES.items():
        try:
            outcome[name] = {"waits": case(), "error": None}
        except Exception as error:
            outcome[name] = {"waits": [], "error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
