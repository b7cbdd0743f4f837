# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from monai_fewshot.losses import PrototypeContrastLoss

BATCH, CLASSES, CHANNELS = 4, 4, 6
REDUCTIONS = ("mean", "sum", "none")


def _batch(seed=0, batch=BATCH, classes=CLASSES, size=(8, 12), embedding_size=(4, 6)):
    """An embedding and logits of a batch whose images lack some classes each."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(batch, CHANNELS, *embedding_size, generator=generator)
    logits = torch.randn(batch, classes, *[1] * len(size), generator=generator)
    logits = logits + 1.5 * torch.randn(batch, classes, *[n // 2 for n in size], generator=generator).repeat_interleave(
        2, dim=2
    ).repeat_interleave(2, dim=3)
    return embedding, logits


def _draw(seed=0, batch=BATCH, classes=CLASSES):
    return torch.rand(batch, classes, generator=torch.Generator().manual_seed(seed + 100))


def _with_background(draw, include_background):
    return draw if include_background else draw[:, 1:]


def _resized_masks(labels, classes, size):
    """Masks of each class at half the size: one pixel is the mean of four."""
    masks = np.stack([labels == k for k in range(classes)], axis=1).astype(float)
    return masks.reshape(*masks.shape[:2], size[0], 2, size[1], 2).mean((3, 5))


def _by_loops(embedding, logits, draw, temperature=0.07, include_background=False):
    """Equation 5, term by term: {(n, k): value}."""
    x = embedding.detach().double().numpy()
    masks = _resized_masks(logits.argmax(1).numpy(), logits.shape[1], x.shape[2:])
    first = 0 if include_background else 1
    prototypes = {}
    for n in range(len(x)):
        for k in range(first, masks.shape[1]):
            inside = masks[n, k] != 0
            if inside.any():
                v = np.array([channel[inside].sum() for channel in x[n]]) / inside.sum()
                prototypes[n, k] = v / math.sqrt((v**2).sum())
    terms = {}
    for (n, k), v in prototypes.items():
        others = [i for i in range(len(x)) if i != n and (i, k) in prototypes]
        if others:
            m = others[int(draw[n, k - first] * len(others))]
            positive = math.exp(v @ prototypes[m, k] / temperature)
            rest = 0.0
            for (i, j), w in prototypes.items():
                if j != k and i != n:
                    rest += math.exp(v @ w / temperature)
            terms[n, k] = -math.log(positive / (positive + rest))
    return terms


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_equation_5_by_loops(seed, temperature, include_background):
    embedding, logits = _batch(seed)
    draw = _with_background(_draw(seed), include_background)
    terms = _by_loops(embedding, logits, draw, temperature, include_background)
    assert 2 < len(terms) <= BATCH * (CLASSES - 1 + include_background)
    options = {"temperature": temperature, "include_background": include_background}
    expected = np.zeros(draw.shape)
    for (n, k), value in terms.items():
        expected[n, k - (not include_background)] = value
    loss = PrototypeContrastLoss(reduction="none", **options)(embedding, logits, draw)
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-5)
    total = PrototypeContrastLoss(reduction="sum", **options)(embedding, logits, draw)
    mean = PrototypeContrastLoss(**options)(embedding, logits, draw)
    assert total.item() == pytest.approx(sum(terms.values()), rel=1e-4)
    assert mean.item() == pytest.approx(sum(terms.values()) / len(terms), rel=1e-4)


def test_some_classes_are_absent_from_the_batches_of_these_tests():
    shown = [len(set(image.flatten().tolist())) for seed in range(6) for image in _batch(seed)[1].argmax(1)]
    assert min(shown) < CLASSES == max(shown)


def test_masks_of_the_embeddings_own_size_are_taken_as_they_are():
    embedding, _ = _batch(embedding_size=(8, 12))
    _, logits = _batch()
    label = logits.argmax(1)
    own = torch.stack([torch.stack([(image == k) for k in range(CLASSES)]) for image in label]).double()
    sums = torch.einsum("bcij,bkij->bkc", embedding.double(), own)
    at_half_size = sums[:, 1:] / own.flatten(2).sum(2)[:, 1:, None].clamp(min=1)
    prototypes, shown = PrototypeContrastLoss()._prototypes(embedding, logits)
    torch.testing.assert_close(prototypes, F.normalize(at_half_size, dim=2).float(), atol=1e-5, rtol=0)
    assert torch.equal(shown, own[:, 1:].flatten(2).any(2))


def test_volumes():
    embedding, logits = (x.unsqueeze(4) for x in _batch())
    flat = PrototypeContrastLoss()(*_batch(), _draw()[:, 1:])
    deep = PrototypeContrastLoss()(embedding.expand(*[-1] * 4, 3), logits.repeat_interleave(6, dim=4), _draw()[:, 1:])
    torch.testing.assert_close(deep, flat)


def test_the_scale_of_the_embedding_does_not_matter():
    embedding, logits = _batch()
    plain = PrototypeContrastLoss()(embedding, logits, _draw()[:, 1:])
    for scale in (1e-3, 1e4):
        torch.testing.assert_close(PrototypeContrastLoss()(scale * embedding, logits, _draw()[:, 1:]), plain)


def _shown_in(classes_by_image, embedding_size=(6, 6)):
    """Logits that predict in each image stripes of the classes given."""
    label = torch.stack(
        [
            torch.tensor(classes)[torch.arange(embedding_size[0]) * len(classes) // embedding_size[0]]
            for classes in classes_by_image
        ]
    )
    label = label.unsqueeze(2).expand(-1, -1, embedding_size[1])
    embedding = torch.randn(len(label), CHANNELS, *embedding_size, generator=torch.Generator().manual_seed(1))
    return embedding.requires_grad_(), 5 * F.one_hot(label, CLASSES).movedim(3, 1).float()


def test_a_class_of_one_image_alone_is_a_negative_only():
    embedding, logits = _shown_in([[0, 1, 2], [0, 1, 3], [0, 1]])
    loss = PrototypeContrastLoss(reduction="none")(embedding, logits)
    assert (loss[:, 1:] == 0).all()
    assert (loss[:, 0] > 0).all()
    loss.sum().backward()
    gradient = embedding.grad.abs().sum((1, 3))
    assert (gradient[:, :2] == 0).all(), "background"
    assert (gradient[0, 2:] > 0).all()
    assert (gradient[2, 3:] > 0).all()


def test_no_gradient_comes_from_what_does_not_count():
    embedding, logits = _shown_in([[0, 2], [0, 1], [0, 1]])
    PrototypeContrastLoss()(embedding, logits).backward()
    assert torch.isfinite(embedding.grad).all()
    assert (embedding.grad[:, :, :3] == 0).all()
    assert (embedding.grad[:, :, 3:].flatten(1).abs().sum(1) > 0).all(), "class 2 is a negative of both"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shown", [[[0], [0], [0]], [[1], [2], [3]], [[1, 2]]])
def test_nothing_left_is_zero_with_a_graph(shown, reduction):
    embedding, logits = _shown_in(shown)
    loss = PrototypeContrastLoss(reduction=reduction)(embedding, logits).sum()
    assert loss == 0
    loss.backward()
    assert (embedding.grad == 0).all()


def test_prototypes_of_zeros_count_as_absent():
    embedding, logits = _shown_in([[1, 2], [1, 2], [1, 2]])
    draw = torch.zeros(3, 3)
    dead = embedding.detach() * torch.tensor([0.0, 1.0, 1.0]).view(3, 1, 1, 1)
    dead.requires_grad_()
    loss = PrototypeContrastLoss()(dead, logits, draw)
    torch.testing.assert_close(loss, PrototypeContrastLoss()(embedding[1:], logits[1:], draw[1:]))
    loss.backward()
    assert torch.isfinite(dead.grad).all()
    assert dead.grad.abs().max() < 10


def test_every_other_image_is_drawn_as_positive_as_often_and_none_else():
    embedding, logits = _shown_in([[1, 2], [1, 2], [2], [1, 2], [1, 2]])
    loss = PrototypeContrastLoss(reduction="none")
    exact = {
        m: loss(embedding, logits, torch.full((5, 3), (i + 0.5) / 3))[0, 0].item() for i, m in enumerate((1, 3, 4))
    }
    torch.manual_seed(0)
    drawn = torch.stack([loss(embedding, logits)[0, 0].detach() for _ in range(900)])
    counts = [int((drawn - value).abs().lt(1e-5).sum()) for value in exact.values()]
    assert sum(counts) == 900
    assert min(counts) > 240


def test_draws_at_the_ends_of_their_range():
    embedding, logits = _shown_in([[1, 2]] * 4)
    almost_one = torch.full((4, 3), np.nextafter(np.float32(1), np.float32(0)))
    loss = PrototypeContrastLoss(reduction="none")
    last = loss(embedding, logits, torch.full((4, 3), 0.9))
    assert torch.equal(loss(embedding, logits, almost_one), last)
    assert torch.equal(loss(embedding, logits, torch.ones(4, 3)), last)


def test_a_generator_makes_the_draws_again():
    embedding, logits = _batch(batch=12)
    losses = [PrototypeContrastLoss(generator=torch.Generator().manual_seed(s))(embedding, logits) for s in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]
    loss = PrototypeContrastLoss(generator=torch.Generator().manual_seed(5))
    assert loss(embedding, logits) == losses[0] != loss(embedding, logits)


def test_gradients_are_those_of_finite_differences():
    embedding, logits = _batch(batch=3, size=(4, 4), embedding_size=(2, 2))
    embedding = embedding.double().requires_grad_()
    loss = PrototypeContrastLoss(temperature=0.5)
    draw = _draw(batch=3)[:, 1:].double()
    assert torch.autograd.gradcheck(lambda x: loss(x, logits, draw), embedding)


def test_descent_brings_classes_together_and_apart():
    embedding, logits = _shown_in([[1, 2, 3]] * 4)
    loss = PrototypeContrastLoss(generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([embedding], 0.05)
    before = loss(embedding, logits).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(embedding, logits).backward()
        optimizer.step()
    assert loss(embedding, logits).item() < 0.01 < 1 < before


def test_half_precision_embeddings_and_autocast():
    embedding, logits = (x.bfloat16() for x in _batch())
    draw = _draw()[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = PrototypeContrastLoss()(embedding, logits, draw)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, PrototypeContrastLoss()(embedding.float(), logits.float(), draw))


def _losses_of_a_part(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    torch.save({reduction: _loss_and_gradient(reduction, own) for reduction in REDUCTIONS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _loss_and_gradient(reduction, part):
    embedding, logits = _batch(2)
    embedding = embedding[part].clone().requires_grad_()
    loss = PrototypeContrastLoss(reduction=reduction)(embedding, logits[part], _draw(2)[part, 1:])
    loss.sum().backward()
    return loss.detach(), embedding.grad


def test_two_processes_are_as_one(tmp_path):
    torch.multiprocessing.spawn(_losses_of_a_part, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for reduction in REDUCTIONS:
        losses, gradients = zip(*(part[reduction] for part in parts), strict=True)
        whole, gradient = _loss_and_gradient(reduction, slice(None))
        assert gradient.flatten(1).abs().amax(1).min() > 0
        each_has_its_own = reduction == "none"
        torch.testing.assert_close(torch.cat(losses) if each_has_its_own else torch.stack(losses).mean(), whole)
        torch.testing.assert_close(torch.cat(gradients) / (1 if each_has_its_own else 2), gradient)


def test_compiles_without_graph_breaks():
    embedding, logits = _batch()
    draw = _draw()[:, 1:]
    loss = PrototypeContrastLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(embedding, logits, draw), loss(embedding, logits, draw))


def test_errors():
    embedding, logits = _batch()
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        PrototypeContrastLoss(temperature=0)
    with pytest.raises(ValueError, match=r"An embedding \(3, 6, 4, 6\) does not fit logits \(4, 4, 8, 12\)"):
        PrototypeContrastLoss()(embedding[:3], logits)
    with pytest.raises(ValueError, match="2 or 3 spatial dimensions"):
        PrototypeContrastLoss()(embedding.flatten(2), logits.flatten(2))
    with pytest.raises(ValueError, match="set include_background=True"):
        PrototypeContrastLoss()(embedding, logits[:, :2])
    assert PrototypeContrastLoss(include_background=True)(embedding, logits[:, :2]) > 0
    with pytest.raises(ValueError, match="median"):
        PrototypeContrastLoss(reduction="median")
