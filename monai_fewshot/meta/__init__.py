# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .conjugate_gradients import ConjugateGradientResult, conjugate_gradients
from .inner_loop import Adaptation, InnerLoop, InnerOptimizer, Loss, Parameters
from .meta_gradients import MAML, ImplicitMAML, MetaGradient, MetaStep, Reptile, TaskGradients

__all__ = [
    "MAML",
    "Adaptation",
    "ConjugateGradientResult",
    "ImplicitMAML",
    "InnerLoop",
    "InnerOptimizer",
    "Loss",
    "MetaGradient",
    "MetaStep",
    "Parameters",
    "Reptile",
    "TaskGradients",
    "conjugate_gradients",
]
