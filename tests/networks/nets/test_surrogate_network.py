# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_fewshot.data import AnnotatedEpisodes, SliceStack, SurrogateEpisodes
from monai_fewshot.engines import PrepareBatchEpisode
from monai_fewshot.losses import EpisodeLoss, SurrogateLoss
from monai_fewshot.networks.blocks import TrainingOutput, TrainingTarget
from monai_fewshot.networks.encoders import UNetEncoder
from monai_fewshot.networks.nets import ALPNet, SurrogateNetwork, TiledPrototypeNet
from monai_fewshot.transforms import Denoising, Inpainting, LocalShuffling


def _few_shot(kind):
    torch.manual_seed(0)
    encoder = UNetEncoder(2, 3, (4, 8), 6)
    return ALPNet(2, encoder) if kind is ALPNet else TiledPrototypeNet(2, encoder, channels=(8, 4))


def _episode(size=(32, 36)):
    generator = torch.Generator().manual_seed(1)
    image, support = torch.rand(2, 3, *size, generator=generator), torch.rand(2, 1, 3, *size, generator=generator)
    label = torch.zeros(2, 1, 1, *size)
    label[..., 6:24, 8:30] = 1
    return image, support, label, torch.rand(2, 4, 3, *size, generator=generator)


@pytest.mark.parametrize("kind", [ALPNet, TiledPrototypeNet])
def test_without_surrogate_images_it_is_the_few_shot_network(kind):
    few_shot = _few_shot(kind).eval()
    network = SurrogateNetwork(few_shot).eval()
    image, support, label, _ = _episode()
    expected = few_shot(image, support, label)
    torch.testing.assert_close(network(image, support, label), expected)
    torch.testing.assert_close(network.segment(image, network.encode_support(support, label)), expected)


@pytest.mark.parametrize("kind", [ALPNet, TiledPrototypeNet])
def test_in_training_both_branches_come_from_one_call(kind):
    network = SurrogateNetwork(_few_shot(kind)).train()
    image, support, label, surrogate = _episode()
    output = network(image, support, label, surrogate)
    assert output.reconstruction.shape == surrogate.shape
    assert (output.support_logits is not None) == (kind is ALPNet)
    SurrogateLoss(EpisodeLoss(), 1.0)(output, TrainingTarget(label[:, 0], label, surrogate)).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_each_image_is_restored_from_its_own_features():
    network = SurrogateNetwork(_few_shot(TiledPrototypeNet)).eval()
    *_, surrogate = _episode()
    restored = network.reconstruct(surrogate)
    features = network.few_shot.encoder(surrogate[1, 2][None])
    block = network.decoder.blocks[0]
    by_hand = network.restore(block(F.interpolate(features, surrogate.shape[3:], mode="bilinear", align_corners=False)))
    torch.testing.assert_close(restored[1, 2], by_hand[0], atol=1e-5, rtol=1e-4)


def test_the_joint_loss_is_the_weighted_sum_of_equations_2_and_3():
    generator = torch.Generator().manual_seed(2)
    segmented = torch.randn(2, 2, 8, 8, generator=generator)
    restored, original = torch.randn(2, 3, 1, 8, 8, generator=generator), torch.rand(2, 3, 1, 8, 8, generator=generator)
    label = (torch.rand(2, 1, 8, 8, generator=generator) > 0.5).float()
    few_shot = EpisodeLoss()
    output, target = TrainingOutput(segmented, reconstruction=restored), TrainingTarget(label, label[:, None], original)
    loss = SurrogateLoss(few_shot, 0.7)(output, target)
    x, y = original.double().numpy(), 1 / (1 + torch.exp(-restored.double())).numpy()
    by_hand = -np.mean(x * np.log(y) + (1 - x) * np.log(1 - y))
    assert loss.item() == pytest.approx(few_shot(output, target).item() + 0.7 * by_hand, rel=1e-5)
    perfect = torch.logit(original, 1e-6)
    best = SurrogateLoss(few_shot)(output._replace(reconstruction=perfect), target)
    for shift in (-0.5, 0.5):
        assert SurrogateLoss(few_shot)(output._replace(reconstruction=perfect + shift), target) > best
    with pytest.raises(ValueError, match=r"\(2, 3, 1, 8, 8\) do not fit originals \(2, 2, 1, 8, 8\)"):
        SurrogateLoss(few_shot)(output, target._replace(reconstruction=original[:, :2]))
    with pytest.raises(ValueError, match=r"Restored images None do not fit originals \(2, 3, 1, 8, 8\)"):
        SurrogateLoss(few_shot)(TrainingOutput(segmented), target)


@pytest.mark.parametrize("task", [Denoising(), Inpainting(), LocalShuffling()])
@pytest.mark.parametrize("kind", [ALPNet, TiledPrototypeNet])
def test_monais_trainer_learns_both_tasks(kind, task):
    generator = torch.Generator().manual_seed(0)
    items = []
    for _ in range(4):
        image = F.interpolate(torch.rand(1, 3, 4, 4, generator=generator), (32, 32), mode="bilinear")[0]
        label = torch.zeros(1, 32, 32, dtype=torch.uint8)
        label[:, 8:20, 8:24] = 1
        items.append({"image": (255 * image).to(torch.uint8), "label": label})
    stack = SliceStack.from_scans(items, "label")
    episodes = SurrogateEpisodes(AnnotatedEpisodes(stack, 40, [1]), stack, 2, task)
    network = SurrogateNetwork(_few_shot(kind))
    losses = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=torch.utils.data.DataLoader(episodes, batch_size=2),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=SurrogateLoss(EpisodeLoss()),
        prepare_batch=PrepareBatchEpisode(),
        decollate=False,
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    trainer.run()
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])


def test_a_network_without_an_encoder_to_share_is_refused():
    class Alone(TiledPrototypeNet):
        def __init__(self):
            nn.Module.__init__(self)

    with pytest.raises(ValueError, match="Alone has no FeatureEncoder as its encoder"):
        SurrogateNetwork(Alone())
