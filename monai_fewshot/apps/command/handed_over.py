# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
import runpy
import sys
from typing import Annotated

import typer

__all__ = ["add_commands"]

ANY_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
NO_HELP = {**ANY_OPTIONS, "help_option_names": []}
TOOLS = {
    "prepare": ("prepare", "Prepare a data set as published: CHAOS, ACDC, nnU-Net, a plain folder, ..."),
    "benchmark": ("benchmark", "Run many methods on many data sets, in one table."),
    "phantom": ("phantom", "Write phantom scans with labels, to try things out."),
    "bundle": ("bundles", "List the bundles (list), or copy one to change it (copy NAME)."),
}
STEPS = {
    "train": "Train a bundle in the current folder: train NAME --SETTING VALUE ...",
    "evaluate": "Evaluate a bundle in the current folder: evaluate NAME --SETTING VALUE ...",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Bundle, bundle/variant, or path of a bundle.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that run a bundle's step, and those that other parts of the package carry out.

    Args:
        app: to add them to.
    """
    for name, text in STEPS.items():
        app.command(name=name, help=text, context_settings=ANY_OPTIONS)(_step_command(name))
    for name, (package, text) in TOOLS.items():
        app.command(name=name, help=text, context_settings=NO_HELP, add_help_option=False)(_tool_command(package))


def _step_command(step: str):  # type: ignore[no-untyped-def]
    def command(ctx: typer.Context, name: Name) -> None:
        from .bundle_commands import bundle_words

        try:
            words = bundle_words(name, step, ctx.args)
        except (ValueError, OSError) as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error
        sys.argv = ["monai.bundle", *words]
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)

    return command


def _tool_command(package: str):  # type: ignore[no-untyped-def]
    def command(ctx: typer.Context) -> None:
        importlib.import_module(f"monai_fewshot.apps.{package}.command").main(ctx.args)

    return command
