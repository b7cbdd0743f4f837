# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0
"""Run a bundle's training and inference in this process and measure them, for gpu_check.py.

    python benchmarks/bundle_probe.py REQUEST.json RESULT.json

The request holds the ``bundle``'s name and the settings of its ``train`` and ``inference``, null for what shall not be
run; the result holds what :func:`probe_training` and :func:`probe_inference` return, or the ``error`` of either.

The first TIMED steps are timed, waiting for the device before and after each. In the steps after them, nothing waits
but the training itself: torch reports what waits for the GPU there (torch.cuda.set_sync_debug_mode), and each report is
put down to the innermost line of this project that led to it, or of another package where there is none. torch reports
copies to and from pageable memory, reads of single numbers and the like; it misses torch.distributed.
"""

from __future__ import annotations

import json
import statistics
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines import IterationEvents, Trainer
from monai.utils import CommonKeys, optional_import
from step_timing import synchronized

import monai_fewshot
from monai_fewshot.apps.bundles import bundle_folder
from monai_fewshot.utils import root_cause

TIMED = 5
SYNCHRONIZING = "called a synchronizing CUDA operation"
"""What torch warns of."""
OURS, TORCH = Path(monai_fewshot.__file__).parents[1], Path(torch.__file__).parent

resource, has_resource = optional_import("resource")


@contextmanager
def synchronizations() -> Iterator[Counter[str]]:
    """Count what waits for the GPU meanwhile, by the line that causes it."""
    counts: Counter[str] = Counter()

    def note(message: Warning | str, *_: Any) -> None:
        if SYNCHRONIZING in str(message):
            counts[responsible_line(traceback.extract_stack()[:-1])] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            torch.cuda.set_sync_debug_mode("default")


def responsible_line(stack: Sequence[traceback.FrameSummary]) -> str:
    """Name the innermost line of the package, or else of another package than torch, as ``FILE:LINE``."""
    frames = [(Path(frame.filename), frame.lineno) for frame in stack if Path(frame.filename).is_file()]
    ours = [frame for frame in frames if (OURS / "monai_fewshot") in frame[0].parents]
    others = [(path, line) for path, line in frames if TORCH not in path.parents and "warnings" not in path.stem]
    path, line = (ours or others)[-1]
    root = OURS if ours else next((parent for parent in path.parents if parent.name == "site-packages"), path.parent)
    return f"{path.relative_to(root)}:{line}"


class StepRecorder:
    """Times the first steps of the first training that is run, and counts synchronizations in the others of its epoch.

    Args:
        stack: ends the counting where a step fails.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.trainer: Trainer | None = None
        self.seconds: list[float] = []
        self.counts: Counter[str] | None = None
        self._mark = 0.0

    def attach(self, trainer: Trainer) -> None:
        """Register with a trainer, behind all its other handlers."""
        if self.trainer is None:
            self.trainer = trainer
            trainer.add_event_handler(Events.STARTED, self._begin)
            trainer.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _begin(self, engine: Engine) -> None:
        self._mark = synchronized(engine.state.device)

    def _step(self, engine: Engine) -> None:
        done, last = engine.state.iteration, engine.state.epoch_length
        if done <= TIMED:
            now = synchronized(engine.state.device)
            self.seconds.append(now - self._mark)
            self._mark = now
        if done == last:
            self.stack.close()
        elif done == TIMED and is_on_gpu(engine.state.device):
            self.counts = self.stack.enter_context(synchronizations())


def is_on_gpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"


def make_workflow(bundle: str, config: str, settings: Mapping[str, Any]) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        config_file=str(bundle_folder(bundle) / "configs" / f"{config}.json"),
        workflow_type="train" if config == "train" else "infer",
        logging_file=False,
        **settings,
    )
    workflow.initialize()
    return workflow


def precision(workflow: ConfigWorkflow) -> str:
    """Name the precision of a run; those that cannot choose it compute in float32."""
    dtype = workflow.parser.get_parsed_content("dtype") if "dtype" in workflow.parser.config else torch.float32
    return str(dtype).removeprefix("torch.")


def layout(network: torch.nn.Module) -> str:
    weights = [parameter for parameter in network.parameters() if parameter.ndim == 4]
    last = any(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights)
    return "channels-last" if last else "channels-first"


def peak_megabytes(on_gpu: bool) -> float | None:
    """Most memory that tensors took on the GPU, or that this process took on a CPU where the system tells."""
    if on_gpu:
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 if has_resource else None


def probe_training(bundle: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train one epoch or more; return how the network was prepared, and the cost of its steps."""
    run = Trainer.run

    def recorded_run(trainer: Trainer) -> None:
        recorder.attach(trainer)
        run(trainer)

    with ExitStack() as stack:
        recorder = StepRecorder(stack)
        workflow = make_workflow(bundle, "train", settings)
        with patch.object(Trainer, "run", recorded_run):
            workflow.run()
    trainer = recorder.trainer
    assert trainer is not None
    on_gpu = is_on_gpu(trainer.state.device)
    return {
        "compiled": trainer.network._compiled_call_impl is not None,
        "layout": layout(trainer.network),
        "dtype": precision(workflow),
        "first_s": recorder.seconds[0],
        "later_s": statistics.median(recorder.seconds[2:]),
        "peak_mb": peak_megabytes(on_gpu),
        "counted_steps": trainer.state.epoch_length - TIMED if on_gpu else 0,
        "synchronizations": recorder.counts,
    }


def infer(bundle: str, settings: Mapping[str, Any]) -> tuple[list[torch.Tensor], Counter[str] | None, ConfigWorkflow]:
    """Segment; return the margins of each query, and what waited for the GPU while the second one was read and scored.

    Raises:
        ValueError: where margins are not finite.
    """
    margins: list[torch.Tensor] = []
    counts = None
    with ExitStack() as stack:
        workflow = make_workflow(bundle, "inference", settings)
        evaluator = workflow.parser.get_parsed_content("evaluator")

        def take(engine: Engine) -> None:
            stack.close()
            margins.append(engine.state.output[CommonKeys.PRED].as_subclass(torch.Tensor).float().cpu())

        def next_query(engine: Engine) -> None:
            nonlocal counts
            if engine.state.iteration == 1 and is_on_gpu(engine.state.device):
                counts = stack.enter_context(synchronizations())

        evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, take)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, next_query)
        workflow.run()
    if not all(found.isfinite().all() for found in margins):
        raise ValueError("Margins are not finite.")
    return margins, counts, workflow


def probe_inference(bundle: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Segment, and again in float32 on the CPU unless that was the first time; compare both."""
    margins, counts, workflow = infer(bundle, settings)
    result: dict[str, Any] = {"synchronizations": counts}
    if is_on_gpu(workflow.parser.get_parsed_content("device")) or precision(workflow) != "float32":
        reference = {**settings, "device": "$torch.device('cpu')", "output_dir": f"{settings['output_dir']}_reference"}
        if "dtype" in workflow.parser.config:
            reference["dtype"] = "$torch.float32"
        result.update(agreement(margins, infer(bundle, reference)[0]))
    return result


def agreement(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> dict[str, float]:
    """Compare margins (1, N+1, ...) of some queries.

    Returns:
        ``dice``, the mean over queries and classes of the Dice of label maps, where either has the class;
        ``difference``, the largest of the margins; ``largest``, the largest size of an expected margin that differs.
    """
    dice, differences, sizes = [1.0], [0.0], [0.0]
    for one, other in zip(found, expected, strict=True):
        labels = one.argmax(1), other.argmax(1)
        for number in range(1, one.shape[1]):
            masks = [label == number for label in labels]
            total = sum(int(mask.sum()) for mask in masks)
            dice += [2 * int((masks[0] & masks[1]).sum()) / total] if total else []
        differences.append(float((one - other).abs().max()))
        sizes.append(float(other[one != other].abs().max()) if differences[-1] else 0.0)
    return {"dice": statistics.fmean(dice[1:] or dice), "difference": max(differences), "largest": max(sizes)}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    result = {}
    for part, probe in (("train", probe_training), ("inference", probe_inference)):
        if request[part] is None:
            continue
        try:
            result[part] = probe(request["bundle"], request[part])
        except Exception as error:
            traceback.print_exc()
            cause = root_cause(error)
            last = str(cause).strip().rpartition("\n")[2]
            result[part] = {"error": f"{type(cause).__name__}: {last}"}
    Path(sys.argv[2]).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
