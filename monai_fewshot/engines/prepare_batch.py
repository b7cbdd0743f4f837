# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch

from monai_fewshot.utils import EpisodeKeys

__all__ = ["PrepareBatchEpisode", "PrepareBatchTask"]


class PrepareBatchEpisode(PrepareBatch):
    """Hand an episode to MONAI's ``SupervisedTrainer``, with the support's label among the targets too.

    The support goes to the network as further arguments, as with ``monai.engines.PrepareBatchExtraInput``. The loss
    receives the labels of query and support, as :class:`monai_fewshot.losses.EpisodeLoss` expects them. Where there
    are images of a surrogate task, they go to the network too, and their originals to the loss
    (:class:`monai_fewshot.losses.SurrogateLoss`).
    """

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...], dict]:
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
        labels = moved(EpisodeKeys.LABEL, EpisodeKeys.SUPPORT_LABEL)
        support = moved(EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL)
        if EpisodeKeys.SURROGATE_IMAGE not in batchdata:
            return image, labels, support, {}
        corrupted, originals = moved(EpisodeKeys.SURROGATE_IMAGE, EpisodeKeys.SURROGATE_TARGET)
        return image, (*labels, originals), (*support, corrupted), {}


class PrepareBatchTask(PrepareBatch):
    """Hand meta-learning tasks to MONAI's ``SupervisedEvaluator``: queries of all tasks in a row, supports by task."""

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor], dict]:
        """Move a batch to the device.

        Args:
            batchdata: T tasks as of :class:`~monai_fewshot.data.TaskEpisodes`.
            device: where to.
            non_blocking: whether copies to the device may overlap with computation.
            kwargs: further arguments of ``torch.Tensor.to``.

        Returns:
            Query images (T Q, C, *S) and labels (T Q, 1, *S); images and labels of the supports, (T, K, ...); no
            keyword arguments.
        """
        image, label, support_image, support_label = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (EpisodeKeys.IMAGE, EpisodeKeys.LABEL, EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL)
        )
        return image.flatten(0, 1), label.flatten(0, 1), (support_image, support_label), {}
