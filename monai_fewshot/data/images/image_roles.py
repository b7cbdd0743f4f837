# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_fewshot.data.episodes.numbered_samples import numbered_random
from monai_fewshot.data.scans.folds import Fold

from .image_sets import ImageSet

__all__ = [
    "hold_out_images",
    "random_support_folds",
    "support_fold",
    "support_images",
    "with_pseudo_masks",
    "without_labels",
]

logger = logging.getLogger(__name__)


def hold_out_images(image_set: ImageSet, share: float = 0.2) -> tuple[ImageSet, ImageSet]:
    """Set part of a set aside for validation: of its classes, where it has enough, else of its images.

    Of n classes with images of their own every k-th is held out, k = 1 / share rounded, if at least two stay on either
    side; so that validation is on classes that training has not seen, as in use. Else it is every k-th image.

    Args:
        image_set: all images.
        share: part that is held out; 0 validates on the training images.

    Returns:
        Images to train on, and images to validate on.

    Raises:
        ValueError: where the share is not below one half.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"val_share is {share}, must be from 0 to below 0.5.")
    if share == 0:
        return image_set, image_set
    every = round(1 / share)
    held_out = list(image_set.class_names)[every - 1 :: every]
    by_class = all("class_number" in image for image in image_set.images)
    if by_class and len(held_out) >= 2:
        return image_set.without_classes(held_out), image_set.of_classes(held_out)
    kept = tuple(image for index, image in enumerate(image_set.images) if index % every != every - 1)
    return ImageSet(kept, image_set.class_names), ImageSet(image_set.images[every - 1 :: every], image_set.class_names)


def without_labels(images: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep names and images alone."""
    return [{key: image[key] for key in ("name", "image")} for image in images]


def with_pseudo_masks(image_set: ImageSet, masks_dir: PathLike) -> ImageSet:
    """Put masks that were found without annotations in the place of a set's own; images without one are left out.

    Args:
        image_set: the images.
        masks_dir: folder with ``NAME.png`` for the image NAME, as ``bundles/masksplit/configs/saliency.json`` writes
            them.

    Raises:
        ValueError: where no image has a mask.
    """
    folder = Path(masks_dir).expanduser().absolute()
    paths = {image["name"]: folder / f"{image['name']}.png" for image in image_set.images}
    found = [image for image in without_labels(image_set.images) if paths[image["name"]].is_file()]
    if not found:
        raise ValueError(
            f"{folder} has a mask for none of the {len(paths)} images, such as {next(iter(paths), 'NAME')}.png: make "
            "them with configs/saliency.json, or name their folder as masks_dir."
        )
    if len(found) < len(paths):
        logger.warning("%d of %d images have no mask in %s: left out", len(paths) - len(found), len(paths), folder)
    images = ({**image, "label": str(paths[image["name"]]), "class_number": 1} for image in found)
    return ImageSet(tuple(images), {1: "salient"})


def support_images(
    image: PathLike | Sequence[PathLike],
    label: PathLike | Sequence[PathLike],
    binary_masks: bool = True,
    mask_threshold: int | None = None,
) -> list[dict[str, Any]]:
    """List annotated 2D support images.

    Args:
        image: one file or several.
        label: their masks, in the same order.
        binary_masks: whether all that is not 0 is one class; else masks hold class numbers.
        mask_threshold: gray level above which a pixel of a binary mask is foreground.

    Returns:
        Dictionaries as in :class:`~monai_fewshot.data.ImageSet`.

    Raises:
        FileNotFoundError: where a file does not exist.
        ValueError: where there are not as many masks as images.
    """
    images, labels = ([Path(path).expanduser().absolute() for path in ensure_tuple(paths)] for paths in (image, label))
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} support image(s) and {len(labels)} mask(s): give one mask for each image.")
    missing = [str(path) for path in [*images, *labels] if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"There is no file {', '.join(missing)}: name the annotated images and their masks.")
    extra = {"class_number": 1} if binary_masks else {}
    extra |= {} if mask_threshold is None else {"mask_threshold": mask_threshold}
    pairs = zip(images, labels, strict=True)
    return [{"name": i.stem, "image": str(i), "label": str(mask), **extra} for i, mask in pairs]


def support_fold(images: Sequence[dict[str, Any]], support: str | Sequence[str]) -> Fold:
    """Make one image or several the example and all others queries.

    Args:
        images: of a set.
        support: name of the annotated image, or names.

    Raises:
        ValueError: where there is no image of that name.
    """
    names = [image["name"] for image in images]
    supports = ensure_tuple(support)
    unknown = [name for name in supports if name not in names]
    if unknown:
        raise ValueError(
            f"There is no image called {', '.join(map(repr, unknown))} to be the support; there are "
            f"{', '.join(names[:10])}."
        )
    return Fold(0, tuple(name for name in names if name not in supports), supports, ())


def random_support_folds(images: Sequence[dict[str, Any]], shots: int, runs: int, seed: int = 0) -> list[Fold]:
    """Draw the annotated images of several runs; in each of them all other images are queries.

    Run r is a function of (seed, r) alone.

    Args:
        images: of a set.
        shots: annotated images of a run.
        runs: number of runs.
        seed: of the draws.

    Returns:
        A fold for each run.

    Raises:
        ValueError: where no query would be left.
    """
    names = [image["name"] for image in images]
    if not 1 <= shots < len(names):
        raise ValueError(
            f"{shots} annotated images of {len(names)} are asked for: give 1 at least, and one image more than shots."
        )
    folds = []
    for run in range(runs):
        random = numbered_random(seed, run)
        support = {names[place] for place in random.choice(len(names), shots, replace=False)}
        queries = tuple(name for name in names if name not in support)
        folds.append(Fold(run, queries, tuple(name for name in names if name in support), ()))
    return folds
