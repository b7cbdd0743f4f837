# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import ClassVar

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from monai_fewshot.transforms.augmentation.noise import uniform_noise
from monai_fewshot.transforms.preparation.image_checks import keys_beside

__all__ = [
    "Denoising",
    "Inpainting",
    "LocalShuffling",
    "SurrogateTask",
    "SurrogateTaskD",
    "SurrogateTaskDict",
    "SurrogateTaskd",
]


class SurrogateTask(RandomizableTransform):
    """A task that needs no annotation: an image is corrupted, and a network shall restore it.

    A sub-class says how images are corrupted. The corruption is a function of the image's seed alone, the same on every
    device and in every batch.
    """

    backend: ClassVar = [TransformBackends.TORCH]

    def __init__(self) -> None:
        super().__init__(1.0)
        self._seed = 0

    @abstractmethod
    def corrupt(self, image: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Corrupt a batch.

        Args:
            image: (B, C, H, W), intensities from 0 to 1.
            seeds: (B,), integers from 0 to 2^31 - 1, on the images' device.

        Returns:
            (B, C, H, W).
        """

    def randomize(self, data: None = None) -> None:
        """Draw a seed."""
        self._seed = int(self.R.randint(1 << 31))

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Corrupt an image.

        Args:
            img: (C, H, W), intensities from 0 to 1.
            randomize: whether to draw anew; else the last draw serves again.

        Returns:
            (C, H, W), of the type of ``img``.
        """
        if randomize:
            self.randomize()
        data = convert_to_tensor(img, dtype=torch.float32, track_meta=False)
        seeds = torch.tensor([self._seed], device=data.device)
        return convert_to_dst_type(self.corrupt(data[None], seeds)[0], img)[0]


class Denoising(SurrogateTask):
    """Gaussian noise on every pixel.

    Based on: Feyjie et al., "Semi-supervised few-shot learning for medical image segmentation", 2020, section 1.2,
    https://arxiv.org/abs/2003.08462. The kind and strength of the noise are not given there.

    Args:
        std: standard deviation of the noise.

    Example:
        >>> Denoising(0.2).set_random_state(0)(torch.full((3, 64, 64), 0.5)).std().round(decimals=1)
        tensor(0.2000)
    """

    def __init__(self, std: float = 0.2) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std must be positive, got {std}.")
        self.std = std

    def corrupt(self, image: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Add noise."""
        uniform = uniform_noise(seeds, image.shape[1:]).clamp(-1 + 1e-6, 1 - 1e-6)
        return image + self.std * 2**0.5 * torch.erfinv(uniform)


class Inpainting(SurrogateTask):
    """Random rectangles take the image's mean color.

    Based on: Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016,
    https://arxiv.org/abs/1604.07379.

    Args:
        num_patches: number of rectangles; they may overlap.
        side: range of their sides, as parts of the image's.

    Example:
        >>> image = torch.linspace(0, 1, 64).expand(1, 64, 64)
        >>> changed = Inpainting(1, (0.5, 0.5)).set_random_state(0)(image) != image
        >>> bool(changed.any(2).sum() <= 33)
        True
    """

    def __init__(self, num_patches: int = 6, side: tuple[float, float] = (0.1, 0.3)) -> None:
        super().__init__()
        if num_patches < 1 or not 0 < side[0] <= side[1] <= 1:
            raise ValueError(f"num_patches must be positive and side a range within 0 to 1, got {num_patches}, {side}.")
        self.num_patches = num_patches
        self.side = side

    def corrupt(self, image: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Cover rectangles."""
        drawn = (uniform_noise(seeds, (self.num_patches, 2, 2)) + 1) / 2
        sides = self.side[0] + (self.side[1] - self.side[0]) * drawn[..., 0]
        begins = (1 - sides) * drawn[..., 1]
        inside = []
        for axis, length in enumerate(image.shape[2:]):
            place = (torch.arange(length, device=image.device) + 0.5) / length
            begin, end = begins[:, :, axis, None], (begins + sides)[:, :, axis, None]
            inside.append((place >= begin) & (place < end))
        covered = (inside[0].unsqueeze(3) & inside[1].unsqueeze(2)).any(1, keepdim=True)
        return torch.where(covered, image.mean((2, 3), keepdim=True), image)


class LocalShuffling(SurrogateTask):
    """The pixels of small windows change places: texture is lost, the large shapes stay.

    Based on: Zhou et al., "Models Genesis", MICCAI 2019, section 2, https://arxiv.org/abs/1908.06912.

    Deviation: windows are the cells of a grid, not drawn one by one, and all have one size. Rows and columns that do
    not fill a cell stay as they are.

    Args:
        window: side of a window, pixels.
        share: part of the windows that is shuffled.

    Example:
        >>> image = torch.rand(1, 32, 32)
        >>> shuffled = LocalShuffling(8, 1.0).set_random_state(0)(image)
        >>> bool(torch.equal(shuffled[0, :8, :8].flatten().sort().values, image[0, :8, :8].flatten().sort().values))
        True
    """

    def __init__(self, window: int = 6, share: float = 0.5) -> None:
        super().__init__()
        if window < 2 or not 0 < share <= 1:
            raise ValueError(f"window must be 2 or more and share above 0, at most 1, got {window} and {share}.")
        self.window = window
        self.share = share

    def corrupt(self, image: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        """Shuffle windows."""
        window = self.window
        rows, columns = (length // window for length in image.shape[2:])
        if not rows or not columns:
            raise ValueError(f"Windows of {window} pixels do not fit into images {tuple(image.shape)}.")
        inner = image[:, :, : rows * window, : columns * window]
        cells = inner.unflatten(3, (columns, window)).unflatten(2, (rows, window)).transpose(3, 4).flatten(4)
        noise = uniform_noise(seeds, (rows, columns, window * window + 1))
        stays = (noise[..., -1:] + 1) / 2 >= self.share
        in_place = torch.arange(window * window, device=image.device)
        order = torch.where(stays, in_place, noise[..., :-1].argsort(-1)).unsqueeze(1)
        cells = cells.gather(4, order.expand(-1, image.shape[1], -1, -1, -1))
        cells = cells.unflatten(4, (window, window)).transpose(3, 4)
        out = image.clone()
        out[:, :, : rows * window, : columns * window] = cells.flatten(4).flatten(2, 3)
        return out


class SurrogateTaskd(Randomizable, MapTransform):
    """Dictionary form of every :class:`SurrogateTask`: writes corrupted images under keys of their own.

    Args:
        keys: images, (C, H, W), intensities from 0 to 1.
        task: the task.
        corrupted_key: key to write the corrupted image under, one for each of the keys.
        allow_missing_keys: whether keys may be absent.
    """

    backend = SurrogateTask.backend

    def __init__(
        self,
        keys: KeysCollection,
        task: SurrogateTask,
        corrupted_key: KeysCollection = "surrogate_image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.task = task
        self.corrupted_key = keys_beside(self.keys, corrupted_key, "corrupted_key")

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> SurrogateTaskd:
        """Seed the draws."""
        super().set_random_state(seed, state)
        self.task.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Add the corrupted images to the dictionary, each with a draw of its own."""
        d = dict(data)
        for key, new_key in self.key_iterator(d, self.corrupted_key):
            d[new_key] = self.task(d[key])
        return d


SurrogateTaskD = SurrogateTaskDict = SurrogateTaskd
