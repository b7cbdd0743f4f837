# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_fewshot.apps.shown_errors import EXIT_CODES, SOME_SCANS, errors_shown

__all__ = ["add_annotation_commands"]

CHANGES_SHOWN = 5
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda|cuda:N", help="What to compute on. Default: a GPU where there is one."),
]


def add_annotation_commands(app: typer.Typer) -> None:
    """Add the commands that help a person to annotate.

    Args:
        app: to add them to.
    """
    app.command(name="refine", epilog=EXIT_CODES)(_refine)
    app.command(name="suggest", epilog=EXIT_CODES)(_suggest)


def _refine(
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder of masks that 'segment' has written.")],
    corrected: Annotated[
        list[Path] | None,
        typer.Option(
            "--corrected",
            metavar="FILE",
            help="A corrected mask, NAME_seg or NAME after its scan, or a folder of them; may be given several times. "
            "Masks that were changed in MASKS itself count too.",
        ),
    ] = None,
    touched_only: Annotated[
        bool,
        typer.Option("--touched-only", help="Only slices that differ from the predicted mask count as annotated."),
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="Minutes of training. Default: 2 on a CPU, 1 on a GPU.")] = None,
    device: Device = None,
) -> None:
    """Learn from corrected masks, and make all other masks anew.

    Corrected masks are the masks of their scans from then on. What was before, and the corrected files, are kept in
    MASKS/rounds. The same command goes on where it was interrupted.
    """
    with errors_shown():
        from .refining import refine

        done = refine(
            masks,
            corrected or [],
            touched_only=touched_only,
            minutes=minutes,
            device=device,
            say=lambda text: typer.echo(text, err=True),
        )
        typer.echo(f"Corrected: {', '.join(done.corrected)}\nMasks and network as they were: {done.round / 'before'}")
        changed = sorted((row for row in done.changes if row.scan not in done.corrected), key=lambda r: r.dice_between)
        for row in changed[:CHANGES_SHOWN]:
            typer.echo(f"Changed most: {row.scan}, {row.name}: Dice {row.dice_between:.2f} between before and after")
        typer.echo(f"Before and after: {done.page}\nDice between them: {done.table}")
        if done.problems:
            raise typer.Exit(SOME_SCANS)


def _suggest(
    folder: Annotated[
        Path,
        typer.Argument(metavar="MASKS|SCANS", help="Folder of masks that 'segment' has written, or a folder of scans."),
    ],
    number: Annotated[int, typer.Option(help="How many scans.")] = 3,
    slices: Annotated[int, typer.Option(help="How many slices of each.")] = 3,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: suggestions.csv in MASKS, or, for SCANS, in the current folder."),
    ] = None,
    device: Device = None,
) -> None:
    """Tell which scans, and which slices of them, to annotate next, and why.

    Of a folder of scans, the one to annotate first.
    """
    with errors_shown():
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        from .suggesting import suggest

        said: list[str] = []
        found = suggest(folder, number, slices, output=output, device=device, say=said.append)
        table = Table(title="Annotate these next")
        for heading in ("", "scan", "slices, from 0", "why"):
            table.add_column(heading, overflow="fold")
        for each in found:
            table.add_row(str(each.rank), escape(each.scan), ", ".join(map(str, each.slices)), each.reason)
        Console().print(table)
        for text in said:
            typer.echo(text)
