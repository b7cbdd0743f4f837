# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from monai.config import PathLike
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from monai_fewshot.utils import atomic_path

__all__ = ["make_phantom_lesions", "make_phantom_shapes"]

SHAPES = ("disc", "ellipse", "polygon", "star", "ring", "cross", "crescent", "blob")
TEXTURES = ("plain", "stripes", "checks", "spots", "gradient")


def make_phantom_shapes(
    output_dir: PathLike, num_classes: int = 20, num_images: int = 10, size: int = 160, seed: int = 0
) -> Path:
    """Draw a set of classes in the layout of FSS-1000: a folder a class, with ``1.jpg`` and its mask ``1.png``.

    A class is a shape with a texture and a color. Its position, size and orientation vary, and so do the textured
    background and the objects of other classes that stand beside.

    Args:
        output_dir: folder to write to.
        num_classes: number of classes, at most 40.
        num_images: number of images of each.
        size: width and height, pixels.
        seed: of all draws.

    Returns:
        The folder.

    Raises:
        ValueError: for more classes than there are shapes and textures.
    """
    if not 1 <= num_classes <= len(SHAPES) * len(TEXTURES):
        raise ValueError(f"num_classes is {num_classes}, must be from 1 to {len(SHAPES) * len(TEXTURES)}.")
    folder = Path(output_dir)
    kinds = [(SHAPES[c % len(SHAPES)], TEXTURES[c * 3 % len(TEXTURES)]) for c in range(num_classes)]
    colors = np.random.default_rng([seed, num_classes]).uniform(0.1, 0.95, (num_classes, 2, 3))
    for number, kind in enumerate(tqdm(kinds, "drawing classes", disable=None)):
        for index in range(num_images):
            random = np.random.default_rng([seed, number, index])
            image, mask = _scene(random, size, number, kinds, colors)
            _save(folder / f"{number + 1:02}_{'_'.join(kind)}", str(index + 1), image, mask)
    return folder


def make_phantom_lesions(output_dir: PathLike, num_images: int = 40, size: int = 160, seed: int = 0) -> Path:
    """Draw images like those of a dermoscope: ``images/lesion_001.jpg`` and ``masks/lesion_001.png``.

    Skin of varying tone, a pigmented lesion with an irregular, soft border, hairs, and the dark corners of the optics.

    Args:
        output_dir: folder to write to.
        num_images: number of images.
        size: height, pixels; images are a third wider.
        seed: of all draws.

    Returns:
        The folder.
    """
    folder = Path(output_dir)
    for index in tqdm(range(num_images), "drawing lesions", disable=None):
        image, mask = _dermoscopy(np.random.default_rng([seed, index]), (size, size * 4 // 3))
        name = f"lesion_{index + 1:03}"
        _write(folder / "images" / f"{name}.jpg", image)
        _write(folder / "masks" / f"{name}.png", mask)
    return folder


def _scene(
    random: np.random.Generator, size: int, number: int, kinds: list[tuple[str, str]], colors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    tones = random.uniform(0.1, 0.95, (2, 3))
    image = _painted(random, (size, size), str(random.choice(TEXTURES)), tones, contrast=0.5)
    others = random.choice([c for c in range(len(kinds)) if c != number], 2) if len(kinds) > 1 else ()
    mask = np.zeros((size, size), bool)
    for which in (*others, number):
        radius = random.uniform(0.12, 0.3 if which == number else 0.18) * size
        center = random.uniform(radius, size - radius, 2)
        shape, texture = kinds[which]
        drawn = _shape(random, (size, size), shape, center, radius)
        painted = _painted(random, (size, size), texture, colors[which])
        image = np.where(drawn, painted, image)
        mask = drawn
    image = ndimage.gaussian_filter(image, (0, 0.6, 0.6)) * random.uniform(0.8, 1.1)
    return image + random.normal(0, 0.02, image.shape), mask


def _shape(
    random: np.random.Generator, size: tuple[int, int], shape: str, center: np.ndarray, radius: float
) -> np.ndarray:
    rows, columns = np.indices(size) + 0.5
    turn = random.uniform(0, 2 * np.pi)
    y, x = (rows - center[0]) / radius, (columns - center[1]) / radius
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    waves = random.uniform(0, 2 * np.pi, 3)
    drawn: dict[str, Callable[[], np.ndarray]] = {
        "disc": lambda: distance < 0.9,
        "ellipse": lambda: np.hypot(u, 1.8 * v) < 1,
        "polygon": lambda: distance * np.cos((angle % (np.pi / 2.5)) - np.pi / 5) < 0.8,
        "star": lambda: distance < 0.65 + 0.35 * np.cos(5 * angle),
        "ring": lambda: (distance < 1) & (distance > 0.5),
        "cross": lambda: (np.minimum(abs(u), abs(v)) < 0.28) & (np.maximum(abs(u), abs(v)) < 0.95),
        "crescent": lambda: (distance < 1) & (np.hypot(u - 0.5, v) > 0.75),
        "blob": lambda: distance < 0.75 + sum(0.1 * np.cos((k + 2) * angle + w) for k, w in enumerate(waves)),
    }
    return drawn[shape]()


def _painted(
    random: np.random.Generator, size: tuple[int, int], texture: str, tones: np.ndarray, contrast: float = 1.0
) -> np.ndarray:
    """An area of a texture between two colors, (3, H, W)."""
    rows, columns = np.indices(size)
    period, turn = random.uniform(8, 14), random.uniform(0, np.pi)
    along = columns * np.cos(turn) + rows * np.sin(turn)
    across = rows * np.cos(turn) - columns * np.sin(turn)
    share = {
        "plain": lambda: np.zeros(size),
        "stripes": lambda: (along % period < period / 2).astype(float),
        "checks": lambda: ((along % period < period / 2) ^ (across % period < period / 2)).astype(float),
        "spots": lambda: (np.hypot(along % period - period / 2, across % period - period / 2) < period / 3) * 1.0,
        "gradient": lambda: (along - along.min()) / np.ptp(along),
    }[texture]() * contrast
    cloud = 0.06 * ndimage.gaussian_filter(random.normal(size=size), 6) * 15
    return tones[0][:, None, None] * (1 - share) + tones[1][:, None, None] * share + cloud


def _dermoscopy(random: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(size)
    height, width = size
    skin = np.array([0.86, 0.66, 0.56]) * random.uniform(0.75, 1.08) + random.normal(0, 0.03, 3)
    cloud = ndimage.gaussian_filter(random.normal(size=size), height / 10) * height / 25
    image = skin[:, None, None] * (1 + 0.05 * cloud)
    center = np.array([height, width]) * random.uniform(0.38, 0.62, 2)
    radius = height * random.uniform(0.16, 0.36)
    y, x = rows - center[0], columns - center[1]
    angle, stretch = np.arctan2(y, x), random.uniform(0.75, 1.25)
    waves = sum(random.uniform(0, 0.12) * np.cos(k * angle + random.uniform(0, 6.3)) for k in range(2, 7))
    ragged = ndimage.gaussian_filter(random.normal(size=size), 3) * 0.35
    inside = 1 + waves + ragged - np.hypot(x * stretch, y / stretch) / radius
    depth = 1 / (1 + np.exp(-inside * random.uniform(8, 22)))
    pigment = np.array([0.42, 0.27, 0.2]) * random.uniform(0.6, 1.35)
    spots = 1 + 0.25 * ndimage.gaussian_filter(random.normal(size=size), 2.5) * 6 * 0.5
    image = image * (1 - depth) + np.clip(pigment[:, None, None] * spots, 0.03, 0.9) * depth
    image = _with_hairs(random, image)
    corner = np.hypot((rows / height - 0.5) * 0.85, columns / width - 0.5)
    image = image * (1 / (1 + np.exp((corner - random.uniform(0.56, 0.7)) * 60)))
    return image + random.normal(0, 0.012, image.shape), ndimage.binary_fill_holes(inside > 0)


def _with_hairs(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[1:]
    hair = np.zeros((height, width))
    for _ in range(random.integers(0, 9)):
        t = np.linspace(0, 1, 4 * width)
        start, end, bend = random.uniform(0, 1, (3, 2)) * [height, width]
        path = np.outer((1 - t) ** 2, start) + np.outer(2 * t * (1 - t), bend) + np.outer(t**2, end)
        places = np.clip(path.round().astype(int), 0, [height - 1, width - 1])
        hair[places[:, 0], places[:, 1]] = 1
    shade = np.clip(ndimage.gaussian_filter(hair, 0.6) * 2, 0, 0.8)
    return image * (1 - shade)


def _save(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    _write(folder / f"{name}.jpg", image)
    _write(folder / f"{name}.png", mask)


def _write(path: Path, array: np.ndarray) -> None:
    with atomic_path(path, array.nbytes) as temporary:
        if array.dtype == bool:
            Image.fromarray(array.astype(np.uint8) * 255).save(temporary)
        else:
            pixels = (255 * array.clip(0, 1)).round().astype(np.uint8)
            Image.fromarray(np.moveaxis(pixels, 0, -1)).save(temporary, quality=92)
