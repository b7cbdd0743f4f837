# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Conjugate gradients against direct solutions, and what they say of systems that they cannot solve."""

from __future__ import annotations

import pytest
import torch
from monai.networks.layers import ConjugateGradient

from monai_fewshot.meta import conjugate_gradients

TASKS, SIZE = 4, 12


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    vectors = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return vectors @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ vectors.T


def right_sides(tasks=TASKS, size=SIZE, seed=1):
    return torch.randn(tasks, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def products(matrices):
    return lambda vectors: torch.einsum("tij,tj->ti", matrices, vectors)


def true_residual(matrices, solution, target):
    return (target - products(matrices)(solution)).norm(dim=1) / target.norm(dim=1)


@pytest.fixture
def matrices():
    """Condition numbers from 10 to 10 000."""
    return torch.stack([symmetric(torch.logspace(0, i + 1, SIZE).tolist(), i) for i in range(TASKS)])


def test_solutions_are_those_of_a_direct_solver(matrices):
    target = right_sides()
    found = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-12)
    torch.testing.assert_close(found.solution, torch.linalg.solve(matrices, target), rtol=1e-8, atol=1e-10)
    assert found.converged.all()
    assert not found.indefinite.any()
    assert (found.residual <= 1e-12).all()
    assert (true_residual(matrices, found.solution, target) < 1e-10).all()


def test_as_many_steps_as_there_are_different_eigenvalues_are_taken():
    matrices = torch.stack([symmetric(values * 4) for values in ([1.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 2.0, 3.0])])
    found = conjugate_gradients(products(matrices), right_sides(3), 20, 1e-10)
    assert found.steps.tolist() == [1, 2, 3]
    assert found.converged.all()


def test_too_few_steps_for_an_ill_conditioned_system_are_told_with_the_true_residual():
    matrices = symmetric(torch.logspace(-8, 0, SIZE).tolist())[None]
    target = right_sides(1)
    found = conjugate_gradients(products(matrices), target, 4, 1e-6)
    assert not found.converged.any()
    assert not found.indefinite.any()
    assert found.steps.tolist() == [4]
    assert found.residual.item() > 1e-6
    torch.testing.assert_close(found.residual, true_residual(matrices, found.solution, target), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_each_solution_is_the_best_of_its_krylov_space(matrices, steps):
    """The error in the norm of A is the least among combinations of b, A b, ..."""
    target = right_sides()
    found = conjugate_gradients(products(matrices), target, steps, 1e-14).solution
    for matrix, right, solution in zip(matrices, target, found, strict=True):
        powers = [right]
        for _ in range(steps - 1):
            powers.append(matrix @ powers[-1] / powers[-1].norm())
        basis = torch.linalg.qr(torch.stack(powers, dim=1)).Q
        best = basis @ torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ right)
        torch.testing.assert_close(solution, best, rtol=1e-5, atol=1e-7)


def test_an_indefinite_system_is_reported_and_left_where_it_was(matrices):
    target = right_sides()
    matrices[1] = symmetric([-5.0, *range(1, SIZE)])
    matrices[2] = -torch.eye(SIZE)
    found = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-10)
    assert found.indefinite.tolist() == [False, True, True, False]
    assert found.converged.tolist() == [True, False, False, True]
    assert found.solution.isfinite().all()
    assert found.steps[2] == 0
    assert not found.solution[2].any()
    assert found.residual[2] == 1
    before = conjugate_gradients(products(matrices[1:2]), target[1:2], int(found.steps[1]), 1e-10)
    assert not before.indefinite.any()
    torch.testing.assert_close(found.solution[1:2], before.solution)
    torch.testing.assert_close(found.residual, true_residual(matrices, found.solution, target), rtol=1e-6, atol=1e-9)


def test_the_solution_for_a_right_side_of_zero_is_zero(matrices):
    target = right_sides()
    target[2] = 0
    found = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-10)
    assert not found.solution[2].any()
    assert (found.steps[2], found.residual[2], found.converged[2]) == (0, 0, True)
    assert found.converged.all()


def test_a_converged_system_is_not_changed_by_steps_of_others(matrices):
    target = right_sides()
    matrices[0] = 3 * torch.eye(SIZE)
    alone = conjugate_gradients(products(matrices[:1]), target[:1], 10 * SIZE, 1e-10)
    together = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-10)
    assert together.steps[0] == alone.steps[0] == 1
    assert together.steps[1:].min() >= SIZE
    assert torch.equal(together.solution[0], alone.solution[0])
    assert torch.equal(together.residual[0], alone.residual[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_system_that_is_not_finite_does_not_disturb_others(matrices, bad):
    target = right_sides()
    sound = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-10)
    matrices[1], target[3, 0] = bad, bad
    found = conjugate_gradients(products(matrices), target, 10 * SIZE, 1e-10)
    assert found.converged.tolist() == [True, False, True, False]
    assert found.residual.isfinite().tolist() == [True, False, True, False]
    torch.testing.assert_close(found.solution[::2], sound.solution[::2], rtol=1e-12, atol=0.0)


def test_no_product_is_taken_where_none_is_needed(matrices):
    taken = []

    def counted(vectors):
        taken.append(vectors)
        return products(matrices)(vectors)

    assert not conjugate_gradients(counted, right_sides(), 0).solution.any()
    assert not taken
    found = conjugate_gradients(counted, right_sides(), 10 * SIZE, 1e-3)
    assert len(taken) == found.steps.max() < 10 * SIZE


def test_it_agrees_with_the_one_of_monai_on_a_single_system(matrices):
    target = right_sides()
    for index, steps in ((0, 1), (1, 4), (2, 7)):
        theirs = ConjugateGradient(lambda x, m=matrices[index]: m @ x, steps)(torch.zeros(SIZE).double(), target[index])
        chosen = slice(index, index + 1)
        ours = conjugate_gradients(products(matrices[chosen]), target[chosen], steps, 1e-12).solution[0]
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
