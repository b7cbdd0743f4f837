# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

from monai_fewshot.apps.bundles import BundleMethod, LearnsFrom, WorksOn, bundle_folder, bundle_names, read_methods
from monai_fewshot.utils import did_you_mean

__all__ = ["check_extras", "serving_method", "serving_methods"]

NEEDED = {
    LearnsFrom.OTHER_CLASSES: "it learns from scans in which other classes are annotated",
    LearnsFrom.ALL_LABELS: "it learns from many annotated scans",
}


def serving_methods() -> dict[str, BundleMethod]:
    """List the methods that segment scans from annotated examples and unlabeled scans alone, by name."""
    return {method.name: method for method in _all_methods() if not _obstacle(method)}


def serving_method(name: str) -> BundleMethod:
    """Look up a method that can segment a folder of scans.

    Args:
        name: of a bundle, or ``bundle/variant``; or the path of a bundle that is not part of the package.

    Returns:
        The method.

    Raises:
        ValueError: where there is none of that name, with the nearest one, or it needs more than examples.
    """
    own = read_methods(bundle_folder(name))[""] if Path(name).is_dir() and Path(name).is_absolute() else None
    known = {method.name: method for method in _all_methods()}
    method = own or known.get(name)
    if method is None:
        raise ValueError(f"There is no method {name!r}{did_you_mean(name, serving_methods())}")
    if obstacle := _obstacle(method):
        raise ValueError(
            f"The method {name} cannot segment scans from an example alone: {obstacle}. "
            f"Methods that can: {', '.join(serving_methods())}."
        )
    return method


def check_extras(method: BundleMethod) -> None:
    """Check that the optional packages of a method are installed.

    Raises:
        ValueError: where one is not, with the command that installs it.
    """
    try:
        requirements = [Requirement(line) for line in requires("monai_fewshot") or []]
    except PackageNotFoundError:
        return
    for extra in method.extras:
        needed = (r.name for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra}))
        missing = [name for name in needed if not _is_installed(name)]
        if missing:
            raise ValueError(
                f'The method {method.name} needs {", ".join(missing)}: pip install "monai_fewshot[{extra}]".'
            )


def _all_methods() -> list[BundleMethod]:
    return [method for name in bundle_names() for method in read_methods(bundle_folder(name)).values()]


def _obstacle(method: BundleMethod) -> str:
    if method.works_on == WorksOn.IMAGES:
        return "it works on 2D images"
    if "inference" not in method.steps:
        return "it has no step inference"
    return NEEDED.get(method.learns_from, "")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
