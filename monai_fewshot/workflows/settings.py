# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator, Mapping

from monai.bundle import ConfigWorkflow
from monai.bundle.reference_resolver import ReferenceResolver

from .setting_kinds import SETTING_KINDS, plain_value, read_setting
from .short_errors import show_errors_short
from .unknown_settings import SEPARATOR, TARGET, strings_in, unknown_settings

__all__ = ["check_settings"]


def check_settings() -> None:
    """Check the settings of the bundle that runs, before anything is read; the first expression of ``initialize``.

    Settings that no configuration file of the bundle has and no expression uses are refused, on every level, as are
    values of another kind. Values that can be understood are brought into the form that the configuration expects; in
    paths, ``~`` is the home folder, and ``#``, which MONAI takes for a separator, is ``#``. Names that begin with an
    underscore are free for notes. In ``python -m monai.bundle``, known errors are shown without frames from here on.
    Outside of a bundle's ``initialize`` this does nothing.

    Raises:
        ValueError: with all settings that do not do, a line each.
    """
    show_errors_short()
    workflow = _calling_workflow()
    if workflow is None:
        return
    problems = [*unknown_settings(workflow), *_read_values(workflow)]
    if problems:
        raise ValueError("\n".join(problems))


def _calling_workflow() -> ConfigWorkflow | None:
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


def _read_values(workflow: ConfigWorkflow) -> Iterator[str]:
    """Bring the values of settings into the form that the configuration expects; yields what is wrong with others."""
    parser = workflow.parser
    for name, kind in SETTING_KINDS.items():
        if name not in parser or (isinstance(parser[name], Mapping) and TARGET in parser[name]):
            continue
        value = parser[name]
        expressions = [text for text in strings_in(value) if text[:1] in ("$", "@")]
        if expressions:
            yield from (f"--{name} {wrong}" for text in expressions if (wrong := _wrong_expression(workflow, text)))
            continue
        try:
            read = read_setting(name, value, in_training="resume" in parser)
        except ValueError as error:
            yield str(error)
            continue
        if read != value:
            parser[name] = plain_value(read) if kind.path else read


def _wrong_expression(workflow: ConfigWorkflow, text: str) -> str | None:
    """Tell what is wrong with an expression or reference that may be meant as a name."""
    plain = f"for a name that begins with {text[0]}, write ./{text}"
    missing = [name for name in ReferenceResolver.match_refs_pattern(text) if name not in workflow.parser]
    if missing:
        return f"is {text!r}, and there is no setting {missing[0]} that it could refer to; {plain}."
    if text[0] == "@":
        return None
    try:
        nodes = list(ast.walk(ast.parse(text[1:].replace(SEPARATOR, "__").replace("@", "_"), mode="eval")))
    except SyntaxError:
        return f"is {text!r}, which is no expression; {plain}."
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)} | {*vars(builtins)} | {*workflow.parser.globals}
    references = {f"_{name.replace(SEPARATOR, '__')}" for name in ReferenceResolver.match_refs_pattern(text)}
    if unknown := sorted(names - bound - references):
        return f"is {text!r}, an expression in which {unknown[0]} is not known; {plain}."
    return None
