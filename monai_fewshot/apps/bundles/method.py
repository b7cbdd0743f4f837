# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.utils import StrEnum

from monai_fewshot.apps.entries import Entry, read_entries
from monai_fewshot.utils import did_you_mean

from .bundle_folders import bundle_folder

__all__ = ["BundleMethod", "LearnsFrom", "WorksOn", "read_method", "read_methods"]

AFTER_TRAINING = ("evaluate", "inference")


class LearnsFrom(StrEnum):
    """What the training of a method sees."""

    IMAGES = "images"
    OTHER_CLASSES = "other_classes"
    SUPPORT = "support"
    SUPPORT_AND_IMAGES = "support_and_images"
    ALL_LABELS = "all_labels"
    NOTHING = "nothing"


class WorksOn(StrEnum):
    """What a method segments at a time: a slice of a scan, a 2D image, or a whole scan."""

    SLICES = "slices"
    IMAGES = "images"
    VOLUMES = "volumes"


@dataclass(frozen=True)
class BundleMethod:
    """What a bundle, or a variant of it, says of itself under ``method`` in its ``configs/metadata.json``.

    Attributes:
        bundle: folder of the bundle.
        variant: name of the variant; empty for the bundle as it is.
        title: in tables.
        learns_from: what the training sees.
        works_on: what is segmented at a time.
        extras: optional dependencies of the package that must be installed, such as ``registration``.
        steps: names of configuration files, by the names of the steps, in the order in which steps are run. Later files
            override earlier ones.
    """

    bundle: Path
    variant: str
    title: str
    learns_from: LearnsFrom
    works_on: WorksOn
    extras: tuple[str, ...]
    steps: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Name of the bundle, or ``bundle/variant``."""
        return "/".join(filter(None, (self.bundle.name, self.variant)))

    @property
    def training(self) -> tuple[str, ...]:
        """Names of the steps that make the model; none where nothing is trained."""
        return tuple(step for step in self.steps if step not in AFTER_TRAINING)


def read_methods(bundle: Path) -> dict[str, BundleMethod]:
    """Read what a bundle says of itself and of its variants.

    A variant says what differs from the bundle. Each step runs the configuration file of its name, and those that the
    variant lists for it under ``overrides``.

    Args:
        bundle: folder of the bundle.

    Returns:
        Methods by the name of the variant; the bundle as it is comes first, with an empty name.

    Raises:
        FileNotFoundError: where the bundle has no ``metadata.json``.
        ValueError: with the file and all keys that are wrong.
    """
    file = bundle / "configs" / "metadata.json"
    root = read_entries(file)
    entry = root.entry("method")
    variants = dict(entry.entries("variants"))
    plain = _read(entry, bundle, "", {"title": root.values.get("name", bundle.name)})
    methods = {name: _read(variant, bundle, name, vars(plain)) for name, variant in variants.items()}
    root.raise_problems(f"{file} does not describe a method")
    return {"": plain, **methods}


def read_method(name: str) -> BundleMethod:
    """Read what a method is.

    Args:
        name: ``bundle`` or ``bundle/variant``. The bundle is the name of one that comes with the package, or the path
            of another one.

    Returns:
        The method.

    Raises:
        FileNotFoundError: where there is no such bundle.
        ValueError: where it has no such variant, or its ``metadata.json`` is wrong.

    Example:
        >>> method = read_method("ssl_alpnet/annotated")
        >>> str(method.learns_from), method.steps["train"]
        ('other_classes', ('train', 'annotated'))
    """
    bundle, _, variant = name.rpartition("/")
    try:
        folder, variant = bundle_folder(name), ""
    except FileNotFoundError:
        if not bundle:
            raise
        folder = bundle_folder(bundle)
    methods = read_methods(folder)
    if variant not in methods:
        raise ValueError(f"{folder.name} has no variant {variant}{did_you_mean(variant, [*methods][1:])}")
    return methods[variant]


def _read(entry: Entry, bundle: Path, variant: str, default: Mapping[str, Any]) -> BundleMethod:
    method = BundleMethod(
        bundle=bundle,
        variant=variant,
        title=entry.get("title", str, default["title"]),
        learns_from=LearnsFrom(entry.choice("learns_from", list(LearnsFrom), default.get("learns_from"))),
        works_on=WorksOn(entry.choice("works_on", list(WorksOn), default.get("works_on"))),
        extras=entry.get_list("extras", str, default.get("extras", ())),
        steps=_steps(entry, bundle, default.get("steps", ())),
    )
    entry.check_keys()
    if (method.learns_from == LearnsFrom.NOTHING) == bool(method.training):
        entry.note("learns_from", f"is {method.learns_from}, but the steps are {', '.join(method.steps)}.")
    return method


def _steps(entry: Entry, bundle: Path, default: Iterable[str]) -> dict[str, tuple[str, ...]]:
    names = entry.get_list("steps", str, default, required=not default)
    overrides = entry.entry("overrides")
    steps = {name: (name, *overrides.get_list(name, str)) for name in names}
    overrides.check_keys()
    there = {path.stem for path in (bundle / "configs").glob("*.json")}
    for config in sorted({config for configs in steps.values() for config in configs} - there):
        entry.note("steps", f"there is no configs/{config}.json{did_you_mean(config, there)}")
    return steps
