# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.handlers import ProgressBar
from monai.config import PathLike
from monai.data import DataLoader
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator

from monai_fewshot.data import Fold, Scan, ScanEpisodes, check_output_dir
from monai_fewshot.handlers import VolumeScores, overall_metrics
from monai_fewshot.inferers import VolumeInferer
from monai_fewshot.metrics import ScanScore, write_scores
from monai_fewshot.utils import gather_in_first, load_network, num_processes, process_rank, run_in_first, run_together
from monai_fewshot.visualize import VOLUME_WORDS, ReportWords, SliceCase, write_cases, write_report

__all__ = ["FoldEvaluation"]

logger = logging.getLogger(__name__)
INFERER_KEYS = ["support_image", "support_label", "label", "support_affine"]


class FoldEvaluation:
    """Cross-validation: each fold's query scans are segmented with that fold's network and support, and scored.

    In a process group the query scans of a fold are dealt out to the processes, and the first one writes. Where one
    fails, all end with its reason.

    ``results.csv``, ``results.json``, ``report.html`` and the pictures of the report, ``cases.npz``
    (:func:`monai_fewshot.visualize.read_cases`), are written anew after every fold, so that an interrupted evaluation
    leaves the folds it has done.

    Args:
        network: the network that the inferer runs, on its device; one without parameters runs on the CPU.
        folds: the folds to evaluate.
        scans: all scans of the data set, with labels.
        transform: loads, checks and normalizes a scan.
        inferer: with one protocol or several, the one that matters first.
        class_names: what the label values 1..N stand for, once ``transform`` has been applied.
        output_dir: where results are written.
        checkpoints: path of each fold's checkpoint, or of one for all folds; empty for the network as it is.
        provenance: what made the results, for the files; what made each fold's checkpoint is added to it.
        title: of the report.
        num_workers: processes that load scans.
        postprocessing: see :class:`monai_fewshot.handlers.VolumeScores`.
        words: what the report calls scans and folds.

    Raises:
        OSError: where the output folder cannot be written to.
        FileNotFoundError: where a fold has no checkpoint.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        folds: Sequence[Fold],
        scans: Sequence[Scan],
        transform: Callable[[Scan], dict[str, Any]],
        inferer: VolumeInferer,
        class_names: Sequence[str],
        output_dir: PathLike,
        checkpoints: Sequence[str] = (),
        provenance: Mapping[str, Any] | None = None,
        title: str = "Few-shot segmentation",
        num_workers: int = 0,
        postprocessing: Callable[..., torch.Tensor] | None = None,
        words: ReportWords = VOLUME_WORDS,
    ) -> None:
        self.network = network
        self.folds = folds
        self.scans = {scan["name"]: scan for scan in scans}
        self.transform = transform
        self.inferer = inferer
        self.class_names = class_names
        self.output_dir = Path(output_dir).expanduser()
        paths = list(checkpoints) if len(checkpoints) != 1 else [*checkpoints] * len(folds)
        self.checkpoints = dict(zip((fold.index for fold in folds), paths, strict=bool(paths)))
        self.training: dict[int, dict[str, Any]] = {}
        self.provenance = {**(provenance or {}), "training": self.training}
        self.title = title
        self.num_workers = num_workers
        self.postprocessing = postprocessing
        self.words = words
        run_in_first(check_output_dir, output_dir)
        run_together(self._check_checkpoints)

    def run(self) -> list[ScanScore]:
        """Evaluate all folds.

        Returns:
            The scores of every scan, class and protocol; in a process group the first process has them, and the others
            have none.
        """
        scores: list[ScanScore] = []
        cases: list[SliceCase] = []
        for fold in self.folds:
            by_scan = self._evaluate(fold)
            for name in fold.query if process_rank() == 0 else ():
                scores += by_scan[name][0]
                cases += by_scan[name][1]
            run_in_first(self._write, fold, scores, cases)
        return scores

    def _check_checkpoints(self) -> None:
        missing = [path for path in self.checkpoints.values() if not Path(path).is_file()]
        if missing:
            raise FileNotFoundError(
                f"There is no checkpoint {', '.join(missing)}: train these folds first, or evaluate others."
            )

    def _evaluate(self, fold: Fold) -> dict[str, tuple[list[ScanScore], list[SliceCase]]]:
        """Deal out a fold's queries to the processes; return scores and cases of each in the first one."""
        path = self.checkpoints.get(fold.index)
        if path is not None:
            self.training[fold.index] = run_together(load_network, self.network, path)
        share = run_together(self._segment, fold, fold.query[process_rank() :: num_processes()])
        return {name: found for part in gather_in_first(share) for name, found in part.items()}

    def _segment(self, fold: Fold, names: Sequence[str]) -> dict[str, tuple[list[ScanScore], list[SliceCase]]]:
        if not names:
            return {}
        queries, supports = [self.scans[name] for name in names], [self.scans[name] for name in fold.support]
        loader = DataLoader(ScanEpisodes(queries, supports, self.transform), batch_size=1, num_workers=self.num_workers)
        handler = VolumeScores(self.inferer.protocols, self.class_names, fold.index, self.postprocessing)
        evaluator = SupervisedEvaluator(
            device=next(self.network.parameters(), torch.empty(0)).device,
            val_data_loader=loader,
            network=self.network,
            inferer=self.inferer,
            prepare_batch=PrepareBatchExtraInput(INFERER_KEYS),
            val_handlers=[handler],
            decollate=False,
        )
        if process_rank() == 0:
            ProgressBar(desc=f"fold {fold.index}").attach(evaluator)
        evaluator.run()
        return {
            name: ([s for s in handler.scores if s.scan == name], [c for c in handler.cases if c.scan == name])
            for name in names
        }

    def _write(self, fold: Fold, scores: Sequence[ScanScore], cases: Sequence[SliceCase]) -> None:
        protocols = self.inferer.protocols
        reductions = {protocol.name: str(protocol.scan_reduction) for protocol in protocols}
        write_scores(scores, self.output_dir, self.provenance, reductions)
        write_cases(cases, self.output_dir / "cases.npz")
        report = write_report(
            self.output_dir / "report.html",
            scores,
            cases,
            protocols,
            self.provenance,
            title=self.title,
            words=self.words,
        )
        logger.info("report: %s", report.resolve())
        of_fold = [score for score in scores if score.fold == fold.index]
        for name, value in overall_metrics(of_fold, protocols).items():
            logger.info("fold %d %s: %.4f", fold.index, name, value)
