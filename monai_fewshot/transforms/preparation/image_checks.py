# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from monai.config import KeysCollection, NdarrayOrTensor
from monai.utils import convert_to_numpy, ensure_tuple

from monai_fewshot.utils import file_of

__all__ = ["finite_array", "keys_beside"]


def finite_array(image: NdarrayOrTensor) -> np.ndarray:
    """Numpy array of a channel-first slice or volume, checked.

    Args:
        image: intensities, (C, H, W[, D]).

    Returns:
        The same values in the same type.

    Raises:
        ValueError: when the image is not (C, H, W) or (C, H, W, D), has an empty axis, or holds NaN or infinite values.
    """
    array = convert_to_numpy(image)
    name = file_of(image, "image")
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(
            f"{name} must be a slice (C, H, W) or a volume (C, H, W, D) with no empty axis, got shape {array.shape}; "
            "load it with ensure_channel_first=True"
        )
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(
            f"{name} holds NaN or infinite values in {bad} of {array.size} voxels; replace them first, "
            "for example with numpy.nan_to_num"
        )
    return array


def keys_beside(keys: tuple[Hashable, ...], new_keys: KeysCollection, argument: str) -> tuple[Hashable, ...]:
    """Keys that a dictionary transform writes, one for each key that it reads.

    Args:
        keys: keys that are read.
        new_keys: keys that are written.
        argument: name of the argument that holds the new keys, for the error's text.

    Returns:
        The new keys as a tuple.

    Raises:
        ValueError: when there are not as many new keys as keys, or one repeats.
    """
    names = ensure_tuple(new_keys)
    if len(names) != len(keys) or len(set(names)) != len(names):
        raise ValueError(f"{argument} must name one new key for each of the keys {keys}, got {names}")
    return names
