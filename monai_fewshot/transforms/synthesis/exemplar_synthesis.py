# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from monai_fewshot.transforms.augmentation.affine_elastic import RandAffineElastic, WarpDraw
from monai_fewshot.transforms.augmentation.intensity_variation import IntensityDraw, IntensityVariation
from monai_fewshot.transforms.augmentation.where_drawn import apply_where_drawn
from monai_fewshot.transforms.preparation.image_checks import keys_beside
from monai_fewshot.utils import device_tensor

from .exemplar_arrangement import ExemplarArrangement, draw_class_warps, draw_warp
from .exemplar_pasting import blend_layers, check_exemplar, class_centers, organ_free, paste_masks

__all__ = [
    "RandExemplarSynthesis",
    "RandExemplarSynthesisD",
    "RandExemplarSynthesisDict",
    "RandExemplarSynthesisd",
    "SynthesisDraw",
]


class SynthesisDraw(NamedTuple):
    """What :class:`RandExemplarSynthesis` draws for one image.

    Attributes:
        order: the classes 1..N in the order of pasting; later ones lie on top.
        warps: geometry of each class's instance, class 1 first; None where it stays as it is.
        intensities: intensities of each class's instance, class 1 first; None as above.
        background: number of the background among those given, or None for a black one.
        background_warp: geometry of the background, or None.
        background_intensity: intensities of the background, or None.
    """

    order: tuple[int, ...]
    warps: tuple[WarpDraw | None, ...]
    intensities: tuple[IntensityDraw | None, ...]
    background: int | None = None
    background_warp: WarpDraw | None = None
    background_intensity: IntensityDraw | None = None


class RandExemplarSynthesis(RandomizableTransform):
    """Make annotated images of a single one: its organs, transformed, pasted onto black or organ-free backgrounds.

    The instance of each class is cut out of the exemplar by its mask, geometry and intensities of instances and
    background are varied, and instances are pasted class by class in a drawn order: what comes later hides what lies
    below, in image and label. What falls outside the image is gone from both.

    Based on: En and Guo, "Exemplar Learning for Medical Image Segmentation", BMVC 2022, section 3.1, equations 1 and 2,
    https://arxiv.org/abs/2204.01713. The four switches are those of its table 4 (Int.E, Int.B, Geo.E, Geo.B).

    Deviation: the paper gives no ranges and no share of black backgrounds; the defaults are ours. Exemplar and mask are
    transformed before the one is cut by the other, where equation 2 cuts first: an interpolated edge then holds the
    tissue next to the organ, not the black of what was cut away.

    Args:
        num_classes: classes N of the exemplar, background not counted.
        backgrounds: (M, C, H, W), on the device where they will be used, or None: images without any organ, as in the
            paper, or images of which nothing is known; organs that these show count as background where no pasted one
            hides them.
        background_labels: their labels, (M, 1, H, W), where it is known that no organ is there: 0 throughout.
        black_prob: probability of a black background: of the least intensity of the exemplar, by channel. 1 where there
            are no others.
        arrangement: ``"free"``, as in the paper: each class has a geometric transform of its own, about its center, so
            that a network cannot tell organs by what lies beside them; ``"whole"``: one transform for all classes,
            about the center of the image, keeps the anatomical arrangement, for organs that are told by their place,
            or lie within one another as myocardium and ventricle do.
        blend: pixels on either side of an edge of the label over which the image goes over from one side to the other,
            so that a network does not learn the edge of a paste; the label stays exact. 0 for hard edges.
        exemplar_geometry: whether the geometry of the instances is varied.
        background_geometry: whether that of the background is.
        exemplar_intensity: whether the intensities of the instances are varied, of each class for itself.
        background_intensity: whether those of the background are.
        geometry: how geometry is varied; default rotation by up to 20 degrees and shifts by up to 20 pixels in images
            256 pixels wide, zoom from 0.75 to 1.33. No flips, as they would swap left and right organs.
        intensity: how intensities are varied; default :class:`IntensityVariation`.
        prob: probability of a synthetic image, else the exemplar comes back.

    Raises:
        ValueError: where a number is out of its range, or the backgrounds are not what they should be.

    Example:
        >>> label = torch.zeros(1, 64, 64)
        >>> label[:, 10:30, 10:30], label[:, 40:60, 40:60] = 1, 2
        >>> synthesis = RandExemplarSynthesis(2).set_random_state(0)
        >>> image, label = synthesis(torch.rand(1, 64, 64), label)
        >>> image.shape, label.unique()
        (torch.Size([1, 64, 64]), tensor([0., 1., 2.]))
    """

    backend: ClassVar = [TransformBackends.TORCH]

    def __init__(
        self,
        num_classes: int,
        backgrounds: torch.Tensor | None = None,
        background_labels: torch.Tensor | None = None,
        black_prob: float = 0.5,
        arrangement: ExemplarArrangement | str = ExemplarArrangement.FREE,
        blend: int = 0,
        exemplar_geometry: bool = True,
        background_geometry: bool = True,
        exemplar_intensity: bool = True,
        background_intensity: bool = True,
        geometry: RandAffineElastic | None = None,
        intensity: IntensityVariation | None = None,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        if num_classes < 1 or blend < 0 or int(blend) != blend or not 0 <= black_prob <= 1:
            raise ValueError(
                "num_classes must be positive, blend a whole number of pixels from 0 and black_prob from 0 to 1, "
                f"got {num_classes}, {blend} and {black_prob}."
            )
        self.num_classes = num_classes
        self.backgrounds = None if backgrounds is None else organ_free(backgrounds, background_labels)
        self.black_prob = black_prob
        self.arrangement = ExemplarArrangement(arrangement)
        self.blend = int(blend)
        self.exemplar_geometry = exemplar_geometry
        self.background_geometry = background_geometry
        self.exemplar_intensity = exemplar_intensity
        self.background_intensity = background_intensity
        default = RandAffineElastic(1.0, math.radians(20), translate=20.0, shear=0.0, zoom=(0.75, 1.33), alpha=0.0)
        self.geometry = default if geometry is None else geometry
        self.intensity = IntensityVariation() if intensity is None else intensity
        self._drawn: SynthesisDraw | None = None

    def randomize(self, data: NdarrayOrTensor) -> None:
        """Draw for an exemplar with the label ``data``, (1, H, W)."""
        super().randomize(None)
        centers = class_centers(data, self.num_classes)
        self._drawn = self.draw(self.R, data.shape[1:], centers) if self._do_transform else None

    def draw(self, random: np.random.RandomState, size: Sequence[int], centers: np.ndarray) -> SynthesisDraw:
        """Draw the parameters of one image. What is switched off is drawn all the same, so that the rest stays.

        Args:
            random: the source of randomness.
            size: (H, W).
            centers: of the exemplar's classes, from :func:`~monai_fewshot.transforms.class_centers`.
        """
        order = tuple((random.permutation(self.num_classes) + 1).tolist())
        background = self._draw_background(random)
        background_warp = draw_warp(self.geometry, random, size)
        background_intensity, *intensities = (self.intensity.draw(random, size) for _ in range(self.num_classes + 1))
        warps = draw_class_warps(self.geometry, self.arrangement, random, size, centers)
        return SynthesisDraw(
            order,
            warps if self.exemplar_geometry else (None,) * self.num_classes,
            tuple(intensities) if self.exemplar_intensity else (None,) * self.num_classes,
            background,
            background_warp if self.background_geometry else None,
            background_intensity if self.background_intensity else None,
        )

    def apply(
        self, image: torch.Tensor, label: torch.Tensor, draws: Sequence[SynthesisDraw]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make a batch.

        Args:
            image: exemplars (B, C, H, W), or (1, C, H, W) for all, floating point.
            label: theirs, (B or 1, 1, H, W), 0 background, 1..N the classes.
            draws: B draws.

        Returns:
            Synthetic images (B, C, H, W) and labels (B, 1, H, W), of the types of ``image`` and ``label``.

        Raises:
            ValueError: where shapes and number of draws do not fit, or backgrounds have another size.
        """
        check_exemplar(image, label, len(draws), self.backgrounds)
        image, label = (x.expand(len(draws), *x.shape[1:]) for x in (image, label))
        instances, masks = self._instances(image, label, draws)
        pasted = paste_masks(masks, device_tensor([draw.order for draw in draws], image.device))
        layers = torch.cat([self._background(image, draws).unsqueeze(1), instances], dim=1)
        return blend_layers(layers, pasted, self.blend), pasted.to(label.dtype)

    def __call__(
        self, img: NdarrayOrTensor, label: NdarrayOrTensor, randomize: bool = True
    ) -> tuple[NdarrayOrTensor, NdarrayOrTensor]:
        """Make one image.

        Args:
            img: the exemplar, (C, H, W).
            label: its label, (1, H, W), 0 background, 1..N the classes.
            randomize: whether to draw anew; else the last draw serves again.

        Returns:
            Image and label of the same shapes and types.

        Raises:
            ValueError: where the label does not show all classes, or others, or shapes do not fit.
        """
        if randomize:
            self.randomize(label)
        if self._drawn is None:
            return img, label
        image = convert_to_tensor(img, dtype=torch.float32, track_meta=False)
        mask = convert_to_tensor(label, track_meta=False)
        out, pasted = self.apply(image[None], mask[None], [self._drawn])
        return convert_to_dst_type(out[0], img)[0], convert_to_dst_type(pasted[0], label)[0]

    def _draw_background(self, random: np.random.RandomState) -> int | None:
        if self.backgrounds is None:
            return None
        black, number = random.random_sample() < self.black_prob, random.randint(len(self.backgrounds))
        return None if black else number

    def _instances(
        self, image: torch.Tensor, label: torch.Tensor, draws: Sequence[SynthesisDraw]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exemplars (B, N, C, H, W) transformed for each class, and masks (B, N, H, W) of that class in them."""
        classes = torch.arange(1, self.num_classes + 1, device=label.device).view(1, -1, 1, 1)
        masks = (label == classes).flatten(0, 1).unsqueeze(1).to(image.dtype)
        intensities = [intensity for draw in draws for intensity in draw.intensities]
        warps = [warp for draw in draws for warp in draw.warps]
        varied = apply_where_drawn(self.intensity.apply, image.repeat_interleave(self.num_classes, 0), intensities)
        warp = partial(self.geometry.apply, modes=["bilinear"] * image.shape[1] + ["nearest"])
        both = apply_where_drawn(warp, torch.cat([varied, masks], dim=1), warps).unflatten(0, (-1, self.num_classes))
        return both[:, :, :-1], both[:, :, -1] > 0.5

    def _background(self, image: torch.Tensor, draws: Sequence[SynthesisDraw]) -> torch.Tensor:
        """Backgrounds (B, C, H, W): those drawn, transformed, and black ones."""
        out = image.amin((2, 3), keepdim=True).expand_as(image)
        given = [i for i, draw in enumerate(draws) if draw.background is not None]
        if self.backgrounds is None or not given:
            return out
        chosen = device_tensor([draws[i].background for i in given], self.backgrounds.device)
        pictures = self.backgrounds[chosen].to(image, non_blocking=True)
        pictures = apply_where_drawn(self.intensity.apply, pictures, [draws[i].background_intensity for i in given])
        warp = partial(self.geometry.apply, modes=["bilinear"] * image.shape[1])
        pictures = apply_where_drawn(warp, pictures, [draws[i].background_warp for i in given])
        return out.index_copy(0, device_tensor(given, image.device), pictures)


class RandExemplarSynthesisd(RandomizableTransform, MapTransform):
    """Dictionary form of :class:`RandExemplarSynthesis`: exemplar and label become a synthetic image and its label.

    Args:
        keys: exemplars, (C, H, W); each has a draw of its own.
        label_key: keys of their labels, (1, H, W), one for each of the keys.
        allow_missing_keys: whether keys may be absent.
        kwargs: arguments of :class:`RandExemplarSynthesis`.
    """

    backend = RandExemplarSynthesis.backend

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: KeysCollection = "label",
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.label_key = keys_beside(self.keys, label_key, "label_key")
        self.transform = RandExemplarSynthesis(**kwargs)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandExemplarSynthesisd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Make a synthetic image of each exemplar of a dictionary."""
        out = dict(data)
        for key, label_key in self.key_iterator(out, self.label_key):
            out[key], out[label_key] = self.transform(out[key], out[label_key])
        return out


RandExemplarSynthesisD = RandExemplarSynthesisDict = RandExemplarSynthesisd
