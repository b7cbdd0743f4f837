# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_tensor

__all__ = ["class_numbers", "slices_with_classes", "training_slices"]


def slices_with_classes(label: NdarrayOrTensor, classes: Sequence[int]) -> NdarrayOrTensor:
    """Find the slices of a volume that hold any of some classes.

    Args:
        label: label map (1, H, W, D) or (H, W, D); slices lie along the last axis.
        classes: class numbers.

    Returns:
        Boolean (D,), an array for an array, a tensor on the same device for a tensor.

    Example:
        >>> label = np.zeros((2, 2, 3))
        >>> label[0, 0] = [0, 1, 2]
        >>> slices_with_classes(label, [2, 3]).tolist()
        [False, False, True]
    """
    axes = tuple(range(label.ndim - 1))
    if isinstance(label, np.ndarray):
        return np.isin(label, list(classes)).any(axis=axes)
    plain = convert_to_tensor(label, track_meta=False)
    return torch.isin(plain, torch.tensor(list(classes), dtype=torch.long, device=plain.device)).any(dim=axes)


def training_slices(label: NdarrayOrTensor, setting: int, classes: Sequence[int] = ()) -> NdarrayOrTensor:
    """Find the slices of a volume that self-supervised training may see.

    Setting 1 excludes nothing, so tested classes are in the training images, unlabelled. Setting 2 excludes every
    slice that holds any of the tested classes, so that they are unseen.

    Based on: Roy et al., "'Squeeze & excite' guided few-shot segmentation of volumetric images", MedIA 2020,
    https://arxiv.org/abs/1902.01314, and Ouyang et al., TMI 2022, https://arxiv.org/abs/2007.09886.

    Deviation: several later implementations exclude only slices that hold all of the tested classes, which excludes
    nearly nothing; here any one of them excludes a slice, as the papers say.

    Args:
        label: label map (1, H, W, D) or (H, W, D); slices lie along the last axis.
        setting: 1 or 2.
        classes: numbers of the tested classes; needed for setting 2.

    Returns:
        Boolean (D,), an array for an array, a tensor for a tensor.

    Raises:
        ValueError: if ``setting`` is neither 1 nor 2, or 2 without ``classes``.
    """
    if setting not in (1, 2):
        raise ValueError(f"setting is {setting!r}; expected 1 (excludes nothing) or 2 (excludes the tested classes).")
    if setting == 2 and not len(classes):
        raise ValueError("setting 2 excludes the slices of the tested classes, but classes is empty: name them.")
    return ~slices_with_classes(label, classes if setting == 2 else ())


def class_numbers(class_names: Mapping[int, str], classes: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """Look up classes given by name or number.

    Args:
        class_names: name by number, as :func:`monai_fewshot.data.load_class_names` returns them; where it is empty,
            numbers are taken as they are.
        classes: one class or several, each a name (upper or lower case) or a number.

    Returns:
        Numbers, in the order of ``classes``.

    Raises:
        ValueError: if a class is not among ``class_names``; all such are listed, with what there is.

    Example:
        >>> class_numbers({1: "liver", 4: "spleen"}, ["Spleen", 1])
        (4, 1)
    """
    wanted = [classes] if isinstance(classes, (str, int)) else list(classes)
    by_name = {name.casefold(): number for number, name in class_names.items()}
    numbers = [by_name.get(item.casefold()) if isinstance(item, str) else item for item in wanted]
    known = set(class_names) or {item for item in wanted if isinstance(item, int) and item > 0}
    unknown = [item for item, number in zip(wanted, numbers, strict=True) if number not in known]
    if unknown:
        raise ValueError(
            f"classes: {', '.join(map(repr, unknown))} not among the classes of the data set: "
            + (", ".join(f"{number} {name}" for number, name in sorted(class_names.items())) or "none are named.")
        )
    return tuple(int(number) for number in numbers if number is not None)
