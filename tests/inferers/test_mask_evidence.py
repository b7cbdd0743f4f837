# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.inferers import RegistrationInferer, ScanRegistration, VolumeInferer, class_confidence, reverse_dice


def test_confidence_is_the_mean_over_each_mask():
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(1, 5, 6, 7, generator=generator) / 2
    label = torch.randint(0, 3, (1, 5, 6, 7), generator=generator)
    found = class_confidence(MetaTensor(spread), MetaTensor(label), 3)
    for c in (1, 2):
        assert found[c - 1].item() == pytest.approx(1 - spread[label == c].mean().item(), abs=1e-6)
    assert found[2].isnan()


class Copying(VolumeInferer):
    """Segments a query as its support is, moved along an axis by as many voxels as the affines say."""

    def segment(self, query, network, scans):
        self.seen = (query, network, scans)
        shift = int(query.affine[0, 3] - scans[0].affine[0, 3])
        label = scans[0].label.roll(shift, 0)
        return [torch.stack([(label == c).float() for c in range(len(scans[0].pixels) + 1)])]


def scene(num_classes=3):
    """Label maps of a mask and of two annotated scans."""
    mask = torch.zeros(1, 12, 8, 4)
    for c in range(1, num_classes + 1):
        mask[0, 2 * c : 2 * c + 2, 2:6] = c
    return mask


def expected(one, other, c):
    one, other = one == c, other == c
    return (2 * (one & other).sum() / (one.sum() + other.sum())).item()


def test_annotated_scans_are_segmented_after_the_mask():
    mask, first, second = scene(), scene().roll(1, 1), scene()
    second[second == 2] = 0
    mask[mask == 1] = 0
    image = MetaTensor(torch.rand(1, 12, 8, 4), affine=torch.eye(4))
    images = torch.rand(2, 1, 12, 8, 4)
    affines = torch.eye(4).repeat(2, 1, 1)
    affines[1, 0, 3] = 2
    made = []

    def make(num_classes):
        made.append(Copying("whole_volume", num_classes))
        return made[-1]

    found = reverse_dice(make, "the network", image, mask, images, torch.stack([first, second]), affines)
    moved = mask.roll(2, 1)
    assert found[0].isnan()
    assert found[1].item() == pytest.approx(expected(mask, first, 2), abs=1e-6)
    both = [expected(mask, first, 3), expected(moved, second, 3)]
    assert found[2].item() == pytest.approx(sum(both) / 2, abs=1e-6)
    query, network, scans = made[0].seen
    assert (made[0].num_classes, network) == (2, "the network")
    torch.testing.assert_close(query.image, images[1])
    torch.testing.assert_close(scans[0].image, image.as_tensor())


def test_an_empty_mask_tells_nothing():
    found = reverse_dice(partial(Copying, "whole_volume"), None, scene(), 0 * scene(), [scene()], [scene()])
    assert found.shape == (3,)
    assert found.isnan().all()


def test_a_wrong_mask_leads_registration_astray():
    grid = torch.linspace(-1, 1, 24)
    ball = (grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2).sqrt()[None]
    truth = (ball < 0.5).float()
    make = partial(RegistrationInferer, "whole_volume", registration=ScanRegistration(deformation_levels=()))
    scan = MetaTensor(2 - ball, affine=torch.diag(torch.tensor([4.0, 4, 4, 1])))
    given = {"support_image": [2 - ball], "support_label": [truth], "support_affine": scan.affine[None]}
    good = reverse_dice(lambda number: make(num_classes=number), None, scan, truth, **given)
    bad = reverse_dice(lambda number: make(num_classes=number), None, scan, truth.roll(6, 1), **given)
    assert good.item() > bad.item() + 0.3
