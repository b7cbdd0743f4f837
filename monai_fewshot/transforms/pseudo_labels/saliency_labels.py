# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from os import PathLike
from typing import Any

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.transform import resize

from monai_fewshot.transforms.preparation.body_mask import largest_component
from monai_fewshot.transforms.preparation.image_checks import finite_array, keys_beside

from . import boundary_saliency as by_boundary
from . import spectral_residual as by_spectrum
from .boundary_saliency import boundary_saliency
from .pseudo_label_source import PseudoLabelSource, PseudoLabelSourced
from .spectral_residual import spectral_residual_saliency

__all__ = [
    "SaliencyLabels",
    "SaliencyLabelsD",
    "SaliencyLabelsDict",
    "SaliencyLabelsd",
    "SaliencyMap",
    "SaliencyMapD",
    "SaliencyMapDict",
    "SaliencyMapd",
    "clean_saliency",
]

METHODS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], ...]] = {
    "spectral_residual": (spectral_residual_saliency,),
    "boundary": (boundary_saliency,),
    "fused": (spectral_residual_saliency, boundary_saliency),
}


def clean_saliency(saliency: np.ndarray, opening: int = 2) -> np.ndarray:
    """Make a mask of a saliency map: above Otsu's threshold, opened, holes filled, the largest component.

    Args:
        saliency: (H, W), 0 to 1.
        opening: radius of the opening, pixels.

    Returns:
        (H, W) bool, empty where the map is constant.

    Example:
        >>> saliency = np.zeros((32, 32))
        >>> saliency[8:24, 8:24], saliency[2:4, 28:31] = 0.9, 0.9
        >>> int(clean_saliency(saliency).sum())
        244
    """
    if np.ptp(saliency) == 0:
        return np.zeros(saliency.shape, bool)
    mask = saliency > threshold_otsu(saliency)
    opened = ndimage.binary_opening(mask, iterations=opening) if opening else mask
    return largest_component(ndimage.binary_fill_holes(opened))


class SaliencyMap(Transform):
    """What stands out in an image, without any annotation.

    Two maps made by hand and their mean: the spectral residual
    (:func:`spectral_residual_saliency`), which finds what is small and
    unlike its surroundings, and robust background detection
    (:func:`boundary_saliency`), which finds what is not connected to the
    border. MaskSplit's first step (Amac et al., WACV 2022, section 3.2, https://arxiv.org/abs/2110.12207) learns its
    maps from several such.

    Args:
        method: ``"spectral_residual"``, ``"boundary"`` or ``"fused"``.
        resolution: longer side at which the maps are computed, pixels; they come back at the image's size.

    Raises:
        ValueError: for another method.

    Example:
        >>> image = np.full((3, 64, 64), 0.8) + np.random.RandomState(0).rand(3, 64, 64) / 20
        >>> image[:, 20:44, 20:44] = 0.2
        >>> saliency = SaliencyMap("boundary")(image)
        >>> bool(saliency[0, 32, 32] > 0.5 > saliency[0, 4, 4])
        True
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012

    def __init__(self, method: str = "fused", resolution: int = 160) -> None:
        if method not in METHODS:
            raise ValueError(f"method is {method!r}, must be one of {', '.join(METHODS)}.")
        self.method = method
        self.resolution = resolution

    def of_slice(self, image: np.ndarray) -> np.ndarray:
        """Saliency (H, W), 0 to 1, of a slice (C, H, W)."""
        scale = min(1.0, self.resolution / max(image.shape[1:]))
        size = tuple(max(8, round(scale * length)) for length in image.shape[1:])
        small = np.stack([resize(channel.astype(np.float64), size, anti_aliasing=scale < 1) for channel in image])
        saliency = np.mean([method(small) for method in METHODS[self.method]], axis=0)
        return resize(saliency, image.shape[1:], order=1)

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Saliency of an image.

        Args:
            image: (C, H, W[, D]); a volume's slices are those of its last axis.

        Returns:
            (1, H, W[, D]), float32, 0 to 1, of the image's own array type and metadata.

        Raises:
            ValueError: when the image is not (C, H, W[, D]), or holds NaN or infinite values.
        """
        array = finite_array(image)
        volume = array if array.ndim == 4 else array[..., None]
        maps = np.stack([self.of_slice(volume[..., index]) for index in range(volume.shape[-1])], axis=-1)
        return convert_to_dst_type(maps.reshape(1, *array.shape[1:]), image, dtype=np.float32)[0]


class SaliencyMapd(MapTransform):
    """Dictionary form of :class:`SaliencyMap`: writes the map of an image under a key of its own.

    Args:
        keys: keys of the images.
        saliency_key: key to write the map under, one for each of the keys.
        allow_missing_keys: whether to pass over keys that are absent.
        kwargs: arguments of :class:`SaliencyMap`.
    """

    backend = SaliencyMap.backend

    def __init__(
        self,
        keys: KeysCollection,
        saliency_key: KeysCollection = "saliency",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.saliency_key = keys_beside(self.keys, saliency_key, "saliency_key")
        self.transform = SaliencyMap(**kwargs)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Add the maps, (1, H, W[, D]), to the dictionary."""
        d = dict(data)
        for key, new_key in self.key_iterator(d, self.saliency_key):
            d[new_key] = self.transform(d[key])
        return d


class SaliencyLabels(PseudoLabelSource):
    """Saliency of every slice as its one pseudo-label (:class:`SaliencyMap`, :func:`clean_saliency`).

    Args:
        method: see :class:`SaliencyMap`.
        resolution: see :class:`SaliencyMap`.
        opening: radius of the opening that cleans the mask, pixels.
        threshold: intensity that the foreground exceeds, or "auto"; see :class:`BodyMask`. Defaults to minus infinity,
            all of the image, which suits photographs.
        min_area: smallest number of pixels of a pseudo-label.
        cache_dir: folder that keeps results under a key of image content and parameters. Defaults to None, no cache.

    Raises:
        ValueError: when a number is out of its range, or for an unknown method.
        OSError: when the cache folder cannot be written to.
    """

    constants_of = (by_boundary, by_spectrum)

    def __init__(
        self,
        method: str = "fused",
        resolution: int = 160,
        opening: int = 2,
        threshold: float | str = -np.inf,
        min_area: int = 50,
        cache_dir: str | PathLike | None = None,
    ) -> None:
        super().__init__(threshold, min_area, cache_dir)
        self.saliency = SaliencyMap(method, resolution)
        self.opening = opening

    def parameters(self, image: NdarrayOrTensor) -> dict[str, Any]:
        """Method, resolution and opening."""
        return {"method": self.saliency.method, "resolution": self.saliency.resolution, "opening": self.opening}

    def regions(self, image: np.ndarray, foreground: np.ndarray, **parameters: Any) -> np.ndarray:
        """The salient region of every slice, 1, where it is large enough."""

        def region(index: int) -> np.ndarray:
            inside = foreground[..., index]
            plane = np.where(inside, image[..., index], 0)
            mask = clean_saliency(self.saliency.of_slice(plane), self.opening) & inside
            return mask * (mask.sum() >= self.min_area)

        return np.stack([region(index) for index in range(image.shape[-1])], axis=-1).astype(np.int32)


class SaliencyLabelsd(PseudoLabelSourced):
    """Dictionary form of :class:`SaliencyLabels`: arguments of the base class, then its own by name."""

    source_type = SaliencyLabels


SaliencyMapD = SaliencyMapDict = SaliencyMapd
SaliencyLabelsD = SaliencyLabelsDict = SaliencyLabelsd
