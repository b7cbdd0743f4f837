# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import version
from os import PathLike
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_to_dst_type

from monai_fewshot.transforms.preparation import body_mask
from monai_fewshot.transforms.preparation.image_checks import finite_array, keys_beside
from monai_fewshot.utils.array_cache import ArrayCache, array_key

__all__ = ["PseudoLabelSource", "PseudoLabelSourced", "consecutive_labels"]


def consecutive_labels(labels: np.ndarray, min_area: int) -> np.ndarray:
    """Renumber regions 1..n in the order of their ids, and drop those of fewer than ``min_area`` elements.

    Args:
        labels: non-negative integers of any shape, 0 where there is no region.
        min_area: smallest number of pixels or voxels of a region that is kept.

    Returns:
        int32 array of the same shape.

    Example:
        >>> consecutive_labels(np.array([0, 7, 7, 3, 9, 9]), min_area=2)
        array([0, 1, 1, 0, 2, 2], dtype=int32)
    """
    areas = np.bincount(labels.ravel())
    kept = areas >= max(min_area, 1)
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]


def _constants(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper()}


class PseudoLabelSource(Transform):
    """Base of the transforms that lay a map of drawable pseudo-labels beside an image.

    A source implements :meth:`regions`, which divides an image into regions. What is the same for all happens here:
    the image is checked, regions are restricted to the body (:class:`BodyMask`), slices without contrast are left
    out, fragments that the restriction leaves are dropped, ids are made consecutive, and the result is cached.
    The cache's key names all that decides the result: the image, the parameters, ``algorithm_version``, the constants
    of ``constants_of`` and the versions of numpy, scipy and scikit-image. Raise ``algorithm_version`` when a source's
    code is changed so that its results change.

    Args:
        threshold: intensity that the foreground exceeds, or "auto"; see :class:`BodyMask`.
        min_area: smallest number of foreground pixels (voxels) of a pseudo-label.
        cache_dir: folder that keeps results under a key of image content and parameters, or None.

    Raises:
        ValueError: when a number is out of its range.
        OSError: when the cache folder cannot be written to.
    """

    backend = [TransformBackends.NUMPY]  # noqa: RUF012
    algorithm_version = 1
    constants_of: ClassVar[tuple[ModuleType, ...]] = ()
    """Modules of the algorithm, whose constants decide the result, beside that of the body mask."""

    def __init__(
        self,
        threshold: float | str,
        min_area: int,
        cache_dir: str | PathLike | None,
    ) -> None:
        if min_area < 1:
            raise ValueError(f"min_area must be 1 or greater, got {min_area}")
        self.body_mask = body_mask.BodyMask(threshold)
        self.min_area = min_area
        self.cache = None if cache_dir is None else ArrayCache(cache_dir)

    @abstractmethod
    def parameters(self, image: NdarrayOrTensor) -> dict[str, Any]:
        """What the regions depend on besides the intensities; part of the cache's key."""

    @abstractmethod
    def regions(self, image: np.ndarray, foreground: np.ndarray, **parameters: Any) -> np.ndarray:
        """Divide a volume into consecutive regions restricted to the foreground.

        Args:
            image: intensities, (C, H, W, D), D = 1 for a 2D image.
            foreground: boolean, (H, W, D).
            parameters: what :meth:`parameters` returned.

        Returns:
            int32 map (H, W, D), 0 outside the foreground.
        """

    def compute(self, image: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
        """Pseudo-labels (1, H, W[, D]) of checked intensities (C, H, W[, D]), without the cache."""
        volume = image if image.ndim == 4 else image[..., None]
        foreground = self.body_mask.mask(volume)
        foreground &= np.ptp(volume, axis=(1, 2)).any(axis=0)
        if not foreground.any():
            return np.zeros((1, *image.shape[1:]), np.int32)
        return self.regions(volume, foreground, **parameters).reshape(1, *image.shape[1:])

    def cached(self, cache: ArrayCache, image: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
        """What :meth:`compute` returns, from the cache where it holds it."""
        settings = {
            "source": type(self).__name__,
            "version": self.algorithm_version,
            "libraries": [np.__version__, version("scipy"), version("scikit-image")],
            "constants": [_constants(module) for module in (body_mask, *self.constants_of)],
            "threshold": self.body_mask.threshold,
            "min_area": self.min_area,
        }
        key = array_key(image, {**settings, **parameters})
        labels = cache.get(key)
        if labels is None:
            labels = self.compute(image, parameters)
            cache.put(key, labels)
        return labels

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Pseudo-labels of an image.

        Args:
            image: intensities, (C, H, W[, D]); a volume's slices are those of its last axis.

        Returns:
            int32 map, (1, H, W[, D]), 0 where nothing is drawn, of the image's own array type and metadata.

        Raises:
            ValueError: when the image is not (C, H, W) or (C, H, W, D), or holds NaN or infinite values.
        """
        array = finite_array(image)
        parameters = self.parameters(image)
        labels = self.compute(array, parameters) if self.cache is None else self.cached(self.cache, array, parameters)
        return convert_to_dst_type(labels, image, dtype=np.int32)[0]


class PseudoLabelSourced(MapTransform):
    """Base of the dictionary forms: writes the pseudo-labels of an image under a key of their own.

    A subclass names the array form as its ``source_type``.

    Args:
        keys: keys of the images.
        pseudo_label_key: key to write the map under, one for each of the keys. Defaults to "pseudo_label".
        allow_missing_keys: whether to pass over keys that are absent. Defaults to False.
        kwargs: arguments of the array form.
    """

    backend = PseudoLabelSource.backend
    source_type: Callable[..., PseudoLabelSource]

    def __init__(
        self,
        keys: KeysCollection,
        pseudo_label_key: KeysCollection = "pseudo_label",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pseudo_label_key = keys_beside(self.keys, pseudo_label_key, "pseudo_label_key")
        self.source = self.source_type(**kwargs)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Add the pseudo-labels, (1, H, W[, D]), to the dictionary."""
        d = dict(data)
        for key, new_key in self.key_iterator(d, self.pseudo_label_key):
            d[new_key] = self.source(d[key])
        return d
