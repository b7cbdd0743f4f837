# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""Print the mean Dice of evaluations side by side: ``python scripts/show_dice.py NAME results.json [NAME ...]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def mean_dice(path: str) -> dict[str, float]:
    """Mean Dice in percent by protocol, over all classes and folds."""
    rows = json.loads(Path(path).read_text())["summary"]
    return {row["protocol"]: 100 * row["dice"] for row in rows if row["fold"] is None and row["class_number"] is None}


def main(arguments: list[str]) -> None:
    """Print the table."""
    columns = {name: mean_dice(path) for name, path in zip(arguments[::2], arguments[1::2], strict=True)}
    protocols = list(dict.fromkeys(protocol for column in columns.values() for protocol in column))
    print(f"{'Mean Dice, percent':24}" + "".join(f"{name:>12}" for name in columns))
    for protocol in protocols:
        print(f"{protocol:24}" + "".join(f"{column[protocol]:12.1f}" for column in columns.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
