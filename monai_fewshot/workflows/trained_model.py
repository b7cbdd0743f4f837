# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from monai.config import PathLike
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import CommonKeys, convert_to_tensor, ensure_tuple

from monai_fewshot.data import PicturePreparation, Scan, VolumePreparation
from monai_fewshot.networks import prepare_network
from monai_fewshot.transforms import ClassParts, run_alike
from monai_fewshot.utils import build, definition_of, list_differences, read_checkpoint

__all__ = ["GivenModel", "ModelRecord", "TrainedModel", "class_parts"]

PREPARATIONS: dict[str, Any] = {"volumes": VolumePreparation, "pictures": PicturePreparation}


class ModelRecord:
    """What a checkpoint tells of a network beside its weights: how it was made, and what is done to scans before it.

    Args:
        network: made by :func:`monai_fewshot.utils.define`.
        preparation: of the scans or pictures that it was trained on.
        parts: of the classes in the annotated scans (:func:`class_parts`), for masks of a network that knows its
            classes.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        preparation: VolumePreparation | PicturePreparation,
        parts: ClassParts | None = None,
    ) -> None:
        kind = next(name for name, known in PREPARATIONS.items() if isinstance(preparation, known))
        self.content = {
            "network": definition_of(network),
            "preparation": {"kind": kind, **preparation.settings()},
            **({} if parts is None else {"parts": asdict(parts)}),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return self.content


def class_parts(scans: Sequence[Scan], transform: Callable[[Scan], Mapping[str, Any]]) -> ClassParts:
    """Find out how many components each class has in annotated scans, and where it lies.

    Args:
        scans: with labels.
        transform: loads and prepares a scan.
    """
    labels = [transform(scan)[CommonKeys.LABEL] for scan in scans]
    affines = [label.affine if isinstance(label, MetaTensor) else torch.eye(4) for label in labels]
    return ClassParts.of([convert_to_tensor(label, track_meta=False) for label in labels], affines)


class TrainedModel:
    """A network as checkpoints describe it, and the preparation of scans that it was trained with.

    Weights are not loaded yet (:func:`monai_fewshot.utils.load_network`), for the folds of a cross-validation share the
    network. The files are read when one of the attributes is first asked for.

    Args:
        checkpoints: a file of a training, or several that differ in weights alone.
        device: where the network shall be.
        image_size: what the caller expects; None takes what the checkpoint says.
        channels_last: see :func:`monai_fewshot.networks.prepare_network`.
        changes: arguments of the network to be other than in training, such as the number of classes of an episode; see
            :func:`monai_fewshot.utils.build`.

    Raises:
        ValueError: when used, where a checkpoint does not tell its settings, they differ between checkpoints, or from
            ``image_size``.

    Attributes:
        network: on the device.
        preparation: a :class:`~monai_fewshot.data.VolumePreparation` or
            :class:`~monai_fewshot.data.PicturePreparation`.
        image_size: (H, W) in pixels at which the network works.
        classes: name by number of the classes that it knows; None for a network that is shown its classes.
        parts: of the classes in the scans that it was trained on, where the first checkpoint tells them.
    """

    def __init__(
        self,
        checkpoints: PathLike | Sequence[PathLike],
        device: torch.device | str,
        image_size: Sequence[int] | None = None,
        channels_last: bool | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        self.checkpoints = [str(path) for path in ensure_tuple(checkpoints)]
        self.device = device
        self.expected_size = None if image_size is None else list(image_size)
        self.channels_last = channels_last
        self.changes = dict(changes or {})

    def of_folds(self, folds: Sequence[int]) -> TrainedModel:
        """Put the numbers of folds in the place of ``{fold}`` in the name of the checkpoint."""
        paths = [path.replace("{fold}", str(fold)) for path in self.checkpoints for fold in folds]
        return TrainedModel(paths, self.device, self.expected_size, self.channels_last, self.changes)

    def inferer(self, make: Callable[..., Inferer], num_classes: int) -> Inferer:
        """Make an inferer for this model.

        Args:
            make: makes it, given ``num_classes`` and, where the model has one, ``image_size``.
            num_classes: number of classes to segment.
        """
        return make(num_classes=num_classes, image_size=self.image_size)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the checkpoints say of the network and the preparation."""
        first, *others = self.checkpoints
        settings = _settings(first)
        for path in others:
            other = {**_on_the_axes_of(settings, _settings(path)), "parts": settings.get("parts")}
            differing = list_differences({"parts": None, **settings}, other)
            if differing:
                raise ValueError(f"{first} and {path} are of trainings with other settings: {differing}.")
        trained = settings["preparation"]["image_size"]
        if self.expected_size not in (None, trained):
            raise ValueError(
                f"image_size is {self.expected_size}, but {first} was trained at {trained}: leave image_size out, or "
                "train at the other size."
            )
        return settings

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network, its weights not loaded."""
        network = build(self.settings["network"], **self.changes)
        return prepare_network(network, self.device, self.channels_last, compile=False)

    @cached_property
    def preparation(self) -> Any:
        """The preparation."""
        settings = dict(self.settings["preparation"])
        return PREPARATIONS[settings.pop("kind")].from_settings(settings)

    @cached_property
    def parts(self) -> ClassParts | None:
        """What the annotated scans have shown of each class."""
        parts = self.settings.get("parts")
        return None if parts is None else ClassParts(**parts)

    @property
    def image_size(self) -> list[int] | None:
        """Height and width at which the network works."""
        return self.settings["preparation"]["image_size"]

    @property
    def classes(self) -> dict[int, str] | None:
        """Name by number of the classes that the network knows, in the order of its channels."""
        return self.preparation.classes


class GivenModel:
    """A network without a checkpoint, with its preparation; it stands where a :class:`TrainedModel` would.

    Args:
        network: the network, on its device.
        preparation: of scans or pictures.
        device: of the network.
    """

    checkpoints: Sequence[str] = ()
    channels_last = None
    parts = None

    def __init__(self, network: torch.nn.Module, preparation: Any, device: torch.device | str) -> None:
        self.network = network
        self.preparation = preparation
        self.device = device
        self.image_size = preparation.image_size
        self.classes = preparation.classes

    def of_folds(self, folds: Sequence[int]) -> GivenModel:
        """Return the model, which is the same for all folds."""
        return self

    def inferer(self, make: Callable[..., Inferer], num_classes: int) -> Inferer:
        """Make an inferer, given ``num_classes``."""
        return make(num_classes=num_classes)


def _settings(path: str) -> dict[str, Any]:
    settings = read_checkpoint(path).get("settings")
    if not isinstance(settings, Mapping) or not {"network", "preparation"} <= settings.keys():
        raise ValueError(f"{path} does not tell its network and preparation: it is not of a training of this version.")
    return dict(settings)


def _on_the_axes_of(settings: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take axes that run alike for the same: those of each fold's first scan, which may be oblique, differ a little."""
    ours, theirs = settings["preparation"].get("axes"), other["preparation"].get("axes")
    if ours is None or theirs is None or not run_alike(ours, theirs):
        return other
    return {**other, "preparation": {**other["preparation"], "axes": ours}}
