# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.metrics import score_volume

SPACING = (1.25, 1.5, 7.7)
EVERYWHERE = torch.ones(1, 6, dtype=torch.bool)


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
    label = np.zeros((1, *shape), dtype=np.int64)
    label[0, 2:6, 2:7, 1:5] = 1
    label[0, 7:10, 1:8, 0:4] = 2
    prediction = np.stack([label[0] == c + 1 for c in range(classes)]) ^ (generator.rand(classes, *shape) < 0.04)
    scored = generator.rand(classes, shape[-1]) < 0.7
    scored[:, 2] = True
    return prediction, label, scored


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_plain_loops_over_the_scored_slices(seed):
    prediction, label, scored = random_case(seed)
    got = score_volume(torch.tensor(prediction), torch.tensor(label), torch.tensor(scored), SPACING)
    for c in range(2):
        truth = label[0] == c + 1
        assert got.dice[c].item() == pytest.approx(plain_dice(prediction[c], truth, scored[c]), rel=1e-6)
        wanted = plain_hd95(prediction[c] & scored[c], truth & scored[c], SPACING)
        assert got.hd95_mm[c].item() == pytest.approx(wanted, rel=1e-5)
        assert got.label_voxels[c] == (truth & scored[c]).sum()
        assert got.predicted_voxels[c] == (prediction[c] & scored[c]).sum()


def test_hd95_touching_the_volume_border_equals_the_plain_loop():
    label = torch.zeros(1, 6, 6, 6, dtype=torch.long)
    label[0, :4, :, :] = 1
    prediction = torch.zeros(1, 6, 6, 6, dtype=torch.bool)
    prediction[0, 1:, 2:, :5] = True
    got = score_volume(prediction, label, EVERYWHERE, SPACING)
    assert got.hd95_mm.item() == pytest.approx(plain_hd95(prediction[0].numpy(), label[0].numpy() == 1, SPACING))


def test_distances_are_millimeters_and_unscored_slices_keep_their_place():
    label, prediction = torch.zeros(1, 5, 5, 6, dtype=torch.long), torch.zeros(1, 5, 5, 6)
    label[0, 2, 2, 0] = 1
    prediction[0, 2, 2, 5] = 1
    scored = torch.tensor([[True, False, False, False, False, True]])
    assert score_volume(prediction, label, scored, (1, 1, 2)).hd95_mm.item() == pytest.approx(10)


def test_false_positives_outside_the_scored_slices_do_not_count():
    label = torch.zeros(1, 8, 8, 6, dtype=torch.long)
    label[0, 2:6, 2:6, 2:4] = 1
    prediction = (label == 1).clone()
    prediction[0, :, :, 5] = True
    in_range = (label == 1)[0].any(0).any(0)[None]
    ours = score_volume(prediction, label, in_range, SPACING)
    assert (ours.dice.item(), ours.hd95_mm.item()) == (1.0, 0.0)
    whole = score_volume(prediction, label, EVERYWHERE, SPACING)
    assert whole.dice.item() == pytest.approx(2 * 32 / (32 + 32 + 64))
    assert whole.hd95_mm.item() > 7.7


@pytest.mark.parametrize(
    ("label_there", "predicted", "dice", "hd95"),
    [(True, True, 1, 0), (True, False, 0, math.nan), (False, True, math.nan, math.nan), (False,) * 2 + (math.nan,) * 2],
)
def test_undefined_values_are_nan_without_warnings(label_there, predicted, dice, hd95, recwarn):
    cube = torch.zeros(1, 6, 6, 6, dtype=torch.long)
    cube[0, 2:4, 2:4, 2:4] = 1
    got = score_volume(cube * int(predicted), cube * int(label_there), EVERYWHERE, SPACING)
    assert got.dice.item() == pytest.approx(dice, nan_ok=True)
    assert got.hd95_mm.item() == pytest.approx(hd95, nan_ok=True)
    assert not [warning for warning in recwarn if "all 0" in str(warning.message)]


def test_meta_tensors_give_plain_tensors():
    label = MetaTensor(torch.ones(1, 6, 6, 6, dtype=torch.long))
    got = score_volume(label == 1, label, MetaTensor(EVERYWHERE), SPACING)
    assert all(type(values) is torch.Tensor for values in got)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"label": torch.zeros(1, 6, 6, 5)}, r"label has shape \(1, 6, 6, 5\).*asks for \(1, 6, 6, 6\)"),
        ({"scored_slices": torch.ones(6)}, r"scored_slices has shape \(6,\).*asks for \(1, 6\)"),
        ({"spacing": (1, 1)}, r"spacing has shape \(2,\)"),
        ({"spacing": (1, 0, 1)}, "positive numbers of millimeters"),
        ({"prediction": torch.zeros(6, 6, 6)}, r"prediction must be \(classes, H, W, D\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, text):
    cube = torch.zeros(1, 6, 6, 6)
    arguments = {"prediction": cube, "label": cube, "scored_slices": EVERYWHERE, "spacing": SPACING} | change
    with pytest.raises(ValueError, match=text):
        score_volume(**arguments)
