# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from monai.config import PathLike
from torch import nn
from torch.func import functional_call, vmap

from monai_fewshot.meta import InnerLoop, Parameters
from monai_fewshot.networks.blocks import check_episode, foreground_logits, linear_resize, with_image_norm
from monai_fewshot.networks.encoders.weights import load_encoder_weights

from .few_shot_segmenter import FewShotSegmenter

__all__ = ["MetaLearnedSegmenter"]


class MetaLearnedSegmenter(FewShotSegmenter):
    """Any segmentation network, adapted to the support by a few gradient steps.

    :meth:`encode_support` runs the inner loop on the support, its context are the adapted weights; nothing of a task is
    left in the network. :class:`~monai_fewshot.engines.MetaTrainer` learns the weights it starts from; with weights
    from elsewhere, or random ones, the same network is the plain fine-tuning that meta-learning is compared with.

    Normalizations with running statistics become such of each image alone
    (:func:`~monai_fewshot.networks.blocks.with_image_norm`), and dropout is off, so that the inner problem is one and
    the same function at every step.

    Based on: Khadka et al., "Meta-learning with implicit gradients in a few-shot setting for medical image
    segmentation", Computers in Biology and Medicine 2022, https://arxiv.org/abs/2106.03223, with MONAI's
    ``AttentionUnet`` as ``base``.

    Deviation: the paper does not say what its batch normalization does within tasks.

    Args:
        base: network from images (B, C, *S) to one logit a class against the rest, (B, N, *S); changed in place.
            Parameters that do not require a gradient stay as they are in adaptation.
        inner: how it is adapted.
        loss: of logits (B, N, *S) and labels (B, 1, *S), a scalar, such as
            :class:`~monai_fewshot.losses.DiceBCELoss`.
        learn_rates: whether the length of the inner steps is learned, a factor for each element of each parameter
            (Meta-SGD).
        weights: path or URL of a checkpoint with initial weights of ``base``, see
            :func:`~monai_fewshot.networks.encoders.load_encoder_weights`.

    Example:
        >>> from monai.networks.nets import AttentionUnet
        >>> from monai_fewshot.losses import DiceBCELoss
        >>> network = MetaLearnedSegmenter(AttentionUnet(2, 3, 1, (4, 8), (2,)), InnerLoop(2, 0.1), DiceBCELoss())
        >>> image, support, label = torch.rand(4, 3, 16, 16), torch.rand(1, 5, 3, 16, 16), torch.ones(1, 5, 1, 16, 16)
        >>> network.eval()(image, support, label).shape
        torch.Size([4, 2, 16, 16])
    """

    separate_contexts: ClassVar[bool] = True

    def __init__(
        self,
        base: nn.Module,
        inner: InnerLoop,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        learn_rates: bool = False,
        weights: PathLike | None = None,
    ) -> None:
        super().__init__()
        self.base = with_image_norm(base).eval()
        self.inner = inner
        self.loss = loss
        self.rates = nn.ParameterList(torch.ones_like(p) for p in self.start.values()) if learn_rates else None
        if weights is not None:
            load_encoder_weights(self.base, str(weights))

    @property
    def start(self) -> Parameters:
        """The parameters that are adapted, by name."""
        return {name: p for name, p in self.base.named_parameters() if p.requires_grad}

    @property
    def rate_factors(self) -> Parameters:
        """Learned factors of the inner rate, by the names of the parameters; empty where they are not learned."""
        return {} if self.rates is None else dict(zip(self.start, self.rates, strict=True))

    def train(self, mode: bool = True) -> MetaLearnedSegmenter:
        """Set the mode; the base stays in evaluation mode, without dropout."""
        super().train(mode)
        self.base.eval()
        return self

    def task_loss(self, parameters: Parameters, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Compute the loss of parameters on one task's support, or query.

        Args:
            parameters: by name.
            data: images (K, C, *S) and labels (K, 1, *S), 0 background, 1..N the classes.

        Returns:
            A scalar.
        """
        image, label = data
        return self.loss(self._logits(parameters, image), label)

    def encode_support(self, support_image: torch.Tensor, support_label: torch.Tensor) -> Parameters:
        """Adapt the network to each episode's support.

        Args:
            support_image: (E, K, C, *S).
            support_label: (E, K, 1, *S), 0 background, 1..N the classes.

        Returns:
            The adapted weights of each episode, (E, ...) each.

        Raises:
            ValueError: where images and labels do not fit together, or a support has no foreground.
        """
        check_episode(support_image, support_label)
        without = (~(support_label > 0).flatten(1).any(1)).nonzero().flatten().tolist()
        if without:
            raise ValueError(
                f"The support of episode {', '.join(map(str, without))} has no foreground, nothing can be learned from "
                "it: is the mask empty, or too small for the image size of the network?"
            )
        return self.inner.adapt_tasks(
            self.task_loss, self.start, (support_image, support_label), self.rate_factors
        ).parameters

    def classify(self, features: torch.Tensor, context: Parameters, size: Sequence[int]) -> torch.Tensor:
        """Segment queries with adapted weights.

        Args:
            features: images (B, C, *S); with E adapted networks, B / E consecutive ones for each.
            context: adapted weights, (E, ...) each.
            size: spatial size of the logits.

        Returns:
            Logits (B, N+1, *size), 0 for background, then those of each class against the rest.

        Raises:
            ValueError: where the queries cannot be dealt out to the adapted networks.
        """
        episodes = len(next(iter(context.values())))
        if len(features) % episodes:
            raise ValueError(f"{len(features)} queries cannot be dealt out to {episodes} adapted networks.")
        if episodes == 1:
            logits = self._logits({name: p[0] for name, p in context.items()}, features)
        else:
            logits = vmap(self._logits)(context, features.unflatten(0, (episodes, -1))).flatten(0, 1)
        return foreground_logits(linear_resize(logits, size).unsqueeze(2))

    def _logits(self, parameters: Parameters, image: torch.Tensor) -> torch.Tensor:
        given = {place: parameters[name] for place, name in self._places().items()}
        found: Any = functional_call(self.base, given, (image,), tie_weights=False)
        return found[0] if isinstance(found, (list, tuple)) else found

    def _places(self) -> dict[str, str]:
        """Find where the adapted parameters are used, and their names; one may be used in several places.

        ``functional_call`` would find the places by itself, but leaves the parameters of modules that are known by
        several names, as those of ``DynUNet`` are, in the network.
        """
        names = {id(p): name for name, p in self.start.items()}
        return {
            f"{module_name}.{name}" if module_name else name: names[id(p)]
            for module_name, module in self.base.named_modules()
            for name, p in module._parameters.items()
            if id(p) in names
        }
