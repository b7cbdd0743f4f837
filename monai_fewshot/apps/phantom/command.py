# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Sequence

from monai_fewshot.apps.fire_calls import fire_calls

from .dataset import make_phantom_dataset
from .study import make_phantom_studies

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write phantom scans, or with the word ``studies`` DICOM studies, from a shell.

    Args:
        arguments: of the command. Defaults to None, those of the process.

    Raises:
        SystemExit: with code 2 for arguments that are not understood, 1 and the reason where files cannot be written.
    """
    name, words = "monai_fewshot.apps.phantom", list(sys.argv[1:] if arguments is None else arguments)
    studies = words[:1] == ["studies"]
    maker = make_phantom_studies if studies else make_phantom_dataset
    for call in fire_calls(maker, words[studies:], name + " studies" * studies):
        try:
            print(call())
        except (ValueError, OSError) as error:
            sys.exit(str(error))
