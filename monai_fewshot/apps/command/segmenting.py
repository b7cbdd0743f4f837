# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai.config import PathLike

from monai_fewshot.apps.annotation.rounds import corrected_scans
from monai_fewshot.apps.bundles import LearnsFrom
from monai_fewshot.data import Scan, add_seed_labels, check_output_dir, load_scans

from .methods import serving_method
from .model_origin import ModelOrigin
from .problems import ScanProblem, write_problems
from .running import StepRunner, step_runner
from .scan_sources import Example, list_examples, list_scans, passed_over, write_scan_list
from .segment_request import DEFAULT_METHOD, FLAG_BELOW
from .segment_steps import SegmentSteps
from .segmented_scans import note_request, problems_of_changed_scans
from .survey import survey_scans

__all__ = ["SegmentedFolder", "segment"]


@dataclass(frozen=True)
class SegmentedFolder:
    """What :func:`segment` made.

    Attributes:
        masks: file of the mask by name of the scan, of all scans that have one.
        problems: of the scans that have none.
        warnings: what may be wrong with the scans or the examples.
        model: the trained network; None where the method trains none.
        index: page with a picture of every scan.
        measurements: table of volumes and intensities; None for 2D pictures.
        problem_table: table of the problems.
        flagged: names of the scans of which a class has a lower predicted Dice than ``flag_below``, the worst first.
        quality: table of the predicted Dice of each scan and class.
    """

    masks: Mapping[str, Path]
    problems: tuple[ScanProblem, ...]
    warnings: tuple[str, ...]
    model: Path | None
    index: Path
    measurements: Path | None
    problem_table: Path
    flagged: tuple[str, ...]
    quality: Path


def segment(
    scans: PathLike,
    examples: Sequence[Example],
    output: PathLike,
    method: str = DEFAULT_METHOD,
    minutes: float | None = None,
    *,
    class_names: Sequence[str] | None = None,
    annotated_slices: int | str | Sequence[int] | None = None,
    seed_labels: PathLike | None = None,
    formats: str | Sequence[str] | None = None,
    device: str | None = None,
    seed: int | None = None,
    flag_below: float = FLAG_BELOW,
    probabilities: bool = False,
    say: Callable[[str], None] = print,
) -> SegmentedFolder:
    """Segment every scan in a folder, using one annotated scan as the example, or a few.

    A model is trained where the method needs one, and kept in ``output/model``. The same call goes on where it was
    interrupted. With the model there, it segments the scans that have no mask yet, at once. A scan that cannot be read
    or segmented does not stop the others.

    Args:
        scans: folder of scans (NIfTI, NRRD, MetaImage, DICOM, at any depth), or one scan; or, where the example is one,
            of 2D pictures, gray or of color (PNG, JPEG, BMP, TIFF).
        examples: image and label of each annotated scan.
        output: folder for masks, ``index.html``, ``quality.csv``, ``problems.csv`` and, of scans,
            ``measurements.csv``.
        method: a bundle that can serve; ``monai-fewshot bundle list`` has all.
        minutes: of training. Defaults to None: 20 on a CPU, 5 on a GPU, for a method whose training has no length of
            its own.
        class_names: names of the classes 1, 2, ...; of DICOM annotations, the regions to take.
        annotated_slices: which slices of the examples are annotated, for methods that take it: n for every n-th,
            ``"labeled"`` for those that show a class, or their numbers, from 0. Defaults to None, all.
        seed_labels: folder of masks of any other method, ``NAME_seg`` or ``NAME`` after their scans, to begin with,
            for methods that take it. Scans without one are learned from all the same.
        formats: of the masks: ``"nifti"``, ``"seg_nrrd"``, ``"dicom_seg"``, or several. Defaults to None: NIfTI, for
            pictures PNG.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. Defaults to None: a GPU where there is one.
        seed: of the training. Defaults to None, 0.
        flag_below: predicted Dice, from 0 to 1, below which a mask is said to need a look.
        probabilities: whether to write maps of each class's probability into ``output/probabilities``.
        say: is told what happens, in sentences.

    Returns:
        Masks and problems.

    Raises:
        FileNotFoundError: where a file or folder is not there.
        ValueError: for bad input, before anything is computed.
        RuntimeError: where training or segmentation fails.
        KeyboardInterrupt: on Ctrl+C; the same call goes on from there.

    Example:
        >>> segment("scans", [("scans/a.nii.gz", "a_label.nii.gz")], "masks", method="registrations")
        Traceback (most recent call last):
        ...
        ValueError: There is no method 'registrations'; did you mean registration?
    """
    if isinstance(annotated_slices, Sequence) and not isinstance(annotated_slices, str):
        annotated_slices = list(annotated_slices)
    of_method = serving_method(method)
    of_training = (of_method, minutes, class_names, annotated_slices, seed_labels)
    return _Job(scans, examples, output, *of_training, formats, device, seed, flag_below, probabilities).run(say)


class _Job(SegmentSteps):
    """The steps to what is asked for."""

    def run(self, say: Callable[[str], None]) -> SegmentedFolder:
        """Do it."""
        self.check_settings()
        examples = list_examples(self.pairs, self.class_names)
        no_scans = [self.folder, *(label for _, label in self.pairs)]
        found, problems = list_scans(self.source, no_scans, self.pictures)
        check_output_dir(self.folder)
        before = ModelOrigin.read(self.model_folder)
        if before is not None and not before.trained and not any(self.model_folder.glob("*.pt")):
            before = None  # interrupted before anything was learned
        is_trained = before is not None and before.trained
        corrected = corrected_scans(self.folder) & set(self.files.masks())
        pending = self.files.pending([scan for scan in found if scan["name"] not in corrected])
        names = {scan["name"] for scan in pending}
        done = [scan for scan in found if scan["name"] not in names]
        changed = problems_of_changed_scans(self.model_folder, done, self.files.masks())
        self.files.check(pending)
        found = [scan for scan in found if scan["name"] not in {problem.scan for problem in changed}]
        listed = pending if is_trained else found
        add_seed_labels(found, self.seeds)
        survey = survey_scans(listed, examples, [*problems, *changed], self.class_names, self.device)
        origin = self.origin(examples, survey, before)
        say(f"{len(found)} scans, {len(found) - len(pending)} of them segmented already.")
        beside = [passed_over(self.source, found, no_scans)]
        for warning in filter(None, [*beside, *survey.warnings, *self.time_warnings(origin)]):
            say(f"WARNING: {warning}")
        for problem in survey.problems:
            say(f"LEFT OUT: {problem.file}: {problem.problem}. {problem.remedy}")
        write_problems(self.folder / "problems.csv", survey.problems)
        usable = {scan.name for scan in survey.usable}
        if not usable and not (is_trained and len(pending) < len(found)):
            first = "".join(f" The first: {each.file}: {each.problem}. {each.remedy}" for each in survey.problems[:1])
            raise ValueError(
                f"None of the scans in {self.source} can be used; {self.folder / 'problems.csv'} tells why.{first}"
            )
        learned = [scan for scan in found if scan["name"] in usable]
        left = [scan for scan in pending if scan["name"] in usable]
        try:
            self.model_folder.mkdir(exist_ok=True)
            note_request(self.model_folder, self)
            with step_runner(self.method, self.model_folder) as runner:
                if not origin.trained:
                    self._train(runner, origin, learned, say)
                failures = self.segment_scans(runner, origin, left, say)
            return self._result(found, (*survey.problems, *failures), survey.warnings)
        except (ValueError, OSError) as error:
            raise RuntimeError(str(error)) from error

    def _train(
        self,
        runner: StepRunner,
        origin: ModelOrigin,
        usable: Sequence[Scan],
        say: Callable[[str], None],
    ) -> None:
        if not self.method.training:
            origin.when_trained().write(self.model_folder)
            return
        learned = self._scans_to_learn(usable, say)
        dataset = write_scan_list(self.model_folder / "training_scans", learned, origin.classes)
        origin.write(self.model_folder)
        settings = {
            **self.common_settings(dataset),
            "ckpt_dir": self.model_folder,
            "cache_dir": self.model_folder / "cache",
            "resume": True,
            "seed": origin.seed,
            "minutes": origin.minutes,
            "annotated_slices": origin.annotated_slices,
            "seed_labels": origin.seed_labels,
        }
        if self.method.learns_from == LearnsFrom.IMAGES and len(learned) == 1:
            settings["num_val_scans"] = 0
        for number, step in enumerate(self.method.training, 1):
            length = "" if origin.minutes is None else f" for {origin.minutes:g} minutes"
            part = f" ({number} of {len(self.method.training)})" if len(self.method.training) > 1 else ""
            say(f"Training {self.method.title}{length}{part}. Ctrl+C interrupts; the same command goes on.")
            runner.run(step, settings)
            for warning in runner.warnings(step):
                say(f"WARNING: {warning}")
        origin.when_trained().write(self.model_folder)

    def _scans_to_learn(self, usable: Sequence[Scan], say: Callable[[str], None]) -> list[Scan]:
        """The usable scans; where training was interrupted, those of them that it began with."""
        folder = self.model_folder / "training_scans"
        if not (folder / "dataset.json").is_file() or not any(self.model_folder.glob("*.pt")):
            return list(usable)
        began_with = {scan["name"] for scan in load_scans(folder)}
        kept = [scan for scan in usable if scan["name"] in began_with]
        if gone := sorted(began_with - {scan["name"] for scan in kept}):
            raise ValueError(
                f"The training in {self.model_folder} was interrupted, and {len(gone)} of the {len(began_with)} scans "
                f"that it began with are gone from {self.source}, or cannot be used any more: {', '.join(gone[:10])}. "
                "Put them back to go on with it, or name another --output to train without them."
            )
        if new := len(usable) - len(kept):
            say(
                f"WARNING: The folder has changed since training began: {new} scan(s) are new and will be segmented, "
                "but not learned from."
            )
        return kept

    def _result(
        self, found: Sequence[Scan], problems: Sequence[ScanProblem], warnings: Sequence[str]
    ) -> SegmentedFolder:
        masks = self.files.masks()
        return SegmentedFolder(
            masks={scan["name"]: masks[scan["name"]][0] for scan in found if scan["name"] in masks},
            problems=tuple(problems),
            warnings=tuple(warnings),
            model=self.model_folder / "model.pt" if self.method.training else None,
            index=self.files.index,
            measurements=None if self.pictures else self.files.table,
            problem_table=write_problems(self.folder / "problems.csv", problems),
            flagged=tuple(name for name in self.files.flagged() if name in masks),
            quality=self.files.quality_table,
        )
