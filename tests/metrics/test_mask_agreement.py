# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou

from monai_fewshot.metrics import MaskAgreementMetric, compute_mask_agreement

SPACING = (1.25, 1.5, 7.7)


def plain_dice(predicted, truth, scored):
    both = sizes = 0
    for z in np.flatnonzero(scored):
        both += np.sum(predicted[..., z] & truth[..., z])
        sizes += np.sum(predicted[..., z]) + np.sum(truth[..., z])
    return 2 * both / sizes


def surface(mask):
    voxels = {tuple(voxel) for voxel in np.argwhere(mask)}
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if np.abs(step).sum() == 1]
    return [v for v in voxels if any(tuple(np.add(v, step)) not in voxels for step in steps)]


def plain_hd95(predicted, truth, spacing):
    a, b = (np.array(surface(mask)) * np.array(spacing) for mask in (predicted, truth))
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def random_case(seed, classes=2, shape=(11, 9, 6)):
    generator = np.random.RandomState(seed)
    truth = np.zeros((1, classes, *shape), dtype=bool)
    truth[0, 0, 2:6, 2:7, 1:5] = True
    truth[0, 1, 7:10, 1:8, 0:4] = True
    prediction = truth ^ (generator.rand(*truth.shape) < 0.04)
    scored = generator.rand(1, classes, shape[-1]) < 0.7
    scored[:, :, 2] = True
    return prediction, truth, scored


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_plain_loops_over_the_scored_slices(seed):
    prediction, truth, scored = random_case(seed)
    got = compute_mask_agreement(*map(torch.tensor, (prediction, truth, scored)), SPACING)
    for c in range(2):
        p, t, s = prediction[0, c], truth[0, c], scored[0, c]
        assert got.dice[0, c].item() == pytest.approx(plain_dice(p, t, s), rel=1e-6)
        assert got.hd95[0, c].item() == pytest.approx(plain_hd95(p & s, t & s, SPACING), rel=1e-5)
        assert got.label_voxels[0, c] == (t & s).sum()
        assert got.predicted_voxels[0, c] == (p & s).sum()
        assert got.iou[0, c].item() == pytest.approx((p & t & s).sum() / ((p | t) & s).sum())


@pytest.mark.parametrize("size", [(12, 10), (9, 8, 7)])
def test_dice_iou_and_hd95_are_monais(size):
    generator = torch.Generator().manual_seed(0)
    y_pred, y = (torch.rand(3, 2, *size, generator=generator) < 0.6 for _ in range(2))
    y[1, 0] = False
    got = compute_mask_agreement(y_pred, y)
    torch.testing.assert_close(got.dice, compute_dice(y_pred, y), rtol=0, atol=0, equal_nan=True)
    defined = ~got.dice.isnan()
    torch.testing.assert_close(got.iou[defined], compute_iou(y_pred, y)[defined])
    wanted = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95)
    torch.testing.assert_close(got.hd95[defined], wanted[defined].float(), rtol=0, atol=0)
    assert compute_mask_agreement(y_pred, y, hd95=False).hd95.isnan().all()


def test_hd95_touching_the_volume_border_equals_the_plain_loop():
    truth, prediction = torch.zeros(2, 1, 1, 6, 6, 6, dtype=torch.bool)
    truth[0, 0, :4, :, :] = True
    prediction[0, 0, 1:, 2:, :5] = True
    got = compute_mask_agreement(prediction, truth, spacing=SPACING)
    assert got.hd95.item() == pytest.approx(plain_hd95(prediction[0, 0].numpy(), truth[0, 0].numpy(), SPACING))


def test_distances_are_millimeters_and_unscored_slices_keep_their_place():
    truth, prediction = torch.zeros(2, 1, 1, 5, 5, 6)
    truth[..., 2, 2, 0] = 1
    prediction[..., 2, 2, 5] = 1
    scored = torch.tensor([[[True, False, False, False, False, True]]])
    assert compute_mask_agreement(prediction, truth, scored, (1, 1, 2)).hd95.item() == pytest.approx(10)


def test_false_positives_outside_the_scored_slices_do_not_count():
    truth = torch.zeros(1, 1, 8, 8, 6, dtype=torch.bool)
    truth[..., 2:6, 2:6, 2:4] = True
    prediction = truth.clone()
    prediction[..., 5] = True
    ours = compute_mask_agreement(prediction, truth, truth.any(2).any(2), SPACING)
    assert (ours.dice.item(), ours.hd95.item()) == (1.0, 0.0)
    whole = compute_mask_agreement(prediction, truth, spacing=SPACING)
    assert whole.dice.item() == pytest.approx(2 * 32 / (32 + 32 + 64))
    assert whole.hd95.item() > 7.7


@pytest.mark.parametrize(
    ("label_there", "predicted", "dice", "hd95"),
    [(True, True, 1, 0), (True, False, 0, math.nan), (False, True, math.nan, math.nan), (False,) * 2 + (math.nan,) * 2],
)
def test_undefined_values_are_nan_without_warnings(label_there, predicted, dice, hd95, recwarn):
    cube = torch.zeros(1, 1, 6, 6, 6)
    cube[..., 2:4, 2:4, 2:4] = 1
    got = compute_mask_agreement(cube * int(predicted), cube * int(label_there), spacing=SPACING)
    assert got.dice.item() == pytest.approx(dice, nan_ok=True)
    assert got.hd95.item() == pytest.approx(hd95, nan_ok=True)
    assert not [warning for warning in recwarn if "all 0" in str(warning.message)]


def test_meta_tensors_give_plain_tensors():
    truth = MetaTensor(torch.ones(1, 1, 6, 6, 6))
    got = compute_mask_agreement(truth, truth, MetaTensor(torch.ones(1, 1, 6)))
    assert all(type(values) is torch.Tensor for values in (*got, got.dice))


@pytest.mark.parametrize("decollated", [False, True])
def test_the_metric_pools_voxels_over_items_and_batches(decollated):
    items = [random_case(seed)[:2] for seed in range(3)]
    prediction, truth = (torch.tensor(np.concatenate(parts)) for parts in zip(*items, strict=True))
    truth[2, 1] = False
    metric = MaskAgreementMetric()
    for batch in (slice(0, 2), slice(2, 3)):
        masks = prediction[batch], truth[batch]
        metric(*map(list, masks) if decollated else masks, spacing=SPACING)
    pooled = metric.aggregate()
    together = [mask.transpose(0, 1).reshape(1, 2, -1, 1) for mask in (prediction, truth)]
    torch.testing.assert_close(pooled.iou, compute_iou(*together)[0])
    torch.testing.assert_close(pooled.dice, compute_dice(*together)[0])
    singly = compute_mask_agreement(prediction, truth, spacing=SPACING)
    torch.testing.assert_close(pooled.hd95, singly.hd95.nanmean(0))
    torch.testing.assert_close(metric.get_buffer(), list(singly), equal_nan=True)
    metric.reset()
    assert metric.get_buffer() is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"y": torch.zeros(1, 1, 6, 6, 5)}, r"y has shape \(1, 1, 6, 6, 5\).*asks for \(1, 1, 6, 6, 6\)"),
        ({"scored_slices": torch.ones(6)}, r"scored_slices has shape \(6,\).*asks for \(1, 1, 6\)"),
        ({"spacing": (1, 1)}, r"spacing has shape 2, .* asks for 3"),
        ({"spacing": (1, 0, 1)}, "positive numbers of millimeters"),
        ({"y_pred": torch.zeros(6, 6, 6)}, r"y_pred must be \(B, N, H, W\) or"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, text):
    cube = torch.zeros(1, 1, 6, 6, 6)
    arguments = {"y_pred": cube, "y": cube, "spacing": SPACING} | change
    with pytest.raises(ValueError, match=text):
        compute_mask_agreement(**arguments)
