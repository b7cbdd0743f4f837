# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from monai.bundle import ConfigComponent
from monai.utils import optional_import

__all__ = ["build", "define", "definition_of"]

TARGET = "_target_"
ATTRIBUTE = "definition"
OF_CHECKPOINT = "weights"
"""Argument that names a file of weights to begin with; who builds a network again loads a checkpoint in its place."""


def define(name: str, **arguments: Any) -> Any:
    """Make an object of a class, and note in its attribute ``definition`` how, so that a checkpoint can tell.

    In a bundle ``{"_target_": "monai_fewshot.utils.define", "name": "NAME", ...}`` stands where ``{"_target_": "NAME",
    ...}`` would.

    Args:
        name: of the class, dotted, or one of MONAI's short names.
        arguments: of the class: plain values, or objects that were made by this function too.

    Raises:
        ValueError: where there is no such class, or an argument is neither.

    Example:
        >>> definition_of(define("torch.nn.Conv2d", in_channels=1, out_channels=4, kernel_size=3))["out_channels"]
        4
    """
    path = ConfigComponent({TARGET: name}).resolve_module_name()
    definition = {TARGET: path} | {key: _plain(path, key, value) for key, value in arguments.items()}
    made = _find(path)(**arguments)
    object.__setattr__(made, ATTRIBUTE, definition)
    return made


def definition_of(item: Any) -> dict[str, Any]:
    """Tell how an object was made.

    Args:
        item: what :func:`define` has returned.

    Returns:
        The dotted name of its class, ``_target_``, and its arguments, which JSON can hold.

    Raises:
        ValueError: where it was made otherwise.
    """
    definition = getattr(item, ATTRIBUTE, None)
    if not isinstance(definition, Mapping):
        raise ValueError(
            f"How a {type(item).__name__} was made is not known, so that a checkpoint could not say it: make it by "
            f'{{"_target_": "monai_fewshot.utils.define", "name": "{type(item).__module__}.{type(item).__qualname__}", '
            "...}."
        )
    return dict(definition)


def build(definition: Mapping[str, Any], **changes: Any) -> Any:
    """Make an object again by its definition, without the weights that it once began with.

    Args:
        definition: as :func:`definition_of` returns it.
        changes: arguments to be other than they were; of an argument that was defined too, a dictionary of its own
            changes. None changes nothing.

    Raises:
        ValueError: where there is no such class, or one that is neither a network nor of this package.
    """
    path = definition[TARGET]
    made_of = _find(path)
    if not (path.startswith("monai_fewshot.") or (inspect.isclass(made_of) and issubclass(made_of, torch.nn.Module))):
        raise ValueError(f"{path} is no network: a checkpoint that asks for it is not one of a training.")
    changed = {key: value for key, value in changes.items() if value is not None}
    arguments = {key: value for key, value in definition.items() if key not in (TARGET, OF_CHECKPOINT)}
    for key, value in arguments.items():
        if isinstance(value, Mapping) and TARGET in value:
            arguments[key] = build(value, **changed.pop(key, {}))
    return define(path, **arguments | changed)


def _find(path: str) -> Any:
    module, _, name = path.rpartition(".")
    found, exists = optional_import(module, name=name) if module else (None, False)
    if not exists:
        raise ValueError(f"There is no class {path}: correct its name, or install what it is part of.")
    return found


def _plain(path: str, key: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(path, key, item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(path, key, item) for name, item in value.items()}
    if isinstance(getattr(value, ATTRIBUTE, None), Mapping):
        return dict(value.definition)
    raise ValueError(
        f"{path}: {key} is a {type(value).__name__}, which a checkpoint cannot hold. Give plain values, or make it by "
        "monai_fewshot.utils.define."
    )
