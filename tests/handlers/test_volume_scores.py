# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.inferers import Inferer
from monai.transforms import Compose, LoadImaged, Orientationd

from monai_fewshot.data import IMAGE_AFFINE
from monai_fewshot.handlers import VolumeScores
from monai_fewshot.inferers import PROTOCOLS
from monai_fewshot.metrics import compute_mask_agreement
from monai_fewshot.transforms import KeepSupportComponents

AFFINE = torch.diag(torch.tensor([-1.25, 1.5, 7.7, 1.0]))
SHAPE = (14, 12, 6)
NAMES = ("liver", "spleen")
BOTH = ("alpnet", "whole_volume")


def make_label(seed):
    label = torch.zeros(1, *SHAPE)
    label[0, 2 + seed : 6 + seed, 3:8, 1:4] = 1
    if seed < 2:
        label[0, 9:12, 2:6, 2:5] = 2
    return label


def make_scan(seed, named=True):
    label = make_label(seed)
    image = MetaTensor(label * 30 + seed, affine=AFFINE, meta={"filename_or_obj": f"/scans/case_{seed}.nii.gz"})
    return {"image": image, "label": MetaTensor(label, affine=AFFINE)} | ({"name": f"scan {seed}"} if named else {})


class Fake(Inferer):
    """Shifts the true masks by a pixel, finds a stray block, and leaves out the slices a protocol does not segment."""

    def __init__(self, protocols):
        self.protocols = protocols

    def __call__(self, inputs, network):
        label = ((inputs - inputs.amin((1, 2, 3, 4), keepdim=True)) / 30).round()
        margins = torch.cat([torch.zeros_like(label), label == 1, label == 2], 1).float().roll(1, 2) - 0.5
        margins[:, 1:, :2, :2, 5] = 1
        margins[:, 0] = 0
        results = {}
        for name in self.protocols:
            results[name] = margins.clone()
            if PROTOCOLS[name].needs_query_label:
                held = torch.stack([label[:, 0] == 1, label[:, 0] == 2], 1).any(2).any(2)
                results[name][:, 1:] = torch.where(held[:, :, None, None], margins[:, 1:], torch.tensor(-1e4))
        return results if len(self.protocols) > 1 else results[self.protocols[0]]


def evaluate(scans, protocols=BOTH, handler=None, batch_size=1, decollate=True, extra=False):
    handler = handler or VolumeScores(protocols, NAMES, fold=3)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(scans, batch_size=batch_size),
        network=torch.nn.Identity(),
        inferer=Fake(protocols),
        val_handlers=[handler],
        decollate=decollate,
    )
    if extra:
        add = {"spread": torch.ones(1, 3, *SHAPE)}
        evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda engine: engine.state.output.update(add))
    evaluator.run()
    return handler, evaluator


def expected(seed, protocol):
    label = make_label(seed)
    masks = torch.stack([label[0] == 1, label[0] == 2]).roll(1, 1)
    masks[:, :2, :2, 5] = True
    truth = torch.stack([label[0] == 1, label[0] == 2])
    scored = truth.any(1).any(1) if protocol == "alpnet" else torch.ones(2, 6)
    agreement = compute_mask_agreement(masks[None], truth[None], scored[None], (1.25, 1.5, 7.7))
    names = ("dice", "hd95", "label_voxels", "predicted_voxels")
    return SimpleNamespace(**{name: getattr(agreement, name)[0] for name in names})


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("decollate", [True, False])
def test_every_scan_class_and_protocol_is_scored(batch_size, decollate):
    handler, _ = evaluate([make_scan(seed) for seed in range(3)], batch_size=batch_size, decollate=decollate)
    assert len(handler.scores) == 3 * 2 * 2
    for row in handler.scores:
        wanted = expected(int(row.scan[-1]), row.protocol)
        c = row.class_number - 1
        assert (row.fold, row.class_name, row.num_slices) == (3, NAMES[c], 6)
        assert row.dice == pytest.approx(wanted.dice[c].item(), nan_ok=True)
        assert row.hd95 == pytest.approx(wanted.hd95[c].item(), nan_ok=True)
        assert (row.label_voxels, row.predicted_voxels) == (wanted.label_voxels[c], wanted.predicted_voxels[c])
    first = {row.protocol: row for row in handler.scores if row.scan == "scan 0" and row.class_number == 1}
    assert (first["alpnet"].num_slices_scored, first["whole_volume"].num_slices_scored) == (3, 6)
    assert first["alpnet"].dice > first["whole_volume"].dice


def test_state_metrics_hold_averages_and_counts_of_undefined_values():
    _, evaluator = evaluate([make_scan(seed) for seed in range(3)])
    for protocol in BOTH:
        dice = np.array([expected(seed, protocol).dice.tolist() for seed in range(3)])
        hd95 = np.array([expected(seed, protocol).hd95.tolist() for seed in range(3)])
        metrics = evaluator.state.metrics
        assert metrics[f"{protocol}_dice"] == pytest.approx(np.nanmean(dice, axis=0).mean())
        assert metrics[f"{protocol}_hd95"] == pytest.approx(np.nanmean(hd95, axis=0).mean())
        assert (metrics[f"{protocol}_dice_undefined"], metrics[f"{protocol}_hd95_undefined"]) == (1, 1)
        assert metrics[f"{protocol}_dice_worst"] == pytest.approx(np.nanmean(dice, axis=1).min())
        assert metrics[f"{protocol}_failed"] == (dice < 0.5).sum()


def test_one_protocol_gives_a_tensor_and_median_follows_the_protocol():
    handler, evaluator = evaluate([make_scan(seed) for seed in range(2)], ("senet",))
    assert {row.protocol for row in handler.scores} == {"senet"}
    dice = [[row.dice for row in handler.scores if row.class_number == c] for c in (1, 2)]
    assert evaluator.state.metrics["senet_dice"] == pytest.approx(np.median(dice, axis=1).mean())


def test_cases_are_kept_for_scans_that_hold_the_class_without_their_volumes():
    handler, _ = evaluate([make_scan(seed) for seed in range(3)])
    assert [(case.scan, case.class_name) for case in handler.cases] == [
        ("scan 0", "liver"),
        ("scan 0", "spleen"),
        ("scan 1", "liver"),
        ("scan 1", "spleen"),
        ("scan 2", "liver"),
    ]
    case = handler.cases[0]
    assert (case.protocols, case.slice_index, case.image.shape) == (BOTH, 1, (12, 14))
    assert all(getattr(case, name).base is None for name in ("image", "label", "predictions", "label_pixels"))


@pytest.mark.parametrize("decollate", [True, False])
def test_outputs_beside_the_prediction_are_passed_over(decollate):
    plain, extended = (evaluate([make_scan(0)], decollate=decollate, extra=extra)[0] for extra in (False, True))
    assert extended.scores == plain.scores


def test_scans_are_called_after_their_files_where_they_have_no_name():
    handler, _ = evaluate([make_scan(0, named=False)])
    assert {row.scan for row in handler.scores} == {"case_0"}


def test_plain_tensors_are_measured_in_voxels():
    scan = make_scan(0)
    handler, _ = evaluate([{"name": "a", "image": scan["image"].as_tensor(), "label": scan["label"].as_tensor()}])
    label = make_label(0)
    truth = torch.stack([label[0] == 1, label[0] == 2])
    masks = truth.roll(1, 1)
    masks[:, :2, :2, 5] = True
    wanted = compute_mask_agreement(masks[None], truth[None]).hd95[0]
    assert [r.hd95 for r in handler.scores if r.protocol == "whole_volume"] == pytest.approx(wanted.tolist())
    assert {row.hd95_unit for row in handler.scores} == {"voxels"}


@pytest.mark.parametrize(
    ("affine", "unit"),
    [(AFFINE, "mm"), (torch.eye(4), "voxels"), (torch.from_numpy(IMAGE_AFFINE), "pixels")],
)
@pytest.mark.parametrize("codes", [None, "LPS", "SRA"])
def test_the_unit_of_distances_is_that_of_the_file_however_it_is_reoriented(tmp_path, affine, unit, codes):
    label = make_label(0)[0].numpy().astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(label, affine.numpy()), tmp_path / "label.nii.gz")
    load = [LoadImaged(["image", "label"], ensure_channel_first=True)]
    load += [] if codes is None else [Orientationd(["image", "label"], codes)]
    scan = Compose(load)({"image": tmp_path / "label.nii.gz", "label": tmp_path / "label.nii.gz"})
    scan["image"] *= 30
    handler, _ = evaluate([scan])
    assert {row.hd95_unit for row in handler.scores} == {unit}


def test_a_second_run_starts_anew():
    handler, _ = evaluate([make_scan(0), make_scan(1)])
    evaluate([make_scan(2)], handler=handler)
    assert {row.scan for row in handler.scores} == {"scan 2"}
    assert {case.scan for case in handler.cases} == {"scan 2"}
    assert math.isnan(next(row.dice for row in handler.scores if row.class_name == "spleen"))


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (VolumeScores("alpnet", NAMES), r"scan 0 has these channels .*whole_volume.*expects 3 .*\['alpnet'\]"),
        (VolumeScores(BOTH, ("liver", "spleen", "aorta")), r"expects 4 \(background and liver, spleen, aorta\)"),
    ],
)
def test_predictions_that_do_not_fit_are_named(handler, text):
    with pytest.raises(ValueError, match=text):
        evaluate([make_scan(0)], handler=handler)


def test_scans_without_any_name_are_an_error():
    scan = make_scan(0, named=False)
    with pytest.raises(ValueError, match="give it a name"):
        evaluate([{"image": scan["image"].as_tensor(), "label": scan["label"]}])


def test_postprocessing_acts_on_the_masks_of_each_class():
    scan = make_scan(0) | {"support_label": make_label(1)[None]}
    handler, _ = evaluate([scan], handler=VolumeScores(BOTH, NAMES, postprocessing=KeepSupportComponents()))
    label = make_label(0)[0]
    for row in handler.scores:
        truth = label == row.class_number
        without_stray_block = truth.roll(1, 0)
        overlap = 2 * (truth & without_stray_block).sum() / (truth.sum() + without_stray_block.sum())
        assert row.dice == pytest.approx(overlap.item())
