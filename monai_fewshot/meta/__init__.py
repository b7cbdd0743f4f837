# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .conjugate_gradients import ConjugateGradientResult, conjugate_gradients
from .implicit_maml import ImplicitMAML
from .inner_loop import Adaptation, InnerLoop, InnerOptimizer, Loss, Parameters
from .maml import MAML
from .meta_gradients import MetaGradient, MetaStep, TaskGradients
from .reptile import Reptile

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
