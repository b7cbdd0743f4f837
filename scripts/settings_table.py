# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/settings.md, the table of all settings of the bundles; their meanings stand in settings.yaml.

python scripts/settings_table.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "settings.md"
CONFIGS = ("train", "evaluate", "inference")
HEAD = """# All settings

What `train.json`, `evaluate.json` and `inference.json` of the bundles have on their first level, and the defaults.
Bundles are named where not all of them have a setting or its default. Any of it can be overridden on the command line,
as `--batch_size 8`, or as `--encoder#channels "[16,32]"` for an argument of a part; what overrides such as `paper.json`
change stands on the bundles' own pages.

A setting that the bundle does not have is refused, with the nearest one that it has; so is a value of another kind.
Settings of your own, in a file that you add, must be used by an expression of it; names that begin with `_` are free
for notes. In paths `~`, `#`, `@`, spaces and braces are what they are; before a name that begins with `$`, `@` or `%`,
or that looks like a decimal number, write `./`. `--resume True` goes on with a training of the same settings; with
another `--max_epochs` the learning rate follows the new length. Errors that are known are shown without the lines of
code they come from; set the environment variable `MONAI_FEWSHOT_TRACEBACK=1` to see them.

This page is made by `python scripts/settings_table.py`.
"""

Defaults = dict[str, dict[str, Any]]
"""Of each configuration file that has a setting, its default by bundle."""


def bundle_settings() -> tuple[dict[str, Defaults], dict[str, list[str]]]:
    """Defaults by setting, and the bundles that have each configuration file."""
    found: dict[str, Defaults] = {}
    bundles: dict[str, list[str]] = {}
    for config in CONFIGS:
        for path in sorted((ROOT / "bundles").glob(f"*/configs/{config}.json")):
            bundle = path.parents[1].name
            bundles.setdefault(config, []).append(bundle)
            for name, value in json.loads(path.read_text(encoding="utf-8")).items():
                found.setdefault(name, {}).setdefault(config, {})[bundle] = value
    return found, bundles


def cell(defaults: Mapping[str, Any], bundles: list[str]) -> str:
    """Tell the defaults of a setting in one kind of configuration file."""
    by_text: dict[str, list[str]] = {}
    for bundle, value in defaults.items():
        by_text.setdefault(shown(value), []).append(bundle)
    names = {text: having for text, having in by_text.items() if having != bundles}
    lists = {
        text: "all but " + ", ".join(b for b in bundles if b not in having)
        if len(bundles) - len(having) < len(having) / 2
        else ", ".join(having)
        for text, having in names.items()
    }
    return "; ".join(text + (f" ({lists[text]})" if text in lists else "") for text in by_text)


def shown(value: Any) -> str:
    """A default, in Markdown: the class of a part, other values as they stand in the file."""
    if isinstance(value, Mapping):
        path = value.get("name", value.get("_target_"))
        return "several parts" if path is None else f"`{path.rpartition('.')[2]}`"
    text = json.dumps(value) if not isinstance(value, str) or not value.startswith("$") else value[1:]
    return "computed" if len(text) > 60 else f"`{text}`"


def page() -> str:
    """The text of the page.

    Raises:
        ValueError: where a setting has no meaning, or a meaning no setting.
    """
    found, bundles = bundle_settings()
    meanings = yaml.safe_load(Path(__file__).with_name("settings.yaml").read_text(encoding="utf-8"))
    told = [name for section in meanings.values() for name in section]
    if set(told) != set(found):
        raise ValueError(f"scripts/settings.yaml and the bundles differ in {sorted(set(told) ^ set(found))}.")
    parts = [HEAD]
    for title, section in meanings.items():
        lines = [f"| setting | {' | '.join(CONFIGS)} | meaning |", "|" + " --- |" * (2 + len(CONFIGS))]
        for name, meaning in section.items():
            cells = [cell(found[name].get(config, {}), bundles[config]) for config in CONFIGS]
            lines.append(f"| `{name}` | {' | '.join(cells)} | {meaning} |")
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
