# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from monai_fewshot.utils import device_tensor

from .blur import gaussian_blur
from .where_drawn import apply_where_drawn

__all__ = ["ColorDraw", "RandColorJitter", "RandColorJitterD", "RandColorJitterDict", "RandColorJitterd"]

RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
YIQ_TO_RGB = torch.linalg.inv(RGB_TO_YIQ)


class ColorDraw(NamedTuple):
    """What :class:`RandColorJitter` draws for one image.

    Attributes:
        brightness: factor of all intensities.
        contrast: factor of the distance from the image's mean luminance.
        saturation: factor of the distance from gray, 0 for a gray image.
        hue: turn of the colors, in full circles.
        blur_sigma: standard deviation of a Gaussian blur, pixels; 0 for none.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur_sigma: float = 0.0


class RandColorJitter(RandomizableTransform):
    """Random brightness, contrast, saturation, hue, grayness and blur of images with intensities from 0 to 1.

    Saturation and hue act on the colors in the YIQ space, where they scale and turn (I, Q); grayness is
    a saturation of 0. Images of one channel have neither. Intensities are cut to 0..1 at the end.

    Based on: the augmentations of Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations"
    (SimCLR), ICML 2020, appendix A, https://arxiv.org/abs/2002.05709, as MaskSplit uses them (Amac et al., WACV 2022,
    section 3.2, https://arxiv.org/abs/2110.12207). Defaults: SimCLR's color strength 0.5, and MaskSplit's
    probabilities.

    Deviation: the four changes of color come in a fixed order and as one linear map, not in a random order in HSV.

    Args:
        brightness: largest change of the factor either way, below 1.
        contrast: as brightness.
        saturation: as brightness.
        hue: largest turn either way, in full circles, at most 0.5.
        gray_prob: probability of a gray image.
        blur_prob: probability of a blur.
        blur_sigma: range of its standard deviation, for images ``REFERENCE_SIZE`` pixels wide; it scales with the
            width.
        prob: probability of a change of brightness, contrast, saturation and hue; grayness and blur have their own.

    Raises:
        ValueError: where a number is out of its range.

    Example:
        >>> RandColorJitter().set_random_state(0)(torch.rand(3, 64, 64)).shape
        torch.Size([3, 64, 64])
    """

    backend: ClassVar = [TransformBackends.TORCH]
    REFERENCE_SIZE = 256

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        gray_prob: float = 0.4,
        blur_prob: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        if not all(0 <= x < 1 for x in (brightness, contrast, saturation)) or not 0 <= hue <= 0.5:
            raise ValueError(
                "brightness, contrast and saturation must lie from 0 to below 1 and hue from 0 to 0.5, "
                f"got {brightness}, {contrast}, {saturation} and {hue}."
            )
        if not 0 < blur_sigma[0] <= blur_sigma[1]:
            raise ValueError(f"blur_sigma must be a range of positive numbers, low first, got {blur_sigma}.")
        self.ranges = np.array([brightness, contrast, saturation, hue])
        self.gray_prob = gray_prob
        self.blur_prob = blur_prob
        self.blur_sigma = blur_sigma
        self._drawn = ColorDraw()

    def randomize(self, data: Sequence[int]) -> None:
        """Draw for an image of spatial size ``data``, (H, W)."""
        self._drawn = self.draw(self.R, data)

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> ColorDraw:
        """Draw the parameters of one image.

        Args:
            random: the source of randomness.
            size: (H, W).
        """
        change = random.uniform(-1, 1, 4) * self.ranges * (random.random_sample() < self.prob)
        gray, blurred = random.random_sample(2) < (self.gray_prob, self.blur_prob)
        sigma = random.uniform(*self.blur_sigma) * size[-1] / self.REFERENCE_SIZE
        saturation = 0.0 if gray else 1 + change[2]
        return ColorDraw(1 + change[0], 1 + change[1], saturation, change[3], sigma if blurred else 0.0)

    def apply(self, image: torch.Tensor, draws: Sequence[ColorDraw]) -> torch.Tensor:
        """Transform a batch.

        Args:
            image: (B, C, H, W) with one or three channels, from 0 to 1.
            draws: B draws.

        Returns:
            (B, C, H, W), from 0 to 1.

        Raises:
            ValueError: for another number of channels.
        """
        if image.shape[1] not in (1, 3):
            raise ValueError(f"Colors are those of images with 1 or 3 channels, got {tuple(image.shape)}.")
        numbers = device_tensor([draw[:-1] for draw in draws], image.device, image.dtype)
        brightness, contrast, saturation, hue = numbers.T
        luminance = RGB_TO_YIQ[:1].to(image, non_blocking=True) if image.shape[1] == 3 else image.new_ones(1, 1)
        factor = (brightness * contrast).view(-1, 1, 1)
        matrix = factor * _color_matrices(saturation, hue) if image.shape[1] == 3 else factor
        mean = (luminance @ image.mean((2, 3)).unsqueeze(2)) * (brightness * (1 - contrast)).view(-1, 1, 1)
        out = torch.baddbmm(mean.expand(-1, image.shape[1], 1), matrix, image.flatten(2)).view_as(image)
        return apply_where_drawn(gaussian_blur, out, [draw.blur_sigma or None for draw in draws]).clamp(0, 1)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Transform an image.

        Args:
            img: (C, H, W) with one or three channels, from 0 to 1.
            randomize: whether to draw anew; else the last draw serves again.

        Returns:
            (C, H, W), of the type of ``img``.
        """
        if randomize:
            self.randomize(img.shape[1:])
        data = convert_to_tensor(img, dtype=torch.float32, track_meta=False)
        return convert_to_dst_type(self.apply(data[None], [self._drawn])[0], img)[0]


class RandColorJitterd(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandColorJitter`: one draw for all keys.

    Args:
        keys: images of one spatial size.
        allow_missing_keys: whether keys may be absent.
        kwargs: arguments of :class:`RandColorJitter`.
    """

    backend = RandColorJitter.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **kwargs: Any) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.transform = RandColorJitter(**kwargs)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandColorJitterd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Transform the items of a dictionary alike."""
        out = dict(data)
        first = self.first_key(out)
        if first == ():
            return out
        self.transform.randomize(out[first].shape[1:])
        for key in self.key_iterator(out):
            out[key] = self.transform(out[key], randomize=False)
        return out


RandColorJitterD = RandColorJitterDict = RandColorJitterd


def _color_matrices(saturation: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """Maps (B, 3, 3) of RGB to RGB that scale and turn the colors and leave the luminance."""
    angle = 2 * math.pi * hue
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], dim=1).view(-1, 3, 3)
    return YIQ_TO_RGB.to(saturation, non_blocking=True) @ turn @ RGB_TO_YIQ.to(saturation, non_blocking=True)
