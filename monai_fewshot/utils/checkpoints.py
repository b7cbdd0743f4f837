# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike

__all__ = ["checkpoint_to_resume", "latest_checkpoint", "load_network", "read_checkpoint"]

logger = logging.getLogger(__name__)

_UNREADABLE = (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile)


def latest_checkpoint(folder: PathLike, pattern: str = "checkpoint_epoch=*.pt") -> str | None:
    """Find the newest checkpoint of a training that can be read whole.

    A run killed while it writes leaves half a file; then the one before it serves.

    Args:
        folder: where checkpoints are; it need not exist.
        pattern: of their names, whose last number is the epoch.

    Returns:
        A path, or None where there is no checkpoint.

    Raises:
        ValueError: where there are checkpoints and none of them can be read.
    """
    files = sorted(Path(folder).glob(pattern), key=_epoch, reverse=True)
    for file in files:
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            logger.warning("%s cannot be read (%s): was the run stopped while it wrote?", file, str(error)[:80])
        else:
            return str(file)
    if files:
        raise ValueError(
            f"No checkpoint in {folder} can be read; the newest is {files[0].name}. Remove them to start anew."
        )
    return None


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
        ValueError: where it cannot be read, or is of another network.
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
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise ValueError(f"{path} is not a checkpoint, or not a whole one ({str(error)[:80]}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a checkpoint of a training: it holds a {type(content).__name__}.")
    return content


def _shape(tensor: object) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None


def _epoch(file: Path) -> int:
    digits = file.stem.rpartition("=")[2]
    return int(digits) if digits.isdigit() else -1
