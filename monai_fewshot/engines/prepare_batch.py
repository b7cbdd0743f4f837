# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch

from monai_fewshot.utils import EpisodeKeys

__all__ = ["PrepareBatchEpisode"]


class PrepareBatchEpisode(PrepareBatch):
    """Hand an episode to MONAI's ``SupervisedTrainer``, with the support's label among the targets too.

    The support goes to the network as further arguments, as with ``monai.engines.PrepareBatchExtraInput``. The loss
    receives the labels of query and support, as :class:`monai_fewshot.losses.EpisodeLoss` expects them.
    """

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], dict]:
        """Move a batch to the device.

        Args:
            batchdata: a batch of episodes.
            device: where to.
            non_blocking: whether copies to the device may overlap with computation.
            kwargs: further arguments of ``torch.Tensor.to``.

        Returns:
            Query images; labels of query and support; images and labels of the support; no keyword arguments.
        """
        image, label, support_image, support_label = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (EpisodeKeys.IMAGE, EpisodeKeys.LABEL, EpisodeKeys.SUPPORT_IMAGE, EpisodeKeys.SUPPORT_LABEL)
        )
        return image, (label, support_label), (support_image, support_label), {}
