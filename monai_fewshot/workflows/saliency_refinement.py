# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from monai_fewshot.data import NumberedSamples, SliceStack, check_output_dir, numbered_random
from monai_fewshot.data.images.picture_reading import as_shown
from monai_fewshot.handlers import FiniteLoss
from monai_fewshot.transforms import EpisodeAugmentation, clean_saliency, field_of_view
from monai_fewshot.utils import lock_folder, read_checkpoint, save_checkpoint, unlock_folder, write_atomically

__all__ = ["RefinementImages", "SaliencyRefinement", "write_masks"]

logger = logging.getLogger(__name__)
SMALLEST_SHARE = 0.25
"""Part of the images that a round learns from at least."""


class RefinementImages(NumberedSamples):
    """Augmented images with their current masks; item number i is a function of (seed, i) alone.

    Args:
        stack: images with masks, above 0 in the mask.
        length: number of items.
        seed: of all draws.
        augmentation: of image and mask.
        normalize: what is done to images (B, C, H, W) after their augmentation.
    """

    def __init__(
        self,
        stack: SliceStack,
        length: int,
        seed: int,
        augmentation: EpisodeAugmentation,
        normalize: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        super().__init__(length, seed)
        self.stack = stack
        self.augmentation = augmentation
        self.normalize = normalize

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Make a batch of ``image`` (C, H, W) and ``label`` (1, H, W)."""
        size = self.stack.image.shape[2:]
        sources = [numbered_random(self.seed, index) for index in indices]
        places = [random.randint(len(self.stack.image)) for random in sources]
        draws = [self.augmentation.draw(random, size) for random in sources]
        image, label = self.stack.take(places)
        image, label = self.augmentation(image, (label > 0).float(), draws)
        pairs = zip(self.normalize(image), label, strict=True)
        return [{"image": image, "label": label} for image, label in pairs]


class SaliencyRefinement:
    """Masks of what is salient, refined by a network that is trained on them, round by round.

    In each round the network learns from the masks as they are, of augmented images; what it finds in the images, with
    those of their mirror images averaged and cleaned, are the masks of the next round. Mistakes of single masks that do
    not go with the images' looks are not learned in the few epochs of a round, and so disappear. Masks that reach the
    border of the field of view are mostly wrong: images with one are segmented but not learned from, unless fewer than
    a quarter would be left.

    Based on: the second step of Amac et al., "MaskSplit", WACV 2022, section 3.2, https://arxiv.org/abs/2110.12207,
    where BASNet is trained from scratch on maps of DeepUSPS (Nguyen et al., NeurIPS 2019,
    https://arxiv.org/abs/1909.13055), which refines masks made by hand in rounds.

    Deviation: any segmentation network, Dice and cross-entropy, the choice of images, and the cleaned prediction of a
    round in place of a moving average.

    Args:
        network: from (B, C, H, W) to logits (B, 1, H, W), on the device where ``stack`` makes episodes.
        stack: images with the first masks, above 0 in the mask.
        augmentation: of images and masks.
        normalize: what is done to images (B, C, H, W) before the network.
        output_dir: ``round_N.pt`` is written there after each round, and serves to go on after an interruption.
        rounds: number of rounds.
        steps: steps of a round.
        batch_size: images of a step.
        lr: learning rate of AdamW, with cosine decay within a round.
        seed: of all draws.

    Raises:
        OSError: where the output folder cannot be written to.
        ValueError: on :meth:`run`, where the folder holds rounds of other images or settings, or damaged ones, another
            process works there, or all masks are empty.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        stack: SliceStack,
        augmentation: EpisodeAugmentation,
        normalize: Callable[[torch.Tensor], torch.Tensor],
        output_dir: PathLike,
        rounds: int = 3,
        steps: int = 400,
        batch_size: int = 8,
        lr: float = 1e-3,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.stack = stack
        self.device = stack.image.device if stack.device is None else stack.device
        self.augmentation = augmentation
        self.normalize = normalize
        self.output_dir = check_output_dir(output_dir)
        self.rounds = rounds
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed

    def run(self) -> list[torch.Tensor]:
        """Refine.

        Returns:
            The masks (S, 1, H, W), uint8, before the first round and after each, where the labels of the stack lie.
        """
        lock_folder(self.output_dir)
        masks = [(self.stack.label > 0).to(torch.uint8)]
        for number in range(1, self.rounds + 1):
            path = self.output_dir / f"round_{number}.pt"
            if path.is_file():
                done = read_checkpoint(path)
                if done.get("made_with") != self._made_with():
                    raise ValueError(
                        f"{path} was made with other images or settings: choose another output_dir, or remove the "
                        "rounds in it to begin anew."
                    )
                self.network.load_state_dict(done["model"])
                masks.append(done["masks"].to(self.stack.label.device))
                logger.info("round %d is done already: %s", number, path)
                continue
            self._train(number, masks[-1])
            masks.append(self._predict(number))
            made = {"model": self.network.state_dict(), "masks": masks[-1], "made_with": self._made_with()}
            save_checkpoint(made, path)
            changed = (masks[-1] != masks[-2]).float().mean()
            logger.info("round %d changed %.1f %% of all pixels", number, 100 * changed)
        unlock_folder(self.output_dir)
        return masks

    def _made_with(self) -> dict[str, str]:
        """What rounds depend on, to tell whether those in a folder may be gone on with."""
        digest = hashlib.sha256()
        for tensor in (self.stack.image, self.stack.label):
            digest.update(tensor.cpu().numpy().tobytes())
        settings = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
        return {"images": digest.hexdigest(), **{key: str(value) for key, value in settings.items()}}

    def _train(self, number: int, masks: torch.Tensor) -> None:
        chosen = self._trusted(masks)
        logger.info("round %d learns from %d of %d images", number, chosen.sum(), len(masks))
        stack = SliceStack(self.stack.image[chosen], masks[chosen], self.stack.scan[chosen.cpu()], self.stack.device)
        length = self.steps * self.batch_size
        images = RefinementImages(stack, length, 1000 * self.seed + number, self.augmentation, self.normalize)
        optimizer = torch.optim.AdamW(self.network.parameters(), self.lr, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        trainer = SupervisedTrainer(
            device=self.device,
            max_epochs=1,
            train_data_loader=DataLoader(images, batch_size=self.batch_size),
            network=self.network,
            optimizer=optimizer,
            loss_function=DiceCELoss(sigmoid=True),
            decollate=False,
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: schedule.step())
        FiniteLoss().attach(trainer)
        ProgressBar(desc=f"round {number}").attach(trainer)
        trainer.run()

    def _trusted(self, masks: torch.Tensor) -> torch.Tensor:
        """Tell which masks are neither empty nor reach the border of what the image shows."""
        filled = masks.bool().flatten(1).any(1)
        clear = filled & ~(masks.bool() & self._borders).flatten(1).any(1)
        chosen = clear if clear.sum() >= SMALLEST_SHARE * len(masks) else filled
        if not chosen.any():
            raise ValueError("All saliency masks are empty: are the images of one color?")
        return chosen

    @cached_property
    def _borders(self) -> torch.Tensor:
        inside = np.stack([field_of_view(image) for image in self.stack.image.float().cpu().numpy()])
        inner = ndimage.binary_erosion(inside, np.ones((1, 3, 3)), iterations=2)
        return torch.from_numpy(inside & ~inner).unsqueeze(1).to(self.stack.label.device)

    @torch.no_grad()
    def _predict(self, number: int) -> torch.Tensor:
        self.network.eval()
        masks = []
        places = torch.arange(len(self.stack.image)).split(self.batch_size)
        for batch in tqdm(places, f"masks of round {number}", leave=False, disable=None):
            image = self.normalize(self.stack.take(batch.tolist())[0])
            views = [self.network(image.flip(axes)).flip(axes) for axes in ([], [3], [2], [2, 3])]
            found = torch.stack(views).float().sigmoid().mean(0).cpu().numpy()[:, 0]
            masks += [torch.from_numpy(_cleaned(saliency)) for saliency in found]
        return torch.stack(masks).unsqueeze(1).to(self.stack.label.device, torch.uint8)


def write_masks(masks: torch.Tensor, images: Sequence[Mapping[str, Any]], folder: PathLike) -> int:
    """Write masks as PNG files of 0 and 255 in the size of their images; empty ones are not written.

    Args:
        masks: (S, 1, H, W), above 0 in the mask.
        images: S dictionaries with ``name`` and path of the ``image``.
        folder: where to; a mask is called ``NAME.png``.

    Returns:
        The number of masks written.
    """
    written = 0
    for mask, image in zip(masks[:, 0].cpu().numpy(), images, strict=True):
        path = Path(folder) / f"{image['name']}.png"
        if mask.any():
            with Image.open(image["image"]) as original:
                size = as_shown(original).size
            picture = Image.fromarray((mask > 0).astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            write_atomically(path, buffer.getvalue())
            written += 1
        else:
            path.unlink(missing_ok=True)
    logger.info("%d masks of %d images: %s", written, len(images), folder)
    return written


def _cleaned(probability: np.ndarray) -> np.ndarray:
    return clean_saliency(np.where(probability > 0.5, probability, 0), opening=1)
