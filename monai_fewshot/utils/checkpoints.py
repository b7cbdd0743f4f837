# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike

from .atomic_write import write_atomically
from .checksums import check_zip

__all__ = [
    "checkpoint_to_resume",
    "checkpoints_by_age",
    "latest_checkpoint",
    "load_network",
    "load_whole",
    "not_finite",
    "read_checkpoint",
    "save_checkpoint",
]

logger = logging.getLogger(__name__)


def save_checkpoint(content: Mapping[str, Any], path: PathLike) -> None:
    """Write a checkpoint that is whole or not there; an earlier one stays where this one cannot be written.

    Args:
        content: states by name, the network's weights under ``model``; or the weights alone.
        path: the file.

    Raises:
        RuntimeError: where weights are not finite.
        WriteError: where the file cannot be written.
    """
    odd = not_finite(content.get("model", content))
    if odd:
        raise RuntimeError(
            f"{path} is not written, because {odd}: the training has diverged. Take a lower learning rate, or look for "
            "extreme values in the images, and train anew or --resume true from the last checkpoint."
        )
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_atomically(path, buffer.getbuffer())


def checkpoints_by_age(folder: PathLike) -> list[Path]:
    """List the checkpoints of a training, ``checkpoint_epoch=N.pt``, the newest first."""
    return sorted(Path(folder).glob("checkpoint_epoch=*.pt"), key=_epoch, reverse=True)


def latest_checkpoint(folder: PathLike) -> str | None:
    """Find the newest checkpoint of a training that is whole and whose weights are finite.

    Args:
        folder: where checkpoints are; it need not exist.

    Returns:
        A path; None where there is no checkpoint, or that of the first epoch alone, and damaged.

    Raises:
        ValueError: where there are checkpoints and none of them can be read.
    """
    files = checkpoints_by_age(folder)
    for file in files:
        try:
            _check_finite(file, read_checkpoint(file))
        except ValueError as error:
            logger.warning("%s Was the run stopped while it wrote?", error)
        else:
            return str(file)
    if not files or [_epoch(file) for file in files] == [1]:
        return None
    raise ValueError(
        f"No checkpoint in {folder} can be read; the newest is {files[0].name}. Remove them to start anew."
    )


def checkpoint_to_resume(folder: PathLike, resume: bool) -> str | None:
    """Choose where a training starts, so that it neither overwrites another nor goes on with it by accident.

    Args:
        folder: where checkpoints are or will be.
        resume: whether to go on with the newest checkpoint, where there is one.

    Returns:
        A path, or None for a start from the beginning.

    Raises:
        ValueError: where the folder has checkpoints that shall not be resumed, or none that can be read.
    """
    if resume:
        return latest_checkpoint(folder)
    if any(Path(folder).glob("*.pt")):
        raise ValueError(
            f"{folder} holds checkpoints of an earlier training. Pass --resume true to go on with it, or another "
            "--ckpt_dir, or remove them."
        )
    return None


def load_network(network: torch.nn.Module, path: PathLike) -> dict[str, Any]:
    """Load the weights of a trained network, all of them.

    Args:
        network: the network, on any device.
        path: a checkpoint of a training, with the weights under ``model``, or a file of weights alone.

    Returns:
        What made the checkpoint, its ``provenance``; empty where it does not say.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read, is of another network, or holds weights that are not finite.
    """
    content = read_checkpoint(path)
    weights = content.get("model", content)
    own = network.state_dict()
    differing = sorted(name for name in {*own, *weights} if _shape(own.get(name)) != _shape(weights.get(name)))
    if differing:
        raise ValueError(
            f"{path} is of another network: {len(differing)} tensors differ in name or shape from this one's "
            f"{len(own)}, such as {', '.join(differing[:3])}. Give the encoder and sizes that it was trained with."
        )
    _check_finite(path, content)
    network.load_state_dict(weights)
    return content.get("provenance", {})


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint of a training.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it cannot be read, or holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}: train first, or name an existing one.")
    try:
        content = load_whole(path)
    except Exception as error:  # whatever damage makes the unpickler raise
        reason = (str(error).splitlines() or [""])[0][:100]
        raise ValueError(
            f"{path} is not a checkpoint, or not a whole one ({type(error).__name__}: {reason})."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint of a training: it holds a {type(content).__name__}.")
    return content


def load_whole(path: PathLike) -> Any:
    """Read what ``torch.save`` wrote, with the checksums of all its parts, which ``torch.load`` does not look at.

    Args:
        path: the file.

    Raises:
        zipfile.BadZipFile: where a checksum does not fit.
        Exception: whatever else damage makes ``zipfile`` and ``torch.load`` raise.
    """
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        check_zip(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def not_finite(weights: Mapping[str, Any]) -> str:
    """Tell which of a network's weights hold NaN or infinite values; an empty text where none do."""
    floating = {name: x for name, x in weights.items() if isinstance(x, torch.Tensor) and x.is_floating_point()}
    odd = [name for name, tensor in floating.items() if not tensor.isfinite().all()]
    return f"{len(odd)} of {len(floating)} tensors hold values that are not finite, such as {odd[0]}" if odd else ""


def _check_finite(path: PathLike, content: Mapping[str, Any]) -> None:
    odd = not_finite(content.get("model", content))
    if odd:
        raise ValueError(
            f"{path} cannot be used, because {odd}: its training has diverged. Take an earlier checkpoint, or train "
            "again with a lower learning rate."
        )


def _shape(tensor: object) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None


def _epoch(file: Path) -> int:
    digits = file.stem.rpartition("=")[2]
    return int(digits) if digits.isdigit() else -1
