# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.inferers import Inferer, SimpleInferer
from torch.utils.data import Subset

from monai_fewshot.data import IMAGE_AFFINE, AnnotatedEpisodes, check_output_dir
from monai_fewshot.inferers import RANDOM_EPISODES
from monai_fewshot.metrics import MaskAgreement, ScanScore, compute_mask_agreement, write_scores
from monai_fewshot.networks.nets import FewShotSegmenter
from monai_fewshot.utils import (
    IGNORED,
    gather_in_first,
    load_network,
    num_processes,
    process_rank,
    run_in_first,
    run_together,
)
from monai_fewshot.visualize import EPISODE_WORDS, SliceCase, capture_case, write_report

__all__ = ["EpisodeEvaluation"]

logger = logging.getLogger(__name__)
CLASSES_PICTURED = 12
REDUCTIONS = {RANDOM_EPISODES.name: str(RANDOM_EPISODES.scan_reduction)}


class EpisodeEvaluation:
    """Evaluation by random episodes: runs of a number of episodes, Dice and mean IoU, mean and spread over runs.

    Episode number i of run r is number r n + i of all, where n is the number of episodes of a run, so that it is a
    function of the seed and its number alone. In a process group episodes are dealt out to the processes, and the first
    one writes. Where one fails, all end with its reason.

    ``results.csv``, ``results.json`` and ``report.html`` are written anew after every run, in the form of
    :class:`~monai_fewshot.workflows.FoldEvaluation`: a run stands in the place of a fold, an episode in that of a scan.

    Based on: the protocol of Shaban et al., "One-Shot Learning for Semantic Segmentation", BMVC 2017,
    https://arxiv.org/abs/1709.03410; MaskSplit has 5 runs of 2,500 episodes, Feyjie et al. one of 500.

    Args:
        network: the network, on its device.
        episodes: what to draw; its length is the number of episodes of a run.
        runs: number of runs.
        class_names: what the label values of the episodes' images stand for.
        output_dir: where results are written.
        checkpoint: path of the network's weights; None for the network as it is.
        provenance: what made the results, for the files; what made the checkpoint is added to it.
        title: of the report.
        inferer: runs the network; default MONAI's ``SimpleInferer``.
        batch_size: episodes at a time.
        item_names: names of the images, by ``episodes.stack.scan``; numbers without.
        hd95: whether to compute HD95, in pixels.

    Raises:
        OSError: where the output folder cannot be written to.
        FileNotFoundError: where there is no such checkpoint.
    """

    def __init__(
        self,
        network: FewShotSegmenter,
        episodes: AnnotatedEpisodes,
        runs: int,
        class_names: Mapping[int, str],
        output_dir: PathLike,
        checkpoint: PathLike | None = None,
        provenance: Mapping[str, Any] | None = None,
        title: str = "Few-shot segmentation",
        inferer: Inferer | None = None,
        batch_size: int = 16,
        item_names: Sequence[str] | None = None,
        hd95: bool = True,
    ) -> None:
        if runs < 1:
            raise ValueError(f"runs is {runs}, must be 1 or more.")
        self.network = network
        self.episodes = episodes
        self.runs = runs
        self.class_names = class_names
        self.output_dir = Path(output_dir).expanduser()
        self.checkpoint = checkpoint
        self.provenance = dict(provenance or {})
        self.title = title
        self.inferer = inferer or SimpleInferer()
        self.batch_size = batch_size
        self.item_names = item_names
        self.hd95 = hd95
        run_together(self._check_checkpoint)
        run_in_first(check_output_dir, output_dir)

    def run(self) -> list[ScanScore]:
        """Evaluate all runs.

        Returns:
            The scores of every run, episode and class; in a process group the first process has them, and the others
            have none.
        """
        if self.checkpoint is not None:
            self.provenance["training"] = run_together(load_network, self.network, self.checkpoint)
        scores: list[ScanScore] = []
        for run in range(self.runs):
            scores += self._evaluate(run)
            run_in_first(self._write, scores)
        return scores

    def _check_checkpoint(self) -> None:
        if self.checkpoint is not None and not Path(self.checkpoint).is_file():
            raise FileNotFoundError(f"There is no checkpoint {self.checkpoint}: train first, or name another.")

    def _evaluate(self, run: int) -> list[ScanScore]:
        """Deal out a run's episodes to the processes; return the scores of all in the first one."""
        numbers = range(run * len(self.episodes), (run + 1) * len(self.episodes))
        share = run_together(self._segment, run, numbers[process_rank() :: num_processes()])
        by_number = {number: scores for part in gather_in_first(share) for number, scores in part.items()}
        return [score for number in sorted(by_number) for score in by_number[number]]

    def _segment(self, run: int, numbers: Sequence[int]) -> dict[int, list[ScanScore]]:
        if not numbers:
            return {}
        batches: list[MaskAgreement] = []
        evaluator = SupervisedEvaluator(
            device=next(self.network.parameters()).device,
            val_data_loader=DataLoader(Subset(self.episodes, numbers), batch_size=self.batch_size),
            network=self.network,
            inferer=self.inferer,
            prepare_batch=PrepareBatchExtraInput(["support_image", "support_label"]),
            decollate=False,
        )
        if process_rank() == 0:
            ProgressBar(desc=f"run {run}").attach(evaluator)
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine: batches.append(self._compare(**engine.state.output))
        )
        evaluator.run()
        rows = zip(*(torch.cat(parts).tolist() for parts in zip(*batches, strict=True)), strict=True)
        return {number: self._scores(run, number, *row) for number, row in zip(numbers, rows, strict=True)}

    def _compare(self, pred: torch.Tensor, label: torch.Tensor, **_further: Any) -> MaskAgreement:
        """Compare the class of the highest logit with the label, where that is not ignored."""
        classes = torch.arange(1, pred.shape[1], device=pred.device).view(1, -1, 1, 1)
        predicted = (pred.argmax(1, keepdim=True) == classes) & (label != IGNORED)
        return compute_mask_agreement(predicted, label == classes, hd95=self.hd95)

    def _scores(self, run: int, number: int, *agreement: Sequence[Any]) -> list[ScanScore]:
        slices, values, _ = self.episodes.plan(number)
        names = [self._name(place) for place in slices]
        return [
            ScanScore(
                fold=run,
                scan=f"{number}: {names[-1]} after {', '.join(names[:-1])}",
                class_number=value,
                class_name=self.class_names.get(value, str(value)),
                protocol=RANDOM_EPISODES.name,
                dice=2 * both / (truth + predicted) if truth else float("nan"),
                hd95=distance,
                hd95_unit="pixels",
                num_slices_scored=1,
                num_slices=1,
                label_voxels=truth,
                predicted_voxels=predicted,
            )
            for value, truth, predicted, both, distance in zip(values, *agreement, strict=True)
        ]

    def _name(self, place: int) -> str:
        scan = int(self.episodes.stack.scan[place])
        return str(scan) if self.item_names is None else self.item_names[scan]

    def _write(self, scores: Sequence[ScanScore]) -> None:
        write_scores(scores, self.output_dir, self.provenance, REDUCTIONS)
        report = write_report(
            self.output_dir / "report.html",
            scores,
            self._cases(scores),
            [RANDOM_EPISODES],
            self.provenance,
            title=self.title,
            words=EPISODE_WORDS,
        )
        logger.info("report: %s", report.resolve())

    @torch.no_grad()
    def _cases(self, scores: Sequence[ScanScore]) -> list[SliceCase]:
        """Make the best, the median and the worst episode of the first classes once more, for their pictures."""
        cases = []
        for value in sorted({score.class_number for score in scores})[:CLASSES_PICTURED]:
            found = [score for score in scores if score.class_number == value and score.dice == score.dice]
            found.sort(key=lambda score: score.dice)
            places = sorted({0, (len(found) - 1) // 2, len(found) - 1}) if found else []
            cases += [case for place in places if (case := self._case(found[place])) is not None]
        return cases

    def _case(self, score: ScanScore) -> SliceCase | None:
        number = int(score.scan.split(":")[0])
        device = next(self.network.parameters()).device
        episode = {key: item[None].to(device) for key, item in self.episodes[number].items()}
        self.network.eval()
        logits = self.inferer(episode["image"], self.network, episode["support_image"], episode["support_label"])
        of_episode = 1 + self.episodes.plan(number).labeling.index(score.class_number)
        found, truth, image = (
            x[0].movedim(0, -1).cpu().numpy()
            for x in (logits.argmax(1, keepdim=True), episode["label"], episode["image"])
        )
        image = image[:, :, None] if image.shape[-1] == 3 else image
        masks = {RANDOM_EPISODES.name: found == of_episode}
        name = (score.fold, score.scan, score.class_name)
        return capture_case(*name, image, truth == of_episode, masks, IMAGE_AFFINE)
