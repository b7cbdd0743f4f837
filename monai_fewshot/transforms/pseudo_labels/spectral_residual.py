# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.transform import resize

from .field_of_view import field_of_view

__all__ = ["spectral_residual_saliency"]

EPSILON = 1e-8


def spectral_residual_saliency(image: np.ndarray, width: int = 64, sigma: float = 2.5) -> np.ndarray:
    r"""Saliency as what is left of an image's spectrum after its smooth part.

    .. math::
        S = g_\sigma * \left| F^{-1} \left( e^{R + i P} \right) \right|^2, \qquad R = L - h_3 * L

    with the log amplitude L and phase P of the image's Fourier transform and a 3x3 average :math:`h_3`. It finds what
    is small and unlike its surroundings, and the rims of what is large.

    Based on: Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", CVPR 2007, section 2.

    Deviation: the maps of the channels are averaged, where the paper has gray images; a constant channel has no
    saliency. Dark corners and frames (:func:`field_of_view`) take the mean
    color of the rest.

    Args:
        image: (C, H, W), any unit.
        width: width to which the image is brought first, pixels; the scale of what is salient.
        sigma: standard deviation of the Gaussian, pixels at that width.

    Returns:
        (H, W), 0 to 1; zeros for a constant image.
    """
    inside = field_of_view(image)
    image = np.where(inside, image, (image * inside).sum((1, 2), keepdims=True) / inside.sum())
    height = max(8, round(width * image.shape[1] / image.shape[2]))
    small = [resize(channel.astype(np.float64), (height, width), anti_aliasing=True) for channel in image]
    maps = [_residual(channel, sigma) for channel in small if np.ptp(channel) > 0]
    if not maps:
        return np.zeros(image.shape[1:])
    saliency = resize(np.mean(maps, axis=0), image.shape[1:], order=1)
    return (saliency - saliency.min()) / max(np.ptp(saliency), EPSILON)


def _residual(channel: np.ndarray, sigma: float) -> np.ndarray:
    channel = (channel - channel.min()) / np.ptp(channel)
    spectrum = np.fft.fft2(channel)
    amplitude = np.log(np.abs(spectrum) + EPSILON)
    residual = amplitude - ndimage.uniform_filter(amplitude, 3, mode="wrap")
    restored = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    return ndimage.gaussian_filter(np.abs(restored) ** 2, sigma)
