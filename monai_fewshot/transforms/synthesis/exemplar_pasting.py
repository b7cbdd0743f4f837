# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import NdarrayOrTensor
from monai.utils import convert_to_numpy, convert_to_tensor
from scipy import ndimage

from monai_fewshot.utils import pixels_per_slice

__all__ = ["blend_layers", "check_exemplar", "class_centers", "organ_free", "paste_masks"]


def check_exemplar(
    image: torch.Tensor, label: torch.Tensor, number: int, backgrounds: torch.Tensor | None = None
) -> None:
    """Check that exemplars (B, C, H, W), their labels (B, 1, H, W) and the backgrounds (M, C, H, W), if any, fit.

    Args:
        image: the exemplars.
        label: their labels.
        number: of the images that shall be made of them: B, or any where there is one exemplar.
        backgrounds: None where there are none.

    Raises:
        ValueError: where they do not fit.
    """
    if image.ndim != 4 or label.shape != (image.shape[0], 1, *image.shape[2:]):
        raise ValueError(
            f"The exemplar {tuple(image.shape)} and its label {tuple(label.shape)} do not fit: give (B, C, H, W) and "
            "(B, 1, H, W)."
        )
    if len(image) not in (1, number):
        raise ValueError(f"{len(image)} exemplars do not fit {number} draws: give one exemplar, or one for each draw.")
    if backgrounds is not None and backgrounds.shape[1:] != image.shape[1:]:
        raise ValueError(
            f"backgrounds (M, C, H, W) are {tuple(backgrounds.shape)}, the exemplar is {tuple(image.shape)}: bring "
            "them to its channels and size."
        )


def class_centers(label: NdarrayOrTensor, num_classes: int) -> np.ndarray:
    """Find the centers of mass of an exemplar's classes.

    Args:
        label: (1, H, W), 0 background, 1..N the classes, each of which it must show.
        num_classes: N.

    Returns:
        (N, 2), pixels along the two axes from the center of the image.

    Raises:
        ValueError: where a class is not shown, or the label has other values.

    Example:
        >>> label = np.zeros((1, 5, 5))
        >>> label[0, 1, 2:] = 1
        >>> class_centers(label, 1).tolist()
        [[-1.0, 1.0]]
    """
    array = convert_to_numpy(label)
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError(f"The exemplar's label must be (1, H, W), got {array.shape}.")
    pixels = pixels_per_slice(torch.from_numpy(array).unsqueeze(3), num_classes)[:, 0]
    if not pixels.all():
        raise ValueError(
            f"The exemplar lacks the classes {(np.flatnonzero(pixels == 0) + 1).tolist()} of 1 to {num_classes}: take "
            "one that shows all of them, or leave them out of its label and lower num_classes."
        )
    of_mass = ndimage.center_of_mass(np.ones(array.shape[1:]), array[0], np.arange(1, num_classes + 1))
    return np.asarray(of_mass) - (np.array(array.shape[1:]) - 1) / 2


def organ_free(backgrounds: NdarrayOrTensor, labels: NdarrayOrTensor | None) -> torch.Tensor:
    """Check that images can serve as backgrounds.

    Args:
        backgrounds: (M, C, H, W).
        labels: (M, 1, H, W), 0 throughout, or None.

    Returns:
        ``backgrounds``, floating point, without metadata.

    Raises:
        ValueError: where a shape is wrong, or a label is not 0 throughout.
    """
    images = convert_to_tensor(backgrounds, track_meta=False)
    images = images if images.is_floating_point() else images.float()
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"backgrounds must be (M, C, H, W) with no empty axis, got {tuple(images.shape)}.")
    if labels is None:
        return images
    organs = convert_to_tensor(labels, track_meta=False) != 0
    if organs.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(
            f"background_labels {tuple(organs.shape)} do not fit backgrounds {tuple(images.shape)}: give (M, 1, H, W)."
        )
    bad = organs.flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(images)} backgrounds show organs by their background_labels, numbers {bad[:20]}: "
            "leave these out."
        )
    return images


def paste_masks(masks: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Paste the masks of classes one after the other.

    Args:
        masks: (B, N, H, W), bool.
        order: (B, N), the classes 1..N in the order of pasting; later ones lie on top.

    Returns:
        (B, 1, H, W), 0 background, 1..N the classes.

    Example:
        >>> masks = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0]]).bool().view(1, 2, 1, 4)
        >>> paste_masks(masks, torch.tensor([[2, 1]])).flatten().tolist()
        [1, 1, 2, 0]
    """
    pasted = masks.gather(1, (order - 1)[:, :, None, None].expand_as(masks))
    place = torch.arange(1, masks.shape[1] + 1, device=masks.device).view(1, -1, 1, 1)
    topmost = (pasted * place).amax(1).flatten(1)
    return F.pad(order, (1, 0)).gather(1, topmost).view(-1, 1, *masks.shape[2:])


def blend_layers(layers: torch.Tensor, label: torch.Tensor, width: int) -> torch.Tensor:
    """Take each pixel from the layer that its label names, going over gradually at edges.

    Layers are weighted by their share of the square of 2 ``width`` + 1 pixels about a pixel, so that no seam shows
    the background between two organs that touch, and what is farther than ``width`` from an edge is one layer's alone.

    Args:
        layers: (B, N+1, C, H, W), background first.
        label: (B, 1, H, W), 0..N.
        width: pixels on either side of an edge, 0 for hard edges.

    Returns:
        (B, C, H, W).
    """
    classes = torch.arange(layers.shape[1], device=label.device).view(1, -1, 1, 1)
    weights = (label == classes).to(layers.dtype)
    if width:
        weights = F.avg_pool2d(F.pad(weights, (width,) * 4, mode="replicate"), 2 * width + 1, stride=1)
    return (layers * weights.unsqueeze(2)).sum(1)
