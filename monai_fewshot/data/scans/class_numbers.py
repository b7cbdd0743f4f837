# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_tensor

__all__ = ["class_numbers", "numbers_called", "slices_with_classes"]


def slices_with_classes(label: NdarrayOrTensor, classes: Sequence[int]) -> NdarrayOrTensor:
    """Find the slices of a volume that hold any of some classes.

    The field's setting 2 leaves such slices out of self-supervised training, so that the tested classes are unseen;
    its setting 1 leaves none out.

    Based on: Ouyang et al., "Self-supervision with Superpixels", ECCV 2020, section 4.1,
    https://arxiv.org/abs/2007.09886.

    Deviation: several later implementations exclude only slices that hold all of the tested classes, which excludes
    nearly nothing; here any one of them excludes a slice, as the papers say.

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


def class_numbers(class_names: Mapping[int, str], classes: str | int | Sequence[str | int]) -> tuple[int, ...]:
    """Look up classes given by name or number.

    Args:
        class_names: name by number, as :func:`monai_fewshot.data.load_class_names` returns them; where it is empty,
            numbers are taken as they are.
        classes: one class or several, each a name or a number. Upper or lower case of a name matters only where a
            class is called just so.

    Returns:
        Numbers, in the order of ``classes``.

    Raises:
        ValueError: if a class is not among ``class_names``, or a name is that of several; all such are listed, with
            what there is.

    Example:
        >>> class_numbers({1: "liver", 4: "spleen"}, ["Spleen", 1])
        (4, 1)
    """
    wanted = [classes] if isinstance(classes, (str, int)) else list(classes)
    known = set(class_names) or {item for item in wanted if isinstance(item, int) and item > 0}
    found = {
        item: numbers_called(item, class_names) if isinstance(item, str) else [item] if item in known else []
        for item in wanted
    }
    listed = ", ".join(f"{number} {name}" for number, name in sorted(class_names.items())) or "none are named."
    unknown = [item for item in wanted if not found[item]]
    if unknown:
        raise ValueError(f"classes: {', '.join(map(repr, unknown))} not among the classes of the data set: {listed}")
    doubled = [item for item in wanted if len(found[item]) > 1]
    if doubled:
        raise ValueError(
            f"classes: {', '.join(map(repr, doubled))} is the name of several classes of the data set ({listed}): give "
            "their numbers."
        )
    return tuple(int(found[item][0]) for item in wanted)


def numbers_called(name: str, class_names: Mapping[int, str]) -> list[int]:
    """Numbers of the classes that have a name; where none has it just so, in upper or lower case."""
    exact = [number for number, own in class_names.items() if own == name]
    return exact or [number for number, own in class_names.items() if own.casefold() == name.casefold()]
