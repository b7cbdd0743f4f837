# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from monai_fewshot.apps.fire_calls import fire_calls

from .datasets.acdc import prepare_acdc
from .datasets.chaos import prepare_chaos
from .datasets.decathlon import prepare_decathlon
from .datasets.image_sets import prepare_images
from .datasets.mscmr import prepare_mscmr
from .datasets.nnunet import prepare_nnunet
from .datasets.plain_folder import prepare_folder
from .datasets.sabs import prepare_sabs
from .sources.data_source import download_dataset

__all__ = ["main"]

INTERRUPTED = 130
COMMANDS: dict[str, Callable[..., Any]] = {
    "download": download_dataset,
    "chaos": prepare_chaos,
    "sabs": prepare_sabs,
    "mscmr": prepare_mscmr,
    "acdc": prepare_acdc,
    "decathlon": prepare_decathlon,
    "nnunet": prepare_nnunet,
    "folder": prepare_folder,
    "images": prepare_images,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare a data set from a shell; ``python -m monai_fewshot.apps.prepare --help`` lists the data sets.

    Args:
        arguments: of the command. Defaults to None, those of the process.

    Raises:
        SystemExit: with code 2 for arguments that are not understood, 1 and the reason where the preparation fails, 130
            where it is interrupted.
    """
    for call in fire_calls(COMMANDS, arguments, "monai_fewshot.apps.prepare"):
        try:
            result = call()
        except (ValueError, OSError) as error:
            sys.exit(f"{error}")
        except KeyboardInterrupt:
            print("Interrupted. Run the same command again to go on.", file=sys.stderr)
            sys.exit(INTERRUPTED)
        print(*(result if isinstance(result, list) else [result]), sep="\n")
