# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_fewshot.apps.bundles import read_method
from monai_fewshot.apps.bundles.bundle_step import unknown_settings
from monai_fewshot.utils import did_you_mean

__all__ = ["bundle_words", "read_settings"]


def read_settings(words: Sequence[str]) -> dict[str, str]:
    """Read ``--setting value`` and ``--setting=value``.

    Args:
        words: of a command line.

    Returns:
        Values by name.

    Raises:
        ValueError: where a word is no setting, or has no value.

    Example:
        >>> read_settings(["--fold", "0", "--optimizer#lr=0.01"])
        {'fold': '0', 'optimizer#lr': '0.01'}
    """
    settings: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, is_joined, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise ValueError(f"{word!r} is no setting: settings are told as --NAME VALUE.")
        if not is_joined:
            if not left or left[0].startswith("--"):
                raise ValueError(f"--{name} has no value: settings are told as --{name} VALUE.")
            value = left.pop(0)
        settings[name] = value
    return settings


def bundle_words(name: str, step: str, words: Sequence[str]) -> list[str]:
    """Make the words that ``monai.bundle`` is told to run a step of a bundle in the current folder.

    Args:
        name: of the bundle, or ``bundle/variant``, or the path of a bundle.
        step: such as ``train``.
        words: settings, as :func:`read_settings` reads them.

    Returns:
        The words.

    Raises:
        FileNotFoundError: where there is no such bundle.
        ValueError: where it has no such variant or step, or does not know a setting; the nearest known one is named.
    """
    method = read_method(name)
    if step not in method.steps:
        raise ValueError(f"{method.name} has no step {step}{did_you_mean(step, method.steps)}")
    settings = read_settings(words)
    if unknown := unknown_settings(method.bundle, method.steps[step], settings):
        raise ValueError("\n".join(unknown))
    files = [str(Path(method.bundle, "configs", f"{config}.json")) for config in method.steps[step]]
    told = [word for key, value in settings.items() for word in (f"--{key}", value)]
    return ["run", "--config_file", files[0] if len(files) == 1 else str(files), *told]
