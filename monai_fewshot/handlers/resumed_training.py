# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from torch.optim.lr_scheduler import LRScheduler

from monai_fewshot.utils import list_differences, read_checkpoint

__all__ = ["check_same_length", "check_same_training", "keep_own_schedule"]

MAY_DIFFER = ("iterations", "rounds", "dtype")
"""Of the settings of a training: its length, which may change, and the precision, which follows the device."""


def check_same_training(path: str, records: Mapping[str, Any]) -> None:
    """Check that a checkpoint is of the training that goes on with it.

    Args:
        path: the checkpoint.
        records: what checkpoints tell of the training: ``provenance``, ``settings``, or neither.

    Raises:
        ValueError: where fold, data, classes, network, preparation or another setting differs, with both values. The
            numbers of iterations and rounds, and the precision, may differ.
    """
    saved = read_checkpoint(path)
    there, here = {}, {}
    for name in {"provenance", "settings"} & records.keys() & saved.keys():
        there[name], here[name] = _compared(saved[name]), _compared(records[name].state_dict())
    differences = list_differences(there, here).replace("provenance.settings.", "").replace("provenance.", "")
    if differences:
        raise ValueError(
            f"{path} is of another training than this one: {differences}, there and here. Give the settings of that "
            "training, or another --ckpt_dir for this one."
        )


def check_same_length(path: str, engine: Engine) -> None:
    """Check that a trainer's epochs are as long as those of a checkpoint, and that there are as many or more.

    Args:
        path: the checkpoint.
        engine: the trainer, about to run.

    Raises:
        ValueError: where they are not, with both numbers.
    """
    saved = read_checkpoint(path)["trainer"]
    there, here = saved["epoch_length"], engine.state.epoch_length
    if there != here:
        raise ValueError(
            f"{path} is of a training with epoch_length {there}, and this one has {here}: keep --epoch_length {there}, "
            "and change --max_epochs for a longer training."
        )
    done = saved["iteration"] // there if "iteration" in saved else saved["epoch"]
    if engine.state.max_epochs is not None and done > engine.state.max_epochs:
        raise ValueError(
            f"{path} has {done} epochs behind it, and this training has max_epochs {engine.state.max_epochs}: give "
            f"--max_epochs {done} or more, or another --ckpt_dir."
        )


def keep_own_schedule(schedule: LRScheduler, own: Mapping[str, Any]) -> None:
    """Let a schedule that has just been restored go on as if its training had had its present length from the start.

    Its arguments, such as ``T_max``, are those of this training again, and the learning rate is what they give at the
    iteration that was reached.

    Args:
        schedule: with the state of a checkpoint.
        own: its state before that.
    """
    public = {name: value for name, value in own.items() if not name.startswith("_") and name != "last_epoch"}
    arguments = {name: value for name, value in public.items() if isinstance(value, (int, float, Counter))}
    if all(getattr(schedule, name) == value for name, value in arguments.items()):
        return
    schedule.__dict__.update(arguments)
    rates = getattr(schedule, "_get_closed_form_lr", schedule.get_lr)()
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = list(rates)


def _compared(record: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same of a record; versions and dates may differ."""
    kept = {name: value for name, value in record.items() if name not in ("versions", "started")}
    if isinstance(kept.get("settings"), Mapping):
        kept["settings"] = {name: value for name, value in kept["settings"].items() if name not in MAY_DIFFER}
    return kept
