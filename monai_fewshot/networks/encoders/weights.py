# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from monai_fewshot.utils import load_whole, not_finite

__all__ = ["WeightReport", "load_encoder_weights"]

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model", "network")
PREFIXES = ("module", "model", "network", "encoder", "backbone", "base")
NAMES_SHOWN = 5


@dataclass(frozen=True)
class WeightReport:
    """What became of a checkpoint's tensors; ``str(report)`` is text for people.

    Args:
        source: path or URL of the checkpoint.
        encoder: class of the encoder.
        prefix: what was taken off the checkpoint's names.
        matched: names loaded.
        missing: names of the encoder that the checkpoint lacks; they keep their values. Batch normalization's
            ``num_batches_tracked``, absent from old checkpoints, is not counted.
        unexpected: names of the checkpoint, as they stand there, that the encoder lacks.
        mismatched: names in both whose shapes differ, with the shape in the checkpoint and in the encoder; they keep
            their values.
    """

    source: str
    encoder: str
    prefix: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __str__(self) -> str:
        prefix = f" without their prefix {self.prefix!r}" if self.prefix else ""
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        lines = [
            f"{self.source}: {len(self.matched)} of {total} tensors of {self.encoder} loaded{prefix}, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        ]
        shapes = [f"{name} {theirs} for {ours}" for name, (theirs, ours) in self.mismatched.items()]
        for what, names in (
            ("missing from the file, left as initialized", self.missing),
            ("unexpected, ignored", self.unexpected),
            ("of another shape than the encoder's, left as initialized", shapes),
        ):
            if names:
                lines.append(f"  {what}: {_some(names)}")
        return "\n".join(lines)


def load_encoder_weights(encoder: nn.Module, source: str | Path) -> WeightReport:
    """Load an encoder's weights from a checkpoint, and report what matched.

    The checkpoint is a state dictionary, plain or under ``"state_dict"``, ``"model"`` or ``"network"``. Of the leading
    ``module.``, ``model.``, ``network.``, ``encoder.``, ``backbone.`` and ``base.`` in its names, as many are taken off
    as make the most names match. Torchvision's classification and segmentation checkpoints load as they are, and so
    does the encoder of a whole few-shot network, or the base of a meta-learned one.

    The report is logged: as information, or as a warning where shapes differ or most of the encoder is missing.

    Args:
        encoder: network to load into, changed in place.
        source: path or URL. A download is kept in torch hub's checkpoint folder and taken from there the next time;
            a hash in its name (``resnet50-11ad3fa6.pth``) is verified.

    Returns:
        The report.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the download fails, the file is not a checkpoint of tensors alone, or nothing in it matches.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> folder = tempfile.mkdtemp()
        >>> torch.save({"backbone.weight": torch.ones(3, 2)}, f"{folder}/a.pt")
        >>> load_encoder_weights(nn.Linear(2, 3), f"{folder}/a.pt").missing
        ('bias',)
    """
    found = _read_tensors(source)
    wanted = encoder.state_dict()
    prefix = _best_prefix(found, wanted)
    shared = {name: found[prefix + name] for name in wanted if prefix + name in found}
    fitting = {name: tensor for name, tensor in shared.items() if tensor.shape == wanted[name].shape}
    report = WeightReport(
        source=str(source),
        encoder=type(encoder).__name__,
        prefix=prefix,
        matched=tuple(fitting),
        missing=tuple(n for n in wanted if n not in shared and not n.endswith("num_batches_tracked")),
        unexpected=tuple(sorted(found.keys() - {prefix + name for name in shared})),
        mismatched={
            name: (tuple(tensor.shape), tuple(wanted[name].shape))
            for name, tensor in shared.items()
            if name not in fitting
        },
    )
    if not fitting:
        raise ValueError(_nothing_matches(report, found, wanted))
    encoder.load_state_dict(fitting, strict=False)
    doubtful = report.mismatched or len(report.missing) > len(report.matched)
    logger.log(logging.WARNING if doubtful else logging.INFO, "%s", report)
    return report


def _read_tensors(source: str | Path) -> dict[str, torch.Tensor]:
    path = _download(str(source)) if "://" in str(source) else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}; give the path or the URL of a checkpoint")
    try:
        checkpoint = load_whole(path)
    except Exception as error:
        raise ValueError(f"{path} {_why_unreadable(error)}") from error
    tensors = _state_dict(checkpoint)
    if not tensors:
        raise ValueError(f"{path} holds no named tensors but {_describe(checkpoint)}; save the network's state_dict()")
    if odd := not_finite(tensors):
        raise ValueError(f"{path} cannot be used, because {odd}: its training has diverged. Give another file")
    return tensors


def _why_unreadable(error: Exception) -> str:
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused:
        return (
            f"holds a pickled {refused[1]}; objects other than tensors can run code when they are read and are "
            "refused. Save the network's state_dict() alone"
        )
    return (
        f"is not a checkpoint ({type(error).__name__}): it may be truncated, or a web page saved in place of the file. "
        "Delete it and fetch it again"
    )


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    if not name:
        raise ValueError(f"the URL {url} names no file; give the address of the checkpoint itself")
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", name)
        try:
            torch.hub.download_url_to_file(url, str(path), digest and digest.group(1), progress=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"{url} cannot be downloaded ({error}); fetch it by hand and give its path") from error
    return path


def _state_dict(checkpoint: Any) -> dict[str, torch.Tensor]:
    if not isinstance(checkpoint, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
            break
    return {k: v for k, v in checkpoint.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _best_prefix(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Find the shortest of the known prefixes that makes the most names match."""
    prefixes = {""}
    for name in found:
        prefixes.update(accumulate(f"{part}." for part in takewhile(PREFIXES.__contains__, name.split("."))))
    return max(sorted(prefixes, key=len), key=lambda prefix: sum(prefix + name in found for name in wanted))


def _nothing_matches(report: WeightReport, found: Iterable[str], wanted: Iterable[str]) -> str:
    shapes = f", {len(report.mismatched)} have the right name but another shape" if report.mismatched else ""
    return (
        f"no tensor of {report.source} fits {report.encoder}{shapes}. The file has {_some(list(found))}; "
        f"expected were {_some(list(wanted))}. Give the checkpoint of the same architecture, or none (weights=None)"
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _describe(checkpoint: Any) -> str:
    if isinstance(checkpoint, Mapping):
        return f"a dictionary of {_some([repr(key) for key in checkpoint])}" if checkpoint else "an empty dictionary"
    return f"an object of type {type(checkpoint).__name__}"
