# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from monai_fewshot.utils import did_you_mean

__all__ = ["Entry", "read_entries"]

KINDS = {str: "text", int: "a whole number", float: "a number", dict: "a mapping", list: "a list"}


@dataclass
class Entry:
    """A mapping of a YAML or JSON file that is read key by key; what is wrong with it is noted, not raised.

    Attributes:
        values: the mapping.
        name: what leads to it, such as ``methods.elsnet``; empty for the file itself.
        problems: notes, shared by all entries of a file.
    """

    values: Mapping[str, Any]
    name: str = ""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._known: list[str] = []

    def note(self, key: str, text: str) -> None:
        """Note a problem with a value."""
        self.problems.append(f"{self._path(key)}: {text}")

    def get(self, key: str, kind: type, default: Any = None, required: bool = False) -> Any:
        """Read a value.

        Args:
            key: its name.
            kind: str, int, float, dict or list.
            default: what stands for an absent or wrong value.
            required: whether its absence is a problem.

        Returns:
            The value.
        """
        self._known.append(key)
        value = self.values.get(key)
        if value is None:
            if required:
                self.note(key, f"is missing; give {KINDS[kind]}.")
            return default
        whole = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not whole or (isinstance(value, bool) and kind is not bool):
            self.note(key, f"is {value!r}; give {KINDS[kind]}.")
            return default
        return value

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """Read one of several words; without a default, its absence is a problem."""
        value = self.get(key, str, default, required=default is None)
        if value in choices:
            return value
        if value is not None:
            self.note(key, f"is {value!r}{did_you_mean(value, choices)}")
        return choices[0]

    def get_list(self, key: str, kind: type, default: Iterable[Any] = (), required: bool = False) -> tuple[Any, ...]:
        """Read a list of values of one kind; a single value is a list of one."""
        value = self.values.get(key)
        if isinstance(value, kind) and kind is not list and not isinstance(value, bool):
            self._known.append(key)
            return (value,)
        found = self.get(key, list, required=required)
        if found is None:
            return tuple(default)
        wrong = [item for item in found if not isinstance(item, kind) or isinstance(item, bool)]
        if wrong or not found:
            self.note(key, f"is {found!r}; give a list of which each item is {KINDS[kind]}.")
            return tuple(default)
        return tuple(found)

    def entry(self, key: str) -> Entry:
        """Read a mapping inside this one, empty where there is none."""
        return Entry(self.get(key, dict, {}), self._path(key), self.problems)

    def entries(self, key: str) -> Iterator[tuple[str, Entry]]:
        """Read a mapping of mappings; an empty value is an empty mapping."""
        outer = self.entry(key)
        for name in outer.values:
            if outer.values[name] is None:
                outer._known.append(str(name))
                yield str(name), Entry({}, outer._path(str(name)), self.problems)
            else:
                yield str(name), outer.entry(name)

    def check_keys(self) -> None:
        """Note what nobody has asked for."""
        for key in self.values:
            if key not in self._known:
                self.note(str(key), f"is not known here{did_you_mean(str(key), self._known)}")

    def raise_problems(self, headline: str) -> None:
        """Raise a ValueError with all that was noted, a line each, where anything was."""
        if self.problems:
            lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(self.problems))
            raise ValueError(f"{headline}:\n{lines}")

    def _path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else str(key)


def read_entries(path: Path) -> Entry:
    """Read a YAML or JSON file.

    Args:
        path: the file.

    Returns:
        Its mapping.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: where it is not YAML or JSON, or no mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    kind, read = ("JSON", json.loads) if path.suffix == ".json" else ("YAML", yaml.safe_load)
    try:
        content = read(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not {kind}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping of keys to values, but is {type(content).__name__}.")
    return Entry(content)
