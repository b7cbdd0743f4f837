# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["CommandWithExamples"]

OPTION = "--example"


class CommandWithExamples(TyperCommand):
    """A command whose ``--example IMAGE LABEL`` takes two words, and may be repeated.

    Typer has options of two words, and options that are repeated, but none that are both; here each of the two words
    is an option of its own, so that the command gets image, label, image, label, ...
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option before the second word too, then read the words as usual."""
        words, left = [], list(args)
        while left:
            word = left.pop(0)
            if word == OPTION or word.startswith(f"{OPTION}="):
                pair = [word.partition("=")[2]] if "=" in word else []
                while len(pair) < 2:
                    if not left or left[0].startswith("--"):
                        raise typer.BadParameter(
                            "needs two files: --example IMAGE LABEL, an annotated scan and its label.",
                            ctx,
                            param_hint=OPTION,
                        )
                    pair.append(left.pop(0))
                words += [OPTION, pair[0], OPTION, pair[1]]
            else:
                words.append(word)
        return super().parse_args(ctx, words)
