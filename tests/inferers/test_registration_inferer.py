# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from moved_patients import bounds

from monai_fewshot.inferers import RegistrationInferer, ScanRegistration

SPACING = torch.diag(torch.tensor([2.0, 2.0, 6.0, 1.0], dtype=torch.float64))
IN_PLACE = ScanRegistration(iterations=0)


def patient(shift=(0, 0, 0), contrast=1.0, shape=(40, 36, 12)):
    """Image and label (1, H, W, D) of a body with two organs, moved by voxels; there is room for (4, 4, 1) of them."""
    grid = np.stack(np.indices(shape), -1) - np.array(shape) / 2 - shift
    body = ((grid / [16, 13, 5]) ** 2).sum(-1)
    first = (((grid - [-6, 2, 0.5]) / [7, 6, 2.5]) ** 2).sum(-1) < 1
    second = (((grid - [8, -3, -1]) / [5, 5, 2]) ** 2).sum(-1) < 1
    label = np.where(first, 1, np.where(second, 2, 0))
    image = 1 / (1 + np.exp(4 * body - 4)) + contrast * first - 0.5 * contrast * second
    return torch.from_numpy(image[None]).float(), torch.from_numpy(label[None]).float()


def episode(query, *supports, affine=SPACING, places=None):
    images, labels = zip(*supports, strict=True)
    places = torch.stack([SPACING] * len(supports) if places is None else places)[None]
    return (
        MetaTensor(query[None], affine=affine),
        None,
        torch.stack(images)[None],
        torch.stack(labels)[None],
        None,
        places,
    )


def assert_moved(margins, shift, error):
    """Hold classes to those of a patient moved by voxels, but for errors in mm."""
    label, spacing = patient()[1][0].numpy(), SPACING.diagonal()[:3].numpy()
    middle = (np.array(label.shape) - 1) / 2
    points = (np.stack(np.indices(label.shape), -1) - middle - shift) * spacing
    found = margins[0].argmax(0).numpy()
    for number in (1, 2):
        must, may, _ = bounds(label, number, points, error, spacing)
        assert not (must & (found != number)).any()
        assert not (~may & (found == number)).any()


def test_a_scan_is_its_own_atlas():
    image, label = patient()
    margins = RegistrationInferer("whole_volume", 2, IN_PLACE)(*episode(image, (image, label)))
    assert isinstance(margins, MetaTensor)
    assert margins.shape == (1, 3, 40, 36, 12)
    assert margins.dtype == torch.float32
    assert torch.equal(margins.affine, SPACING)
    assert (margins[:, 0] == 0).all()
    assert torch.equal(margins[0].argmax(0), label[0].long())
    for c in (1, 2):
        assert torch.equal(margins[0, c] > 0, margins[0].argmax(0) == c)


def test_organs_are_found_to_a_pixel_in_another_contrast_and_place():
    image, _ = patient((4, -3, 1), contrast=-0.7)
    margins = RegistrationInferer("whole_volume", 2)(*episode(image, patient()))
    assert_moved(margins, (4, -3, 1), error=2.0)


def test_slices_are_brought_together_to_a_slice_before():
    """Slices of a whole body are told apart; by the scanner the scans lie a slice apart, and are left so."""
    image, label = patient((0, 0, 1))
    support = patient()
    by_axes = RegistrationInferer("whole_volume", 2, IN_PLACE)(*episode(image, support))
    by_scanner = RegistrationInferer("whole_volume", 2, IN_PLACE, placement="scanner")(*episode(image, support))
    assert torch.equal(by_scanner[0].argmax(0), support[1][0].long())
    assert torch.equal(by_axes[0].argmax(0), label[0].long())


def test_a_stack_in_reverse_order_is_turned():
    image, label = patient((0, 0, 1))
    reverse = torch.diag(torch.tensor([1.0, 1, -1, 1], dtype=torch.float64))
    inputs = episode(image.flip(3), patient(), affine=SPACING @ reverse)
    margins = RegistrationInferer("whole_volume", 2, IN_PLACE)(*inputs)
    assert torch.equal(margins[0].argmax(0), label[0].flip(2).long())


def test_the_scanner_knows_where_scans_lie():
    image, label = patient()
    oblique = torch.tensor([[0.0, -2, 0, 9], [2, 0, 0, -5], [0, 0, 6, 3], [0, 0, 0, 1]], dtype=torch.float64)
    cut, offset = (3, 2, 1), torch.eye(4, dtype=torch.float64)
    offset[:3, 3] = torch.tensor(cut)
    support = [volume[:, 3:38, 2:34, 1:11] for volume in (image, label)]
    inputs = episode(image, support, affine=oblique, places=[oblique @ offset])
    margins = RegistrationInferer("whole_volume", 2, IN_PLACE, placement="scanner")(*inputs)
    assert torch.equal(margins[0].argmax(0), label[0].long())


def test_supports_vote():
    image, label = patient()
    other = torch.where(label == 1, 2, torch.where(label == 2, 0, 1))
    inputs = episode(image, (image, label), (image, label), (image, other))
    margins = RegistrationInferer("whole_volume", 2, IN_PLACE)(*inputs)[0]
    assert torch.equal(margins.argmax(0), label[0].long())
    torch.testing.assert_close(margins[1][label[0] == 1].unique(), torch.tensor([1 / 3]))
    tie = RegistrationInferer("whole_volume", 2, IN_PLACE)(*episode(image, (image, label), (image, other)))[0]
    assert (tie.argmax(0) == 0).all(), "where supports differ evenly there is background"


def test_every_protocol_gets_the_same_margins():
    image, label = patient()
    found = RegistrationInferer(["alpnet", "whole_volume"], 2, IN_PLACE)(*episode(image, (image, label)))
    assert list(found) == ["alpnet", "whole_volume"]
    assert torch.equal(found["alpnet"], found["whole_volume"])


def test_bad_input_is_refused():
    image, label = patient()
    with pytest.raises(ValueError, match="num_classes and batch_size must be 1 or more, got 0 and 16"):
        RegistrationInferer("whole_volume", 0)
    with pytest.raises(ValueError, match=r"holds 1 or more pixels of class\(es\) \[3\]"):
        RegistrationInferer("whole_volume", 3, IN_PLACE)(*episode(image, (image, label)))
    far = SPACING.clone()
    far[2, 3] = 900
    with pytest.raises(ValueError, match="Support scan 0 and the query: The fields of view do not overlap"):
        RegistrationInferer("whole_volume", 2, placement="scanner")(*episode(image, (image, label), places=[far]))
    image[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="inputs holds 1 NaN"):
        RegistrationInferer("whole_volume", 2, IN_PLACE)(*episode(image, patient()))
