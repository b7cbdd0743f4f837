# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from monai_fewshot.utils.devices import check_device
from monai_fewshot.utils.precision import as_dtype

__all__ = ["SETTING_KINDS", "SettingKind", "plain_value", "read_setting"]

NOTHING = (None, "none", "null")
TRUTH = {"true": True, "false": False}


class SettingKind(NamedTuple):
    """What a setting takes.

    Attributes:
        told: it, for an error message.
        example: a value, as on the command line.
        read: brings a value into the form that the configuration expects; raises ValueError for another kind.
        optional: whether None is a value.
        path: whether it names files or folders, in which ``#``, ``@`` and ``~`` stand for themselves.
    """

    told: str
    example: str
    read: Callable[[Any], Any]
    optional: bool = False
    path: bool = False


def read_setting(name: str, value: Any, in_training: bool = False) -> Any:
    """Read a value of a setting as the command line gave it.

    Args:
        name: of the setting; of one that is not in ``SETTING_KINDS`` the value is returned as it is.
        value: a plain value, not an expression.
        in_training: whether a network is trained: it leaves out one ``fold``, not several.

    Returns:
        The value, in the form that configurations expect: ``[64, 64]`` for an ``image_size`` of 64.

    Raises:
        ValueError: where it is of another kind; the text has the setting's name and an example.

    Example:
        >>> read_setting("image_size", 64), read_setting("resume", "true"), read_setting("classes", "liver")
        ([64, 64], True, ['liver'])
        >>> read_setting("fold", [0, 1], in_training=True)
        Traceback (most recent call last):
        ...
        ValueError: --fold is [0, 1]: give one whole number from 0, or None, such as --fold 0.
    """
    kind = ONE_FOLD if in_training and name == "fold" else SETTING_KINDS.get(name)
    if kind is None:
        return value
    if kind.optional and (value.lower() if isinstance(value, str) else value) in NOTHING:
        return None
    try:
        return kind.read(value)
    except ValueError as error:
        none = ", or None," if kind.optional else ","
        text = f"--{name} is {value!r}: give {kind.told}{none} such as --{name} {kind.example}."
        raise ValueError(*(error.args or [text])) from error


def plain_value(value: Any) -> Any:
    r"""Write text, or a list of texts, so that a configuration leaves ``#`` and ``@`` in it alone.

    Args:
        value: of a setting; what is neither text nor a list is returned as it is, and so are expressions.

    Example:
        >>> plain_value(["/data/study #1", "/data/study 2"])
        ["$'/data/study \\x231'", '/data/study 2']
    """
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    if not isinstance(value, str) or "#" not in value or value.startswith(("$", "@", "%")):
        return value
    return "$" + repr(value).replace("#", r"\x23").replace("@", r"\x40")


def _whole(least: int, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, str):
        value = TRUTH.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError
    return value


def _text(value: Any) -> str:
    """Take a word, or a whole number, whose digits are the word; 1.50 and True are no longer what was typed."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError
    return str(value)


def _path(value: Any) -> str:
    text = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if not text:
        raise ValueError
    return os.path.expanduser(text.replace("::", "#"))


def _device(value: Any) -> Any:
    if not isinstance(value, (str, torch.device)):
        raise ValueError
    check_device(value)
    return value


def _dtype(value: Any) -> Any:
    """Take a precision that there is; whether the device has it, and why not, is told where the device is checked."""
    if not isinstance(value, (str, torch.dtype)):
        raise ValueError
    return value if as_dtype(value) is None else f"${as_dtype(value)}"


def _size(value: Any) -> list[int]:
    size = [value, value] if isinstance(value, int) else list(_listed(value))
    if len(size) != 2:
        raise ValueError
    return [_whole(1, number) for number in size]


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    return list(value)


def _one_or_more(read: Callable[[Any], Any], value: Any) -> Any:
    return [read(item) for item in _listed(value)] if isinstance(value, (list, tuple)) else read(value)


def _list_of(read: Callable[[Any], Any], value: Any) -> list[Any]:
    return [read(item) for item in (value if isinstance(value, (list, tuple)) else [value])]


def _class(value: Any) -> str | int:
    return value if isinstance(value, str) and value else _whole(1, value)


def _slices(value: Any) -> Any:
    if value == "labeled":
        return value
    return [_slices_of_scan(part) for part in value] if _is_nested(value) else _numbers(value)


def _slices_of_scan(value: Any) -> Any:
    if value is None or value == "labeled":
        return value
    return [_whole(0, number) for number in value] if isinstance(value, (list, tuple)) else _whole(0, value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(item is None or isinstance(item, (list, tuple)) for item in value)


def _numbers(value: Any) -> Any:
    return _one_or_more(partial(_whole, 0), value)


def _names(value: Any) -> Any:
    return value if isinstance(value, dict) else _one_or_more(_text, value)


def _codes(value: Any) -> Any:
    return value if isinstance(value, dict) else _path(value)


FROM_0 = SettingKind("a whole number from 0", "0", partial(_whole, 0))
FROM_1 = SettingKind("a whole number from 1", "4", partial(_whole, 1))
NUMBER = SettingKind("a number", "0.5", _number)
FLAG = SettingKind("True or False", "True", _flag)
WORD = SettingKind("a word, in quotes where it is a number", "'\"1.5\"'", _text)
PATH = SettingKind("a path", "./2024.10", _path, path=True)
PATHS = SettingKind("a path or a list of paths", "./2024.10", partial(_one_or_more, _path), path=True)
WORDS = SettingKind("a word or a list of words, in quotes where they are numbers", "\"['1.5','2']\"", _names)
CLASSES = SettingKind("names or numbers of classes", "\"['liver','spleen']\"", partial(_list_of, _class))
SIZE = SettingKind("height and width in pixels", '"[128,128]"', _size)
DTYPE = SettingKind("float32 or bfloat16", "float32", _dtype)
DEVICE = SettingKind("cpu, cuda or cuda:N", "cpu", _device)
SLICES = SettingKind("n for every n-th slice, 'labeled', or a list of numbers", "5", _slices, optional=True)
NUMBERS = SettingKind("a whole number from 0 or a list of them", "0", _numbers, optional=True)
ONE_FOLD = SettingKind("one whole number from 0", "0", partial(_whole, 0), optional=True)
CODES = SettingKind("a file or a dictionary", "codes.json", _codes, optional=True, path=True)

_NAMES: dict[SettingKind, str] = {
    FROM_0: "num_val_scans num_val_episodes num_val_tasks seed num_threads rounds min_pixels num_unlabeled inner_steps",
    FROM_1: "max_epochs epoch_length batch_size unlabeled_batch_size accumulation_steps num_folds val_interval shots "
    "channels ways queries runs episodes_per_run num_support_slices train_window steps tasks_at_once max_slices",
    NUMBER: "threshold neighbor_weight lr inner_lr proximal val_share threshold_weight surrogate_weight "
    "contrast_weight min_confidence mask_threshold minutes flag_below",
    FLAG: "resume overwrite keep_largest measurements previews probabilities hd95 inductive augment_support "
    "binary_masks checkpointing compare_pseudo_labels compile channels_last freeze_encoder learn_rates",
    WORD: "support protocol output_postfix layout placement backgrounds embedding_layer composition inner_optimizer "
    "method",
    PATH: "bundle_root ckpt_dir cache_dir output_dir masks_dir unlabeled_dir seed_labels start_from weights kvasir_dir "
    "ph2_dir isic_dir",
    PATHS: "dataset_dir checkpoint support_image support_label",
    WORDS: "modality description series_uid support_series_uid outputs class_names",
    CLASSES: "classes exclude_classes",
    SIZE: "image_size",
    DTYPE: "dtype",
    DEVICE: "device",
    SLICES: "annotated_slices",
    NUMBERS: "support_slices fold",
    CODES: "segment_codes",
}
_OPTIONAL = [
    "mask_threshold",
    "minutes",
    "flag_below",
    "compile",
    "channels_last",
    "seed_labels",
    "start_from",
    "weights",
    "modality",
    "description",
    "series_uid",
    "support_series_uid",
    "image_size",
    "outputs",
    "class_names",
    "classes",
    "support_image",
    "support_label",
    "ways",
    "tasks_at_once",
    "max_slices",
    "inner_steps",
    "inner_lr",
    "inner_optimizer",
]
SETTING_KINDS: dict[str, SettingKind] = {
    name: kind._replace(optional=kind.optional or name in _OPTIONAL)
    for kind, names in _NAMES.items()
    for name in names.split()
}
"""Kind by name of the settings of the bundles that are plain values."""
