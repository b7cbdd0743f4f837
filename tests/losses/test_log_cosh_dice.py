# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Against loops over images, classes and pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from monai_fewshot.losses import DiceBCELoss, LogCoshDiceLoss

SHAPES = [(2, 1, 5, 6), (3, 2, 4, 4), (2, 3, 3, 4, 2), (1, 1, 1, 1)]


def plain_dice(prediction, mask, counted=None):
    """1 - Dice of one image and class."""
    intersection, total = 0.0, 0.0
    for place in np.ndindex(prediction.shape):
        if counted is None or counted[place]:
            intersection += prediction[place] * mask[place]
            total += prediction[place] + mask[place]
    return 1 - (2 * intersection + 1) / (total + 1)


def plain_log_cosh(value):
    return math.log((math.exp(value) + math.exp(-value)) / 2)


def plain_loss(logits, label, curve=plain_log_cosh):
    """Cross-entropy of all pixels that count, and a Dice loss for each image and class."""
    entropies, dices = [], []
    classes = logits.shape[1]
    for image in range(len(logits)):
        counted = np.array([v in range(classes + 1) for v in label[image, 0].ravel()]).reshape(label.shape[2:])
        for index in range(classes):
            probability = 1 / (1 + np.exp(-logits[image, index]))
            mask = (label[image, 0] == index + 1).astype(float)
            for place in np.ndindex(mask.shape):
                if counted[place]:
                    p = probability[place]
                    entropies.append(-math.log(p) if mask[place] else -math.log(1 - p))
            dices.append(curve(plain_dice(probability, mask, counted)))
    return (sum(entropies) / len(entropies) if entropies else 0.0) + sum(dices) / len(dices)


def example(shape, ignored=0.0, seed=0):
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=shape)
    label = random.integers(0, shape[1] + 1, (shape[0], 1, *shape[2:]))
    return torch.tensor(logits), torch.tensor(np.where(random.random(label.shape) < ignored, 255, label))


@pytest.mark.parametrize("shape", SHAPES)
def test_log_cosh_dice_of_each_image_and_class(shape):
    logits, label = example(shape)
    prediction, mask = logits.sigmoid(), torch.cat([label == number + 1 for number in range(shape[1])], 1).double()
    expected = torch.tensor(
        [
            [plain_log_cosh(plain_dice(p.numpy(), m.numpy())) for p, m in zip(*image, strict=True)]
            for image in zip(prediction, mask, strict=True)
        ]
    )
    torch.testing.assert_close(LogCoshDiceLoss(reduction="none")(prediction, mask).flatten(1), expected.double())
    torch.testing.assert_close(LogCoshDiceLoss()(prediction, mask), expected.double().mean())
    torch.testing.assert_close(LogCoshDiceLoss(reduction="sum")(prediction, mask), expected.double().sum())


def test_arguments_of_monais_dice_loss():
    logits, label = example((2, 1, 5, 6))
    label = label.double()
    for options in ({"smooth_nr": 0.3, "smooth_dr": 0.2}, {"squared_pred": True}, {"jaccard": True}):
        dice = DiceLoss(sigmoid=True, reduction="none", **{"smooth_nr": 1, "smooth_dr": 1, **options})(logits, label)
        expected = torch.log(torch.cosh(dice)).mean()
        torch.testing.assert_close(LogCoshDiceLoss(sigmoid=True, **options)(logits, label), expected)
    with pytest.raises(ValueError, match="median"):
        LogCoshDiceLoss(reduction="median")


def test_log_cosh_dice_of_perfect_and_of_wrong_predictions():
    mask = torch.ones(1, 1, 10, 10)
    assert LogCoshDiceLoss()(mask, mask) == 0
    assert LogCoshDiceLoss()(0 * mask, 0 * mask) == 0
    assert LogCoshDiceLoss()(0 * mask, mask).item() == pytest.approx(plain_log_cosh(1 - 1 / 101))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_dice_and_cross_entropy_together(shape, ignored):
    logits, label = example(shape, ignored)
    expected = plain_loss(logits.numpy(), label.numpy())
    assert DiceBCELoss()(logits, label).item() == pytest.approx(expected, rel=1e-12)
    assert DiceBCELoss()(logits, label.double()).item() == pytest.approx(expected, rel=1e-12)
    plain_dice_loss = DiceBCELoss(DiceLoss(smooth_nr=1, smooth_dr=1))(logits, label)
    assert plain_dice_loss.item() == pytest.approx(plain_loss(logits.numpy(), label.numpy(), lambda x: x), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_ignored_pixels_say_nothing(shape):
    logits, label = example(shape, ignored=0.4)
    ignored = (label == 255).expand_as(logits)
    expected = DiceBCELoss()(logits, label)
    changed = torch.where(ignored, 50 * torch.randn(shape).double(), logits).requires_grad_()
    loss = DiceBCELoss()(changed, label)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, changed)
    assert not gradient[ignored].any()
    assert gradient[~ignored].all()
    for other in (shape[1] + 1, -1, 254):
        torch.testing.assert_close(DiceBCELoss()(logits, torch.where(label == 255, other, label)), expected)


def test_images_without_a_pixel_that_counts():
    logits, label = example((2, 1, 4, 4))
    whole = torch.full_like(label, 255)
    assert DiceBCELoss()(logits, whole) == 0
    half = torch.cat([label[:1], whole[1:]])
    dice = LogCoshDiceLoss()((logits[:1]).sigmoid(), label[:1])
    entropy = DiceBCELoss()(logits[:1], label[:1]) - dice
    torch.testing.assert_close(DiceBCELoss()(logits, half), entropy + dice / 2)


def test_gradients():
    logits, label = example((2, 2, 3, 3), ignored=0.2)
    assert torch.autograd.gradcheck(lambda x: DiceBCELoss()(x, label), logits.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: DiceBCELoss()(x, label), logits)


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    logits, label = example((2, 1, 16, 16))
    logits = (4 * logits).to(dtype)
    loss = DiceBCELoss()(logits, label)
    assert loss.dtype == torch.float32
    assert loss == DiceBCELoss()(logits.float(), label)


def test_large_logits_are_finite():
    label = torch.tensor([0, 1, 0, 1]).view(1, 1, 2, 2)
    logits = torch.tensor([1e4, -1e4, -1e4, 1e4]).view(1, 1, 2, 2).requires_grad_()
    loss = DiceBCELoss()(logits, label)
    loss.backward()
    assert loss.item() == pytest.approx(5000 + plain_log_cosh(1 - 3 / 5))
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (1, 1, 4, 4), (2, 1, 4, 5), (2, 4, 4)])
def test_labels_that_do_not_fit(shape):
    message = r"Logits \(2, 2, 4, 4\) and labels \(.*\) differ; labels are \(B, 1, \*S\)"
    with pytest.raises(ValueError, match=message):
        DiceBCELoss()(torch.zeros(2, 2, 4, 4), torch.zeros(shape))
