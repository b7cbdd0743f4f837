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
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor, ensure_tuple_rep

from monai_fewshot.utils import device_tensor

from .noise import uniform_noise
from .warp import affine_matrices, elastic_displacement, warp

__all__ = ["RandAffineElastic", "RandAffineElasticD", "RandAffineElasticDict", "RandAffineElasticd", "WarpDraw"]


class WarpDraw(NamedTuple):
    """What :class:`RandAffineElastic` draws for one image.

    Attributes:
        rotation: radians.
        translation: pixels along the two axes.
        shear: radians.
        zoom: factor.
        noise_seed: of the noise (:func:`uniform_noise`) whose smoothing gives the elastic deformation.
        flip: whether the content is flipped along each of the two axes.
    """

    rotation: float
    translation: tuple[float, float]
    shear: float
    zoom: float
    noise_seed: int
    flip: tuple[bool, bool] = (False, False)


class RandAffineElastic(RandomizableTransform):
    """Random flips, rotation, shift, shear, zoom and elastic deformation of 2D images in one resampling.

    Lengths are given for images ``REFERENCE_SIZE`` pixels wide and scale with the width of the image.

    Based on: the transforms between support and query of Ouyang et al., "Self-supervision with Superpixels",
    ECCV 2020, section 4.1, https://arxiv.org/abs/2007.09886; defaults are its ranges.

    Deviation: one interpolation instead of two, and the border is repeated outside the image instead of zeros, which
    in normalized images are the average tissue.

    Args:
        prob: probability of a transform.
        rotate: largest rotation either way, radians.
        translate: largest shift either way along each axis, pixels.
        shear: largest shear either way, radians.
        zoom: range of the factor.
        alpha: strength of the elastic deformation, pixels; 0 for none.
        sigma: smoothness of the elastic deformation, pixels.
        flip: probability of a flip along each of the two axes.
        rotate_prob: probability of a rotation, where there is a transform.

    Example:
        >>> import torch
        >>> from monai_fewshot.transforms import RandAffineElastic
        >>> RandAffineElastic().set_random_state(0)(torch.rand(1, 64, 64)).shape
        torch.Size([1, 64, 64])
    """

    backend: ClassVar = [TransformBackends.TORCH]
    REFERENCE_SIZE = 256

    def __init__(
        self,
        prob: float = 1.0,
        rotate: float = math.radians(5),
        translate: float = 5.0,
        shear: float = math.radians(5),
        zoom: tuple[float, float] = (0.9, 1.2),
        alpha: float = 10.0,
        sigma: float = 5.0,
        flip: tuple[float, float] = (0.0, 0.0),
        rotate_prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        if not 0 < zoom[0] <= zoom[1]:
            raise ValueError(f"zoom must be a range of positive factors, low first, got {zoom}.")
        if min(rotate, translate, shear, alpha) < 0 or sigma <= 0:
            raise ValueError(
                "rotate, translate, shear and alpha must not be negative and sigma must be positive, "
                f"got {rotate}, {translate}, {shear}, {alpha} and {sigma}."
            )
        self.rotate = rotate
        self.translate = translate
        self.shear = shear
        self.zoom = zoom
        self.alpha = alpha
        self.sigma = sigma
        self.flip = flip
        self.rotate_prob = rotate_prob
        self._drawn: WarpDraw | None = None

    def randomize(self, data: Sequence[int]) -> None:
        """Draw for an image of spatial size ``data``, (H, W)."""
        if len(data) != 2:
            raise ValueError(
                f"RandAffineElastic transforms 2D images (C, H, W), got one of spatial size {tuple(data)}: cut volumes "
                "into slices first."
            )
        super().randomize(None)
        self._drawn = self.draw(self.R, data) if self._do_transform else None

    def draw(self, random: np.random.RandomState, size: Sequence[int]) -> WarpDraw:
        """Draw the parameters of one image.

        Args:
            random: the source of randomness.
            size: (H, W).
        """
        scale = size[-1] / self.REFERENCE_SIZE
        rotation, *shift, shear = random.uniform(-1, 1, 4) * [self.rotate, *[self.translate * scale] * 2, self.shear]
        zoom = random.uniform(*self.zoom)
        noise_seed = random.randint(1 << 31)
        turned = self.rotate_prob == 1 or random.random_sample() < self.rotate_prob
        flips = [p > 0 and random.random_sample() < p for p in self.flip]
        return WarpDraw(rotation * turned, (shift[0], shift[1]), shear, zoom, noise_seed, (flips[0], flips[1]))

    def apply(self, image: torch.Tensor, draws: Sequence[WarpDraw], modes: Sequence[str]) -> torch.Tensor:
        """Transform a batch.

        Args:
            image: (B, C, H, W).
            draws: B draws.
            modes: the interpolation of each of the C channels, ``"bilinear"`` or ``"nearest"``.

        Returns:
            (B, C, H, W).
        """
        scale = image.shape[3] / self.REFERENCE_SIZE
        rows = [[d.rotation, *d.translation, d.shear, d.zoom, *(1 - 2 * f for f in d.flip)] for d in draws]
        numbers = device_tensor(rows, image.device, image.dtype)
        matrix = affine_matrices(numbers[:, 0], numbers[:, 1:3], numbers[:, 3], numbers[:, 4])
        matrix = matrix * numbers[:, 5:].unsqueeze(2)
        displacement = None
        if self.alpha:
            seeds = device_tensor([d.noise_seed for d in draws], image.device)
            noise = uniform_noise(seeds, (2, *image.shape[2:])).to(image.dtype)
            displacement = elastic_displacement(noise, self.alpha * scale, self.sigma * scale)
        return warp(image, matrix, displacement, modes)

    def __call__(self, img: NdarrayOrTensor, mode: str = "bilinear", randomize: bool = True) -> NdarrayOrTensor:
        """Transform an image.

        Args:
            img: (C, H, W).
            mode: ``"bilinear"``, or ``"nearest"`` for labels.
            randomize: whether to draw anew; else the last draw serves again.

        Returns:
            (C, H, W), of the type of ``img``.
        """
        if randomize:
            self.randomize(img.shape[1:])
        if self._drawn is None:
            return img
        data = convert_to_tensor(img, dtype=torch.float32, track_meta=False)
        out = self.apply(data[None], [self._drawn], [mode] * len(data))[0]
        return convert_to_dst_type(out, img)[0]


class RandAffineElasticd(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandAffineElastic`: one draw for all keys.

    Args:
        keys: images and labels, (C, H, W), of one spatial size.
        mode: interpolation for each key, ``"bilinear"`` or ``"nearest"``.
        prob: probability of a transform.
        allow_missing_keys: whether keys may be absent.
        kwargs: further arguments of :class:`RandAffineElastic`.
    """

    backend = RandAffineElastic.backend

    def __init__(
        self,
        keys: KeysCollection,
        mode: Sequence[str] | str = "bilinear",
        prob: float = 1.0,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.transform = RandAffineElastic(prob=1.0, **kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandAffineElasticd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Transform the items of a dictionary alike."""
        out = dict(data)
        self.randomize(None)
        first = self.first_key(out)
        if not self._do_transform or first == ():
            return out
        self.transform.randomize(out[first].shape[1:])
        for key, mode in self.key_iterator(out, self.mode):
            out[key] = self.transform(out[key], mode, randomize=False)
        return out


RandAffineElasticD = RandAffineElasticDict = RandAffineElasticd
