# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import monai_fewshot
from monai_fewshot.apps.annotation.commands import add_annotation_commands
from monai_fewshot.apps.shown_errors import EXIT_CODES, SOME_SCANS, errors_shown

from .handed_over import add_commands
from .pair_option import CommandWithExamples

__all__ = ["app", "main"]

PAIR = "IMAGE LABEL"
FLAGGED_SHOWN = 10

app = typer.Typer(
    name="monai-fewshot",
    help="Few-shot segmentation of medical scans: from one annotated scan to masks of all others.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

Scans = Annotated[
    Path,
    typer.Argument(
        metavar="SCANS",
        help="Folder of NIfTI, NRRD, MetaImage or DICOM scans, or of pictures, at any depth; or one scan.",
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        "--class-names",
        metavar="NAME,NAME,...",
        help="Names of the classes 1, 2, ...; of a DICOM annotation, the regions to take. Default: those of the label.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda|cuda:N", help="What to compute on. Default: a GPU where there is one."),
]


def _complete_method(beginning: str) -> list[str]:
    from .methods import serving_methods

    return [name for name in serving_methods() if name.startswith(beginning)]


@app.command(name="segment", cls=CommandWithExamples, epilog=EXIT_CODES)
def segment_command(
    scans: Scans,
    example: Annotated[
        list[Path],
        typer.Option("--example", metavar=PAIR, help="An annotated scan and its label. May be given several times."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", metavar="MASKS", help="Folder for masks, index.html, and tables."),
    ],
    method: Annotated[
        str,
        typer.Option(help="What segments; 'bundle list' has all.", autocompletion=_complete_method),
    ] = "self_training",
    minutes: Annotated[
        float | None,
        typer.Option(help="Minutes of training, for methods that take them. Default: 20 on a CPU, 5 on a GPU."),
    ] = None,
    class_names: ClassNames = None,
    annotated_slices: Annotated[
        str | None,
        typer.Option(
            metavar="N|labeled|N,N,...",
            help="Slices of the example that are annotated: every N-th, those that show a class, or numbers from 0. "
            "Default: all.",
        ),
    ] = None,
    seed_labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Masks by any other method, NAME_seg or NAME after their scans, to begin with."
        ),
    ] = None,
    output_format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="nifti|seg_nrrd|dicom_seg",
            help="Of the masks; several may be given. Default: nifti; masks of pictures are PNG files.",
        ),
    ] = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(help="Of the training. Default: 0.")] = None,
    flag_below: Annotated[
        float, typer.Option(metavar="DICE", help="Predicted Dice, from 0 to 1, below which masks are to be looked at.")
    ] = 0.7,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write a map of each class's probability into MASKS/probabilities.")
    ] = False,
) -> None:
    """Segment every scan in a folder, using one annotated scan as the example.

    A model is trained where the method needs one, and kept in MASKS/model. The same command goes on where it was
    interrupted. With the model there, it segments new scans at once.
    """
    with errors_shown():
        from .segmenting import segment
        from .tables import print_problems

        done = segment(
            scans,
            _pairs(example),
            output,
            method,
            minutes,
            class_names=_names(class_names),
            annotated_slices=_slices(annotated_slices),
            seed_labels=seed_labels,
            formats=output_format,
            device=device,
            seed=seed,
            flag_below=flag_below,
            probabilities=probabilities,
            say=lambda text: typer.echo(text, err=True),
        )
        print_problems(done.problems, Console(stderr=True))
        typer.echo(f"Masks: {len(done.masks)} in {output}\nPictures: {done.index}")
        if done.flagged:
            shown = ", ".join(done.flagged[:FLAGGED_SHOWN])
            more = f" and {more} more" if (more := len(done.flagged) - FLAGGED_SHOWN) > 0 else ""
            typer.echo(f"Look at these first, predicted Dice below {flag_below:g}: {shown}{more}")
        typer.echo(f"Predicted quality: {done.quality}")
        if done.measurements is not None:
            typer.echo(f"Measurements: {done.measurements}")
        if done.problems:
            typer.echo(f"Problems: {done.problem_table}")
            raise typer.Exit(SOME_SCANS)


@app.command(name="inspect", cls=CommandWithExamples, epilog=EXIT_CODES)
def inspect_command(
    scans: Scans,
    example: Annotated[
        list[Path] | None,
        typer.Option("--example", metavar=PAIR, help="An annotated scan and its label. May be given several times."),
    ] = None,
    class_names: ClassNames = None,
    device: Device = None,
) -> None:
    """Tell what a folder of scans holds, what is wrong with it, and how long its segmentation would take.

    Nothing is written.
    """
    with errors_shown():
        from monai_fewshot.data.layouts.scan_files import is_picture

        from .scan_sources import list_examples, list_scans
        from .segment_request import default_minutes
        from .survey import survey_scans
        from .tables import print_survey

        pairs, names = _pairs(example or []), _names(class_names)
        examples = list_examples(pairs, names) if pairs else []
        kind = is_picture(pairs[0][0]) if pairs else None
        found, problems = list_scans(scans, [label for _, label in pairs], kind)
        survey = survey_scans(found, examples, problems, names, device)
        print_survey(survey, str(scans), default_minutes(device), Console())
        if survey.problems:
            raise typer.Exit(SOME_SCANS)


@app.command(name="review", epilog=EXIT_CODES)
def review_command(
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder that 'segment' wrote as --output.")],
    scans: Annotated[
        Path | None,
        typer.Option(metavar="SCANS", help="Folder of the scans. Default: where they lay when they were segmented."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the server. Default: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page, or print its address only.")] = True,
) -> None:
    """Look at masks in the browser, and accept or reject each; MASKS/review.csv keeps what is decided.

    A server runs on this computer, for this computer alone, until Ctrl+C ends it. It needs the extra 'review'.
    """
    with errors_shown():
        from monai_fewshot.apps.review import review_masks

        review_masks(masks, scans, port, browser=browser, say=typer.echo)


@app.command(name="cache", epilog=EXIT_CODES)
def cache_command(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Folders to look in for pseudo-labels, at any depth, such as MASKS or a cache_dir. "
            "Default: the headers of DICOM files, in the user's cache folder.",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove what is found; it is computed again when needed.")
    ] = False,
) -> None:
    """Tell how much room caches take, and clear them."""
    with errors_shown():
        from .caches import clear_cache, find_caches

        found = find_caches(folders or [])
        for cache in found:
            size = f"{len(cache.files)} file(s) of {cache.content}, {cache.num_bytes / 1e6:.1f} MB, in {cache.folder}"
            if clear:
                clear_cache(cache)
            typer.echo(f"{'Removed ' if clear else ''}{size}")
        if not found:
            typer.echo("No cache was found.")


add_annotation_commands(app)
add_commands(app)


def main() -> None:
    """Run the command line."""
    app()


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(monai_fewshot.__version__)
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _pairs(words: list[Path]) -> list[tuple[Path, Path]]:
    return list(zip(words[::2], words[1::2], strict=True))


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _slices(text: str | None) -> int | str | list[int] | None:
    if text is None or text == "labeled":
        return text
    try:
        numbers = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"--annotated-slices is {text!r}: give 5 for every fifth slice, 'labeled', or 3,9,14.")
    return numbers if "," in text else numbers[0]
