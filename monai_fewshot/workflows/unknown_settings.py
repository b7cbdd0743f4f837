# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monai.bundle import ConfigComponent, ConfigWorkflow
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from monai_fewshot.utils import did_you_mean

__all__ = ["strings_in", "unknown_settings"]

SEPARATOR = "::"
TARGET, DEFINE = "_target_", "monai_fewshot.utils.define"
METADATA = "metadata.json"


def unknown_settings(workflow: ConfigWorkflow) -> Iterator[str]:
    """Find settings that no expression uses and no file of the bundle has, and arguments that a part does not take.

    Args:
        workflow: of the bundle, with overrides of the command line and of the user's own files.

    Yields:
        A sentence for each, with the nearest known one.
    """
    config = {name: value for name, value in workflow.parser.config.items() if name != workflow.parser.meta_key}
    used = _references(config) | _names_of_files(workflow)
    used |= {workflow.init_id, workflow.run_id, workflow.final_id, "imports", "bundle_root"}
    used |= {str(item["id"]) for items in (TrainProperties, InferProperties) for item in items.values()}
    used |= {name for tracker in DEFAULT_EXP_MGMT_SETTINGS.values() for name in tracker["configs"]}
    yield from _unused(config, "", used, workflow)


def strings_in(config: Any) -> Iterator[str]:
    """All strings of a configuration."""
    if isinstance(config, str):
        yield config
    elif isinstance(config, (Mapping, list, tuple)):
        for item in config.values() if isinstance(config, Mapping) else config:
            yield from strings_in(item)


def _unused(group: Mapping[str, Any], outer: str, used: set[str], workflow: ConfigWorkflow) -> Iterator[str]:
    for key, value in group.items():
        name = f"{outer}{key}"
        if key.startswith("_"):
            continue
        if not any(use == name or use.startswith(name + SEPARATOR) for use in used):
            others = [other for other in group if other != key and not other.startswith("_")]
            yield _no_setting(name, others, [] if outer else _files_with(name, workflow))
        elif ConfigComponent.is_instantiable(value):
            yield from _unknown_arguments(value, name, workflow)
        elif isinstance(value, Mapping) and name not in used:
            yield from _unused(value, name + SEPARATOR, used, workflow)


def _unknown_arguments(part: Mapping[str, Any], name: str, workflow: ConfigWorkflow) -> Iterator[str]:
    """Find arguments that a part's class or function does not take, in it and in the parts inside."""
    taken = _arguments(part, workflow)
    for key, value in part.items():
        if ConfigComponent.is_instantiable(value):
            yield from _unknown_arguments(value, f"{name}{SEPARATOR}{key}", workflow)
        if taken is not None and key not in taken and not key.startswith("_"):
            yield _no_setting(f"{name}{SEPARATOR}{key}", taken)


def _arguments(part: Mapping[str, Any], workflow: ConfigWorkflow) -> list[str] | None:
    """Arguments that a part takes; None where that cannot be told, or where it takes any."""
    is_defined = part[TARGET] == DEFINE
    path = part.get("name") if is_defined else part[TARGET]
    if not isinstance(path, str) or ConfigComponent.is_disabled(ConfigComponent(dict(part))):
        return None
    component = ConfigComponent({TARGET: path}, locator=workflow.parser.locator)
    try:
        target: Any = pydoc.locate(component.resolve_module_name())
        parameters = inspect.signature(target).parameters.values()
    except (ImportError, TypeError, ValueError, pydoc.ErrorDuringImport):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [*(["name"] if is_defined else []), *(parameter.name for parameter in parameters)]


def _names_of_files(workflow: ConfigWorkflow) -> set[str]:
    """Settings that the bundle's own files use, and that a variant may have for another step, or make useless."""
    contents = _contents(workflow).values()
    steps = [content for content in contents if workflow.run_id in content]
    read = [content for content in contents if all(name.removeprefix("+") in workflow.parser for name in content)]
    of_variants = {ReferenceResolver.split_id(name)[0] for content in read for name in content}
    return _references([content for content in read if content in steps]) | (_references(steps) & of_variants)


def _files_with(name: str, workflow: ConfigWorkflow) -> list[str]:
    return [file for file, content in _contents(workflow).items() if name in content]


def _contents(workflow: ConfigWorkflow) -> dict[str, Mapping[str, Any]]:
    """Contents of the bundle's configuration files, by name."""
    files = [file for file in sorted(workflow.config_root_path.glob("*.json")) if file.name != METADATA]
    return {file.name: workflow.parser.load_config_file(file) for file in files}


def _references(config: Any) -> set[str]:
    return {name for text in strings_in(config) for name in ReferenceResolver.match_refs_pattern(text)}


def _no_setting(name: str, known: list[str], files: Sequence[str] = ()) -> str:
    hint = f"; {', '.join(files)} would have it." if files else did_you_mean(name.rpartition(SEPARATOR)[2], known)
    return f"There is no setting --{name.replace(SEPARATOR, '#')}{hint}"
