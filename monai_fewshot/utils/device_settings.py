# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from functools import lru_cache

import torch

from .devices import check_device, device_name
from .precision import CHOICES, as_dtype, is_gpu_with_bfloat16

__all__ = ["check_device_settings", "compiler_error"]

logger = logging.getLogger(__name__)


def check_device_settings(
    device: torch.device | str,
    dtype: torch.dtype | str | None = None,
    channels_last: bool | None = None,
    compile: bool | None = None,
) -> None:
    """Check the settings of a run that depend on its device, and log what it computes on; for before data are read.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: the precision, float32 or bfloat16; None where a run has no such setting.
        channels_last: True, False or None, as in :func:`monai_fewshot.networks.prepare_network`.
        compile: likewise.

    Raises:
        ValueError: where the device cannot serve a setting, with the settings that it can.
    """
    place = check_device(device)
    for name, value in (("channels_last", channels_last), ("compile", compile)):
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"--{name} is {value!r}: use True, False, or '$None' for the default of the device.")
    if dtype is not None:
        _check_dtype(dtype, place)
    if compile and (error := compiler_error(place)):
        raise ValueError(f"--compile True does not work on {place}: {error} Use --compile False.")
    precision = "" if dtype is None else f" in {str(dtype).removeprefix('torch.')}"
    logger.info("Computing on %s%s.", device_name(place), precision)


def compiler_error(device: torch.device) -> str | None:
    """Find out whether ``torch.compile`` works on a device, by compiling an addition there, once.

    Returns:
        None where it works, else why not: no C++ compiler on a CPU, no Triton on a GPU, and the like.
    """
    return _try_compiling(device)


@lru_cache
def _try_compiling(device: torch.device) -> str | None:
    try:
        torch.compile(torch.add, fullgraph=True)(torch.ones(2, device=device), 1)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no reason given'}."
    return None


def _check_dtype(dtype: torch.dtype | str, device: torch.device) -> None:
    native = device.type == "cpu" or is_gpu_with_bfloat16(device)
    precision = as_dtype(dtype)
    if precision is None or (precision == torch.bfloat16 and not native):
        half = str(dtype).endswith("float16") and precision is None
        reason = "takes a loss scale, which trainings here do not have" if half else f"does not work on {device}"
        raise ValueError(f"--dtype {dtype} {reason}. Use {' or '.join(CHOICES) if native else 'float32'}.")
