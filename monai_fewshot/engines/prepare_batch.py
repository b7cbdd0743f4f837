# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch

from monai_fewshot.networks.blocks import TrainingTarget
from monai_fewshot.utils import EpisodeKeys

__all__ = ["PrepareBatchEpisode"]


class PrepareBatchEpisode(PrepareBatch):
    """Hand an episode to MONAI's ``SupervisedTrainer``, with the support's label among the targets too.

    The support goes to the network as further arguments, as with ``monai.engines.PrepareBatchExtraInput``. The loss
    receives the labels of query and support by name, as :class:`monai_fewshot.losses.EpisodeLoss` expects them. Where
    there are images of a surrogate task, they go to the network too, and their originals to the loss
    (:class:`monai_fewshot.losses.SurrogateLoss`).
    """

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, TrainingTarget, tuple[torch.Tensor, ...], dict]:
        """Move a batch to the device.

        Args:
            batchdata: a batch of episodes.
            device: where to.
            non_blocking: whether copies to the device may overlap with computation.
            kwargs: further arguments of ``torch.Tensor.to``.

        Returns:
            Query images; labels of query and support, and originals of surrogate images; images and labels of the
            support, and surrogate images; no keyword arguments.
        """

        def moved(*keys: str) -> tuple[torch.Tensor, ...]:
            return tuple(batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs) for key in keys)

        (image,) = moved(EpisodeKeys.IMAGE)
        target = TrainingTarget(*moved(EpisodeKeys.LABEL, EpisodeKeys.SUPPORT_LABEL))
        support = moved(EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL)
        if EpisodeKeys.SURROGATE_IMAGE not in batchdata:
            return image, target, support, {}
        corrupted, originals = moved(EpisodeKeys.SURROGATE_IMAGE, EpisodeKeys.SURROGATE_TARGET)
        return image, target._replace(reconstruction=originals), (*support, corrupted), {}
