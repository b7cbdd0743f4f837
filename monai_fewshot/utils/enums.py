# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from monai.utils import StrEnum

IGNORED = 255
"""Label of pixels of which nothing is known: losses and metrics leave them out."""


class EpisodeKeys(StrEnum):
    """Keys of an episode dictionary, and of what an evaluator makes of it.

    The query keeps MONAI's own keys, so that engines, handlers, metrics and writers work on it unchanged.

    - ``IMAGE``: query image, (B, C, *S).
    - ``LABEL``: query label, (B, 1, *S), 0 background, 1..N the episode's classes.
    - ``SUPPORT_IMAGE``: support images, (E, K, C, *S); E divides B, episode e serves B / E consecutive queries.
    - ``SUPPORT_LABEL``: support labels, (E, K, 1, *S), with the query's class numbers.
    - ``SUPPORT_AFFINE``: of the support volumes, (E, K, 4, 4), from array indices to mm.
    - ``SURROGATE_IMAGE``: corrupted images of a surrogate task, (B, U, C, *S).
    - ``NUMBER``: number of a meta-learning task, (E,).
    - ``SURROGATE_TARGET``: what they shall be restored to, (B, U, C, *S), intensities from 0 to 1.
    - ``SPREAD``: in the output of an evaluator, beside ``pred``: how undecided each voxel is, (B, 1, *S).
    - ``PROBABILITY``: likewise, of each class against its strongest rival, (B, N, *S).
    - ``VOLUME_BOUNDS``: likewise, least and most volume of each class in mL, (B, N, 2).
    - ``EVIDENCE``: likewise, of how good the mask of each class is, (B, N), from 0 to 1.
    """

    IMAGE = "image"
    LABEL = "label"
    SUPPORT_IMAGE = "support_image"
    SUPPORT_LABEL = "support_label"
    SUPPORT_AFFINE = "support_affine"
    NUMBER = "number"
    SURROGATE_IMAGE = "surrogate_image"
    SURROGATE_TARGET = "surrogate_target"
    SPREAD = "spread"
    PROBABILITY = "probability"
    VOLUME_BOUNDS = "volume_bounds"
    EVIDENCE = "evidence"
