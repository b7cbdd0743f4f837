# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from monai_fewshot.transforms import (
    IntensityDraw,
    RandAffineElastic,
    RandExemplarSynthesis,
    RandExemplarSynthesisd,
    SynthesisDraw,
    WarpDraw,
    class_centers,
)

SIZE = (48, 64)
OFF = {
    "exemplar_geometry": False,
    "background_geometry": False,
    "exemplar_intensity": False,
    "background_intensity": False,
}
STILL = WarpDraw(0.0, (0.0, 0.0), 0.0, 1.0, 0)


def _exemplar(channels=1, seed=0):
    """Noise with a disk (1), a ring about it (2) and a rectangle elsewhere (3)."""
    image = torch.rand(channels, *SIZE, generator=torch.Generator().manual_seed(seed))
    rows, columns = np.indices(SIZE)
    radius = np.hypot(rows - 20, columns - 18)
    label = np.zeros((1, *SIZE), np.uint8)
    label[0, radius < 11] = 2
    label[0, radius < 6] = 1
    label[0, 28:42, 40:56] = 3
    return image, torch.from_numpy(label)


def _backgrounds(number=3, channels=1):
    return 2 + torch.rand(number, channels, *SIZE, generator=torch.Generator().manual_seed(9))


def _shifted(*shifts):
    """A draw that moves class after class, and pastes them as they are numbered."""
    order = tuple(range(1, len(shifts) + 1))
    return SynthesisDraw(order, tuple(STILL._replace(translation=shift) for shift in shifts), (None,) * len(shifts))


def _draws(synthesis, label, number, seed=0):
    random, centers = np.random.RandomState(seed), class_centers(label, synthesis.num_classes)
    return [synthesis.draw(random, SIZE, centers) for _ in range(number)]


def _coordinates(warp):
    """Where each output pixel comes from: content is flipped, turned, grown and moved about the image's center."""
    cos, sin = math.cos(warp.rotation), math.sin(warp.rotation)
    content = warp.zoom * np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1 if flip else 1 for flip in warp.flip])
    center = (np.array(SIZE) - 1) / 2
    out = np.indices(SIZE).reshape(2, -1) - center[:, None] - np.array(warp.translation)[:, None]
    return np.linalg.inv(content) @ out + center[:, None]


def _by_loops(exemplar, label, background, draw, intensity):
    """Paste class by class; a plain reference with scipy's interpolation."""
    image, pasted = background.copy(), np.zeros(SIZE, int)
    for k in draw.order:
        varied = intensity.apply(exemplar[None], [draw.intensities[k - 1]])[0].numpy()
        source = _coordinates(draw.warps[k - 1])
        nearest = np.rint(source).astype(int)
        for place, (i, j) in enumerate(nearest.T):
            if 0 <= i < SIZE[0] and 0 <= j < SIZE[1] and label[0, i, j] == k:
                at = np.unravel_index(place, SIZE)
                pasted[at] = k
                for c, channel in enumerate(varied):
                    point = source[:, place, None]
                    image[(c, *at)] = ndimage.map_coordinates(channel, point, order=1, mode="nearest")[0]
    return image, pasted


@pytest.mark.parametrize("flip", [(0.0, 0.0), (0.5, 0.5)])
@pytest.mark.parametrize("arrangement", ["free", "whole"])
def test_pasting_by_loops(arrangement, flip):
    exemplar, label = _exemplar(channels=2)
    geometry = RandAffineElastic(rotate=0.6, translate=60, shear=0, zoom=(0.6, 1.5), alpha=0, flip=flip)
    synthesis = RandExemplarSynthesis(3, arrangement=arrangement, geometry=geometry)
    draws = _draws(synthesis, label, 4)
    image, pasted = synthesis.apply(exemplar[None], label[None], draws)
    black = np.broadcast_to(exemplar.amin((1, 2), keepdim=True).numpy(), exemplar.shape)
    for i, draw in enumerate(draws):
        expected, expected_label = _by_loops(exemplar, label, black, draw, synthesis.intensity)
        same = pasted[i, 0].numpy() == expected_label
        assert same.mean() > 0.999, "but for pixels halfway between two"
        assert 200 < (expected_label > 0).sum() < 2500
        np.testing.assert_allclose(image[i].numpy()[:, same], expected[:, same], atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("warp", [None, STILL])
@pytest.mark.parametrize("intensity", [None, IntensityDraw()])
def test_identity_is_the_exemplar_on_black(channels, warp, intensity):
    exemplar, label = _exemplar(channels)
    draw = SynthesisDraw((3, 1, 2), (warp,) * 3, (intensity,) * 3)
    image, pasted = RandExemplarSynthesis(3).apply(exemplar[None], label[None], [draw])
    assert pasted.dtype == label.dtype
    assert torch.equal(pasted[0], label)
    black = exemplar.amin((1, 2), keepdim=True).expand_as(exemplar)
    expected = torch.where(label > 0, exemplar, black)
    if warp is None and intensity is None:
        assert torch.equal(image[0], expected)
    torch.testing.assert_close(image[0], expected, atol=1e-5, rtol=0)


def test_each_pixel_is_the_warped_exemplars_or_the_backgrounds():
    exemplar, label = _exemplar()
    backgrounds = _backgrounds()
    geometry = RandAffineElastic(rotate=0.5, translate=20, zoom=(0.8, 1.4), alpha=8.0)
    synthesis = RandExemplarSynthesis(3, backgrounds, black_prob=0, arrangement="whole", geometry=geometry)
    (draw,) = _draws(synthesis, label, 1)
    image, pasted = synthesis.apply(exemplar[None], label[None], [draw])
    for k in (1, 2, 3):
        varied = synthesis.intensity.apply(exemplar[None], [draw.intensities[k - 1]])
        warped = geometry.apply(varied, [draw.warps[0]], ["bilinear"])
        inside = pasted == k
        assert inside.sum() > 50
        torch.testing.assert_close(image[inside], warped[inside], atol=1e-5, rtol=0)
    background = synthesis.intensity.apply(backgrounds[[draw.background]], [draw.background_intensity])
    background = geometry.apply(background, [draw.background_warp], ["bilinear"])
    torch.testing.assert_close(image[pasted == 0], background[pasted == 0], atol=1e-5, rtol=0)


def test_later_pastes_hide_earlier_ones():
    exemplar, label = _exemplar()
    onto_the_disk = (20.0 - 34.5, 18.0 - 47.5)
    below = _shifted((0.0, 0.0), (0.0, 0.0), tuple(round(x) for x in onto_the_disk))._replace(order=(3, 2, 1))
    above = below._replace(order=(1, 2, 3))
    image, pasted = RandExemplarSynthesis(3).apply(exemplar[None], label[None], [below, above])
    moved = torch.roll(label == 3, (-14, -30), (1, 2))
    assert torch.equal(pasted[0], torch.where(label.remainder(3) > 0, label.remainder(3), 3 * moved))
    assert torch.equal(pasted[1], torch.where(moved, 3, label.remainder(3)))
    assert not torch.equal(image[0], image[1])
    torch.testing.assert_close(image[1][moved], torch.roll(exemplar, (-14, -30), (1, 2))[moved], atol=1e-5, rtol=0)


def test_the_order_is_drawn():
    _, label = _exemplar()
    orders = [draw.order for draw in _draws(RandExemplarSynthesis(3), label, 600)]
    counts = {order: orders.count(order) for order in set(orders)}
    assert len(counts) == 6
    assert min(counts.values()) > 65


def test_what_falls_outside_is_gone():
    exemplar, label = _exemplar()
    draw = _shifted((0.0, 0.0), (0.0, 0.0), (10.0, 0.0))
    image, pasted = RandExemplarSynthesis(3).apply(exemplar[None], label[None], [draw])
    assert (label == 3).sum() == 14 * 16
    expected = torch.zeros_like(label, dtype=torch.bool)
    expected[:, 38:48, 40:56] = True
    assert torch.equal(pasted[0] == 3, expected)
    torch.testing.assert_close(image[0][expected], exemplar[:, 28:38, 40:56].flatten(), atol=1e-5, rtol=0)
    gone = _shifted((0.0, 0.0), (0.0, 0.0), (10.0, 40.0))
    assert set(RandExemplarSynthesis(3).apply(exemplar[None], label[None], [gone])[1].unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("switch", OFF)
def test_a_part_that_is_switched_off_stays_and_the_rest_is_drawn_alike(switch):
    exemplar, label = _exemplar()
    backgrounds = _backgrounds()
    on = RandExemplarSynthesis(3, backgrounds, black_prob=0)
    off = RandExemplarSynthesis(3, backgrounds, black_prob=0, **{switch: False})
    (before,), (after,) = (_draws(synthesis, label, 1) for synthesis in (on, off))
    image, pasted = off.apply(exemplar[None], label[None], [after])
    varied, varied_label = on.apply(exemplar[None], label[None], [before])
    assert not torch.equal(image, varied)
    assert torch.equal(pasted, varied_label) == (switch != "exemplar_geometry")
    field = {"exemplar_geometry": "warps", "exemplar_intensity": "intensities"}.get(
        switch, "background_warp" if "geometry" in switch else "background_intensity"
    )
    nothing = (None,) * 3 if switch.startswith("exemplar") else None
    assert after == before._replace(**{field: nothing})


@pytest.mark.parametrize("switch", OFF)
def test_one_part_alone_leaves_the_others_untouched(switch):
    exemplar, label = _exemplar()
    backgrounds = _backgrounds(number=1)
    synthesis = RandExemplarSynthesis(3, backgrounds, black_prob=0, **(OFF | {switch: True})).set_random_state(0)
    image, pasted = synthesis(exemplar, label)
    assert torch.equal(pasted, label) == (switch != "exemplar_geometry")
    of_background = torch.equal(image[pasted == 0], backgrounds[0][pasted == 0])
    assert of_background == (not switch.startswith("background"))
    if switch != "exemplar_geometry":
        assert torch.equal(image[label > 0], exemplar[label > 0]) == switch.startswith("background")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("arrangement", ["free", "whole"])
def test_a_batch_is_its_images_one_by_one(arrangement, shared):
    exemplars, labels = zip(*(_exemplar(2, seed) for seed in range(6)), strict=True)
    labels = [torch.roll(label, seed, 2) for seed, label in enumerate(labels)]
    if shared:
        exemplars, labels = exemplars[:1], labels[:1]
    geometry = RandAffineElastic(prob=0.6, rotate=0.5, translate=40, zoom=(0.7, 1.4), flip=(0.5, 0.5))
    options = {"arrangement": arrangement, "blend": 2, "geometry": geometry}
    synthesis = RandExemplarSynthesis(3, _backgrounds(channels=2), **options).set_random_state(7)
    singles, draws = [], []
    for i in range(6):
        singles.append(synthesis(exemplars[i % len(exemplars)], labels[i % len(labels)]))
        draws.append(synthesis._drawn)
    images, pasted = synthesis.apply(torch.stack(list(exemplars)), torch.stack(list(labels)), draws)
    assert len({draw.background for draw in draws}) > 2
    for i, (image, label) in enumerate(singles):
        assert torch.equal(pasted[i], label)
        torch.testing.assert_close(images[i], image, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_images():
    exemplar, label = _exemplar()
    synthesis = RandExemplarSynthesis(3, _backgrounds())
    runs = []
    for seed in (3, 3, 4):
        synthesis.set_random_state(seed)
        runs.append([synthesis(exemplar, label) for _ in range(3)])
    for (image, pasted), (again, pasted_again), (other, _) in zip(*runs, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(pasted, pasted_again)
        assert not torch.equal(image, other)
    assert not torch.equal(runs[0][0][0], runs[0][1][0])
    last = synthesis(exemplar, label, randomize=False)
    assert torch.equal(last[0], runs[2][-1][0])


@pytest.mark.parametrize(("black_prob", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_backgrounds_are_of_those_given_and_black(black_prob, share):
    exemplar, label = _exemplar()
    backgrounds = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1, 1).expand(3, 1, *SIZE)
    synthesis = RandExemplarSynthesis(3, backgrounds, black_prob=black_prob, **OFF)
    draws = _draws(synthesis, label, 300)
    image, _ = synthesis.apply(exemplar[None], label[None], draws)
    values = image[:, 0, 0, 0].tolist()
    black = exemplar.min().item()
    assert set(values) == ({10.0, 20.0, 30.0} if share < 1 else set()) | ({black} if share else set())
    assert values.count(black) / 300 == pytest.approx(share, abs=0.1)
    assert len({values.count(value) > 40 for value in values}) == 1


def test_black_is_the_least_intensity_of_each_channel():
    exemplar, label = _exemplar(channels=2)
    image, pasted = RandExemplarSynthesis(3).set_random_state(0)(exemplar - 5, label)
    outside = (pasted == 0)[0]
    for channel, source in zip(image, exemplar - 5, strict=True):
        assert (channel[outside] == source.min()).all()


def test_free_classes_turn_about_their_own_centers():
    _, label = _exemplar()
    geometry = RandAffineElastic(rotate=3, translate=0, shear=0.1, zoom=(0.7, 1.2), alpha=0, flip=(0.5, 0.5))
    synthesis = RandExemplarSynthesis(3, geometry=geometry, exemplar_intensity=False)
    draws = _draws(synthesis, label, 20)
    only = [[draw._replace(order=tuple(sorted((1, 2, 3), key=k.__eq__))) for draw in draws] for k in (1, 2, 3)]
    centers = class_centers(label, 3)
    for k in (1, 2, 3):
        _, pasted = synthesis.apply(torch.rand(1, 1, *SIZE), label[None], only[k - 1])
        for mask in (pasted[:, 0] == k).numpy():
            found = np.array(ndimage.center_of_mass(mask)) - (np.array(SIZE) - 1) / 2
            np.testing.assert_allclose(found, centers[k - 1], atol=0.4)
    assert len({draw.warps[i] for draw in draws for i in range(3)}) == 60


def test_whole_keeps_the_arrangement():
    exemplar, label = _exemplar()
    synthesis = RandExemplarSynthesis(3, arrangement="whole")
    draws = _draws(synthesis, label, 10)
    _, pasted = synthesis.apply(exemplar[None], label[None], draws)
    expected = synthesis.geometry.apply(
        label[None].float().expand(10, -1, -1, -1), [d.warps[0] for d in draws], ["nearest"]
    )
    assert torch.equal(pasted.float(), expected)
    assert len({draw.warps[0] for draw in draws}) == 10


def _distance_to_edge(label):
    """Pixels (as kings move on a chess board) to the nearest pixel with another label."""
    far = np.full(label.shape, np.inf)
    for k in np.unique(label):
        distance = ndimage.distance_transform_cdt(label == k, metric="chessboard")
        far[label == k] = distance[label == k]
    return far


@pytest.mark.parametrize("width", [1, 3])
def test_blending_changes_the_image_near_edges_only(width):
    exemplar, label = _exemplar()
    backgrounds = _backgrounds(number=1)
    options = OFF | {"black_prob": 0}
    hard, _ = RandExemplarSynthesis(3, backgrounds, **options)(exemplar, label)
    soft, pasted = RandExemplarSynthesis(3, backgrounds, blend=width, **options)(exemplar, label)
    assert torch.equal(pasted, label)
    distance = torch.from_numpy(_distance_to_edge(label[0].numpy()))[None]
    assert torch.equal(soft[distance > width], hard[distance > width])
    near = (distance <= width) & (hard != soft)
    assert near.sum() > 0.5 * (distance <= width).sum()


def test_blending_goes_over_evenly():
    label = torch.zeros(1, *SIZE)
    label[:, :, 32:] = 1
    backgrounds = torch.full((1, 1, *SIZE), 8.0)
    synthesis = RandExemplarSynthesis(1, backgrounds, black_prob=0, blend=2, **OFF)
    image, _ = synthesis(torch.zeros(1, *SIZE), label)
    for row in image[0]:
        np.testing.assert_allclose(row[29:35], [8, 6.4, 4.8, 3.2, 1.6, 0], atol=1e-5)


def test_no_background_shows_between_organs_that_touch():
    label = torch.ones(1, *SIZE)
    label[:, :, 32:] = 2
    backgrounds = torch.full((1, 1, *SIZE), 1e6)
    image, _ = RandExemplarSynthesis(2, backgrounds, black_prob=0, blend=4, **OFF)(torch.ones(1, *SIZE), label)
    torch.testing.assert_close(image, torch.ones(1, *SIZE))


def test_probability_of_a_synthesis():
    exemplar, label = _exemplar()
    image, same = RandExemplarSynthesis(3, prob=0)(exemplar, label)
    assert image is exemplar
    assert same is label
    synthesis = RandExemplarSynthesis(3, prob=0.3).set_random_state(0)
    kept = [synthesis(exemplar, label)[0] is exemplar for _ in range(200)]
    assert np.mean(kept) == pytest.approx(0.7, abs=0.1)


def test_the_dictionary_form_is_the_array_form_and_keeps_types():
    exemplar, label = _exemplar()
    data = {"image": MetaTensor(exemplar, affine=2 * torch.eye(4)), "label": label.numpy(), "name": "x"}
    out = RandExemplarSynthesisd(num_classes=3, blend=1).set_random_state(5)(data)
    image, pasted = RandExemplarSynthesis(3, blend=1).set_random_state(5)(exemplar, label)
    assert out["name"] == "x"
    assert isinstance(out["image"], MetaTensor)
    assert out["image"].affine[0, 0] == 2
    assert (type(out["label"]), out["label"].dtype) == (np.ndarray, np.uint8)
    assert torch.equal(out["image"].as_tensor(), image)
    np.testing.assert_array_equal(out["label"], pasted)
    assert torch.equal(data["image"].as_tensor(), exemplar), "the input stays"


def test_several_exemplars_of_a_dictionary_have_draws_of_their_own():
    exemplar, label = _exemplar()
    data = {"a": exemplar, "b": exemplar, "la": label, "lb": label}
    out = RandExemplarSynthesisd(("a", "b"), ("la", "lb"), num_classes=3).set_random_state(5)(data)
    assert not torch.equal(out["la"], out["lb"])
    assert RandExemplarSynthesisd("c", allow_missing_keys=True, num_classes=3)(data) == data
    with pytest.raises(KeyError):
        RandExemplarSynthesisd("c", num_classes=3)(data)


def test_class_centers():
    _, label = _exemplar()
    expected = [np.argwhere(label[0].numpy() == k).mean(0) - [23.5, 31.5] for k in (1, 2, 3)]
    np.testing.assert_allclose(class_centers(label, 3), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blend": -1}, "blend a whole number of pixels from 0 .* got 3, -1"),
        ({"blend": 1.5}, "whole number of pixels"),
        ({"black_prob": 1.5}, "black_prob from 0 to 1"),
        ({"arrangement": "mixed"}, "mixed"),
        ({"backgrounds": torch.rand(1, *SIZE)}, r"must be \(M, C, H, W\)"),
        ({"backgrounds": torch.rand(0, 1, *SIZE)}, "no empty axis"),
        (
            {"backgrounds": torch.rand(2, 1, *SIZE), "background_labels": torch.zeros(2, *SIZE)},
            r"background_labels \(2, 48, 64\) do not fit backgrounds \(2, 1, 48, 64\)",
        ),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        RandExemplarSynthesis(3, **options)


def test_backgrounds_with_organs():
    labels = torch.zeros(4, 1, *SIZE)
    RandExemplarSynthesis(3, _backgrounds(4), labels)
    labels[1, 0, 3, 5] = labels[3, 0, 0, 0] = 2
    with pytest.raises(ValueError, match=r"2 of 4 backgrounds show organs .* numbers \[1, 3\]"):
        RandExemplarSynthesis(3, _backgrounds(4), labels)


def test_backgrounds_of_another_size():
    exemplar, label = _exemplar()
    with pytest.raises(ValueError, match=r"are \(3, 1, 48, 64\), the exemplar is \(1, 1, 48, 60\)"):
        RandExemplarSynthesis(3, _backgrounds())(exemplar[..., :60], label[..., :60])


def test_exemplars_that_do_not_fit():
    exemplar, label = _exemplar()
    with pytest.raises(ValueError, match=r"lacks the classes \[1, 3\] of 1 to 3"):
        RandExemplarSynthesis(3)(exemplar, 2 * (label == 2))
    with pytest.raises(ValueError, match="num_classes=2"):
        RandExemplarSynthesis(2)(exemplar, label)
    with pytest.raises(ValueError, match=r"label must be \(1, H, W\), got \(48, 64\)"):
        RandExemplarSynthesis(3)(exemplar, label[0])
    with pytest.raises(ValueError, match=r"The exemplar \(1, 1, 48, 60\) and its label \(1, 1, 48, 64\) do not fit"):
        RandExemplarSynthesis(3)(exemplar[..., :60], label)
    synthesis = RandExemplarSynthesis(3)
    two = (torch.stack([x, x]) for x in (exemplar, label))
    with pytest.raises(ValueError, match="2 exemplars do not fit 3 draws"):
        synthesis.apply(*two, _draws(synthesis, label, 3))
