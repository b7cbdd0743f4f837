# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""What a bundle command may set."""

from __future__ import annotations

import inspect
import pydoc

from monai.bundle import ConfigComponent, ConfigParser


def unknown_settings(step):
    """Settings of a step that its configuration files neither have nor name a class or function with."""
    parser = ConfigParser()
    parser.read_config([str(step.folder / "configs" / f"{name}.json") for name in step.configs])
    return [key for key in step.settings if key not in parser and not _is_argument(parser, key)]


def _is_argument(parser, key):
    owner, _, argument = key.rpartition("#")
    if owner not in parser:
        return False
    component = parser[owner]
    name = component.get("name") if component["_target_"].endswith(".define") else component["_target_"]
    made_of = pydoc.locate(ConfigComponent({"_target_": name}).resolve_module_name())
    return argument in inspect.signature(made_of).parameters
