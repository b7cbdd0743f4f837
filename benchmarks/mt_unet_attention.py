# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""How much faster MT-UNet's Gaussian axial attention is than a loop over positions.

    python benchmarks/mt_unet_attention.py                    # a CPU
    python benchmarks/mt_unet_attention.py --device cuda      # a GPU

A pass is the ten attentions of MT-UNet for a batch of images, from scores and values to outputs, on grids of one token
a window; in training with the gradients of all inputs for given ones of the outputs. Outputs and gradients of both must
agree in float64. They take turns, and the fastest turn counts, since what else a machine does only makes turns slower.

The loop is that of ``GaussianTrans`` in model/MTUNet.py of the authors, https://github.com/Dootmaan/MT-UNet. Alike: one
position after another for the whole batch; its distances are listed in Python, made a tensor on the CPU and brought to
the device; products with the values of its row and of its column are added, then summed. Everything around it, which
is no loop there either, is left out of both, so that the ratio is not that of the network.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass

import torch
from step_timing import synchronized

from monai_fewshot.networks.blocks import gaussian_axial_attention

LEVELS = ((8, 256, 2), (16, 512, 2), (32, 1024, 2), (16, 512, 2), (8, 512, 2))
"""Pixels a token, channels and number of the attentions of each level, down and up again."""
WINDOW = 4
TOLERANCE = 1e-9


def loop_attention(
    value: torch.Tensor, row_score: torch.Tensor, column_score: torch.Tensor, shift: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """One position after another of a grid as high as wide."""
    height, width = value.shape[1:3]
    result = torch.zeros_like(value)
    for r in range(height):
        for c in range(width):
            across = torch.tensor([(c - j) ** 2 for j in range(width)]).to(value.device)
            down = torch.tensor([(r - i) ** 2 for i in range(height)]).to(value.device)
            row = torch.softmax(row_score[:, r, c] - (shift * across + bias), dim=-1)
            column = torch.softmax(column_score[:, c, r] - (shift * down + bias), dim=-1)
            result[:, r, c] = (row[..., None] * value[:, r] + column[..., None] * value[:, :, c]).sum(1)
    return result


VARIANTS = {"vectorized": gaussian_axial_attention, "loop": loop_attention}


@dataclass(frozen=True)
class Problem:
    """Inputs of all attentions, and gradients of their outputs, or None for a pass without gradients."""

    inputs: list[tuple[torch.Tensor, ...]]
    gradients: list[torch.Tensor] | None

    @classmethod
    def random(
        cls, image_size: int, batch_size: int, training: bool, device: str, dtype: torch.dtype = torch.float32
    ) -> Problem:
        """Make a problem of normally distributed scores, values and gradients."""
        inputs, gradients = [], []
        for pixels, channels, number in LEVELS:
            edge = -(-image_size // (pixels * WINDOW))
            for _ in range(number):
                made = {"device": device, "dtype": dtype}
                tensors = [torch.randn(batch_size, edge, edge, n, **made) for n in (channels, edge, edge)]
                tensors += [torch.rand(1, **made), -torch.rand(1, **made)]
                inputs.append(tuple(tensor.requires_grad_(training) for tensor in tensors))
                gradients.append(torch.randn(batch_size, edge, edge, channels, **made))
        return cls(inputs, gradients if training else None)

    def run(self, variant: str) -> list[torch.Tensor]:
        """Return the outputs of all attentions, then the gradients of all inputs."""
        outputs = [VARIANTS[variant](*tensors) for tensors in self.inputs]
        if self.gradients is None:
            return outputs
        flat = [tensor for tensors in self.inputs for tensor in tensors]
        return outputs + list(torch.autograd.grad(outputs, flat, self.gradients))


def check(image_size: int, batch_size: int, device: str) -> None:
    """Hold outputs and gradients to those of the loop, in float64."""
    problem = Problem.random(image_size, batch_size, True, device, torch.float64)
    for ours, loop in zip(problem.run("vectorized"), problem.run("loop"), strict=True):
        torch.testing.assert_close(ours, loop, rtol=TOLERANCE, atol=TOLERANCE)


def fastest_turns(problem: Problem, repeats: int, device: str) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(repeats):
        for name, turns in seconds.items():
            start = synchronized(device)
            problem.run(name)
            turns.append(synchronized(device) - start)
    return {name: min(turns) for name, turns in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image_size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 12], help="images (default: 1 12)")
    parser.add_argument("--repeats", type=int, default=30, help="turns of each (default: 30)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    check(arguments.image_size, 2, arguments.device)
    print("| pass | batch | vectorized, ms | loop, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for training, batch_size in itertools.product((False, True), arguments.batch_sizes):
        problem = Problem.random(arguments.image_size, batch_size, training, arguments.device)
        fastest = fastest_turns(problem, arguments.repeats, arguments.device)
        ours, loop = 1000 * fastest["vectorized"], 1000 * fastest["loop"]
        kind = "with gradients" if training else "forward"
        print(f"| {kind} | {batch_size} | {ours:.2f} | {loop:.1f} | {loop / ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
