# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

__all__ = ["COCO_CLASSES", "PASCAL_CLASSES", "few_shot_fold_classes"]


def _numbered(names: str) -> dict[int, str]:
    return dict(enumerate(names.split(", "), 1))


PASCAL_CLASSES = _numbered(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person, "
    "pottedplant, sheep, sofa, train, tvmonitor"
)
"""Class names of Pascal VOC 2012 by the value in its masks."""

COCO_CLASSES = _numbered(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
"""Class names of COCO by its consecutive class numbers, 1 to 80."""


def few_shot_fold_classes(dataset: str, fold: int) -> dict[int, str]:
    """Test classes of a fold of Pascal-5i or COCO-20i; all other classes are for training.

    Based on: Shaban et al., "One-Shot Learning for Semantic Segmentation", BMVC 2017,
    https://arxiv.org/abs/1709.03410 (Pascal: fold i has classes 5i+1 to 5i+5); Nguyen and Todorovic, "Feature Weighting
    and Boosting for Few-Shot Segmentation", ICCV 2019, https://arxiv.org/abs/1909.13140 (COCO: every fourth class).

    Args:
        dataset: ``"pascal"`` or ``"coco"``.
        fold: 0 to 3.

    Returns:
        Name by number.

    Raises:
        ValueError: for another data set or fold.

    Example:
        >>> list(few_shot_fold_classes("pascal", 1).values())
        ['bus', 'car', 'cat', 'chair', 'cow']
        >>> list(few_shot_fold_classes("coco", 0))[:4]
        [1, 5, 9, 13]
    """
    if dataset not in ("pascal", "coco") or fold not in range(4):
        raise ValueError(f"Folds are 0 to 3 of 'pascal' or 'coco', got {fold} of {dataset!r}.")
    if dataset == "pascal":
        return {number: PASCAL_CLASSES[number] for number in range(5 * fold + 1, 5 * fold + 6)}
    return {number: COCO_CLASSES[number] for number in range(fold + 1, 81, 4)}
