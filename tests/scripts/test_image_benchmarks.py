# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""The benchmarks on images: what they plan, the images they train and test on, their tables. Nothing is trained."""

from __future__ import annotations

import importlib
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_settings import unknown_settings
from fire.parser import DefaultParseValue
from PIL import Image

from monai_fewshot.apps.phantom import make_phantom_lesions, make_phantom_shapes
from monai_fewshot.data import check_images, load_image_set
from monai_fewshot.transforms import SaliencyLabelsd

ROOT = Path(__file__).parents[2]
MARKERS = "<!-- {0}:begin -->\nold\n<!-- {0}:end -->\n"


def _module(monkeypatch, name):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def surrogate(monkeypatch):
    module = _module(monkeypatch, "surrogate_tasks")
    monkeypatch.setattr(
        module, "make_phantom_shapes", lambda folder, num_classes, num_images: make_phantom_shapes(folder, 3, 2, 16)
    )
    return module


@pytest.fixture
def masksplit(monkeypatch):
    module = _module(monkeypatch, "masksplit_ablation")
    module.commands = []

    class Children:
        def run(self, command, **options):
            module.commands.append(command)
            (Path(command[command.index("--output_dir") + 1]) / "masks").mkdir(parents=True)
            return 0

    monkeypatch.setattr(module, "ChildProcesses", Children)
    return module


@pytest.fixture
def saliency(monkeypatch):
    return _module(monkeypatch, "saliency")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return [make_phantom_lesions(root / name, 5, 32, seed) for seed, name in enumerate(("lesions", "polyps"))]


def _surrogate_arguments(module, sets, output, *words):
    lesions, polyps = map(str, sets)
    return module.parse_arguments(["--lesions", lesions, "--polyps", polyps, "--output_dir", str(output), *words])


def _masksplit_arguments(module, sets, output, *words):
    return module.parse_arguments([*map(str, sets), "--output_dir", str(output), *words])


def _pictures(folder):
    return {path.read_bytes() for path in folder.rglob("*.jpg")}


def _gray(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def _are_settings(step):
    """Whether all that a step sets is one of its bundle's settings, and is read from a command line as it is."""
    assert unknown_settings(step) == []
    for key, value in step.settings.items():
        if value is not None:
            read = DefaultParseValue(str(value))
            assert (
                isinstance(read, dict) if key == "task" else read == (str(value) if isinstance(value, Path) else value)
            )
    return True


def _finish(cell, dice, iou=0.5, minutes=2.0, **by_class):
    cell.folder.mkdir(parents=True)
    result = {
        "overall": {"dice": dice, "iou": iou},
        "by_class": {name: {"iou": value} for name, value in by_class.items()},
        "minutes": minutes,
    }
    (cell.folder / "cell.json").write_text(json.dumps(result))


def _rows(text):
    """Cells of a table by those of its first row."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row, strict=True)) for row in rows]


def _spread(values, sign=""):
    return f"{statistics.fmean(values):{sign}.1f} ± {statistics.stdev(values):.1f}"


def test_surrogate_cells_are_methods_by_seeds_and_some_with_five_shots(surrogate, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path, "--seeds", "2")
    folders = {name: tmp_path / name for name in ("base", "unlabeled", "annotated", "test")}
    cells = surrogate.planned(arguments, folders)
    one_shot = {(1, method, seed) for method in surrogate.METHODS for seed in range(2)}
    five_shot = {(5, method, seed) for method in ("few-shot alone", "few-shot + denoising, 10") for seed in range(2)}
    assert set(cells) == one_shot | five_shot
    assert [seed for _, _, seed in cells] == [0] * 9 + [1] * 9
    assert len({cell.folder for cell in cells.values()}) == 18
    for (shots, method, seed), cell in cells.items():
        train, evaluate = cell.steps
        assert (train.settings["shots"], train.settings["seed"]) == (shots, seed)
        assert evaluate.settings["shots"] == shots
        assert "seed" not in evaluate.settings, "all are tested by the same episodes"
        assert train.settings["max_epochs"] * train.settings["epoch_length"] == 300
        bound = method.startswith("upper bound")
        assert train.settings["dataset_dir"] == folders["annotated" if bound else "base"]
        assert train.settings["unlabeled_dir"] == folders["unlabeled"]
        assert evaluate.settings["dataset_dir"] == folders["test"]
        assert train.configs == (("train",) if "+" in method else ("train", "few_shot"))
        assert train.settings.get("num_unlabeled") == (int(method.rsplit(" ", 1)[1]) if "+" in method else None)
        task = next((name for name in ("Inpainting", "LocalShuffling") if name.lower() in method.replace(" ", "")), "")
        assert train.settings.get("task", "").endswith(f"{task}'}}" if task else "")
        assert evaluate.settings["checkpoint"] == train.settings["ckpt_dir"] / "model.pt"
        assert evaluate.settings["output_dir"] == cell.folder / "eval"
        assert {"image_size", "encoder#channels", "encoder#out_channels"} <= train.settings.keys() - evaluate.settings


def test_surrogate_methods_can_be_chosen(surrogate, sets, tmp_path, capsys):
    chosen = ["few-shot + inpainting, 5", "few-shot alone"]
    arguments = _surrogate_arguments(surrogate, sets, tmp_path, "--seeds", "1", "--methods", *chosen)
    folders = dict.fromkeys(("base", "unlabeled", "annotated", "test"), tmp_path)
    cells = surrogate.planned(arguments, folders)
    assert list(cells) == [(1, chosen[0], 0), (1, chosen[1], 0), (5, chosen[1], 0)]
    with pytest.raises(SystemExit):
        _surrogate_arguments(surrogate, sets, tmp_path, "--methods", "guessing")
    assert "invalid choice: 'guessing'" in capsys.readouterr().err


def test_every_setting_of_a_cell_is_one_of_the_bundle(surrogate, masksplit, sets, tmp_path):
    folders = {name: tmp_path / name for name in ("base", "unlabeled", "annotated", "test")}
    cells = surrogate.planned(_surrogate_arguments(surrogate, sets, tmp_path, "--seeds", "1"), folders)
    ablation = masksplit.planned(_masksplit_arguments(masksplit, sets, tmp_path, "--seeds", "1"), (tmp_path,) * 3)
    steps = [step for cell in (*cells.values(), *ablation.values()) for step in cell.steps]
    assert len(steps) == 2 * (9 + 8)
    assert all(map(_are_settings, steps))


def test_lesions_of_the_test_are_in_no_training(surrogate, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path / "out", "--image_size", "12")
    folders = surrogate.prepare(arguments)
    base, unlabeled, annotated, test = (_pictures(folders[n]) for n in ("base", "unlabeled", "annotated", "test"))
    assert (len(base), len(unlabeled), len(test)) == (3 * 2 + 5, 3, 2)
    assert annotated == unlabeled
    assert not test & (base | unlabeled)
    assert not base & unlabeled
    names = {kind: {path.stem for path in folders[kind].rglob("*.jpg")} for kind in ("unlabeled", "test")}
    assert names["unlabeled"] | names["test"] == {f"lesion_{number:03}" for number in range(1, 6)}
    assert not names["unlabeled"] & names["test"]
    assert not list(folders["unlabeled"].rglob("*.png"))
    assert load_image_set(folders["unlabeled"]).class_names == {}
    assert list(load_image_set(folders["test"]).class_names.values()) == ["lesion"]
    classes = list(load_image_set(folders["base"]).class_names.values())
    assert len(classes) == 4
    assert "lesion" not in classes
    assert "polyp" in classes
    for kind in ("base", "annotated", "test"):
        check_images(load_image_set(folders[kind], require_labels=True).images)


def test_images_are_prepared_once_and_keep_their_masks(surrogate, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path, "--image_size", "12")
    folders = surrogate.prepare(arguments)
    for path in (folders["test"] / "lesion").glob("*.png"):
        truth = Image.fromarray(_gray(sets[0] / "masks" / path.name)).resize((24, 24), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(_gray(path), np.asarray(truth))
    (folders["test"] / "lesion" / "lesion_002.jpg").unlink()
    assert surrogate.prepare(arguments) == folders
    assert not (folders["test"] / "lesion" / "lesion_002.jpg").exists()


def _lossy(folder):
    """Images whose masks are JPEG files, and two of which hold numbers or nothing but foreground."""
    make_phantom_lesions(folder, 4, 32)
    for number, path in enumerate(sorted((folder / "masks").glob("*.png"))):
        mask = _gray(path)
        path.unlink()
        mask = {2: mask // 255, 3: np.full_like(mask, 255)}.get(number, mask)
        Image.fromarray(mask).save(path.with_suffix(".png" if number > 1 else ".jpg"), quality=75)
    return folder


def test_masks_with_gray_levels_become_binary(surrogate, masksplit, sets, tmp_path):
    lossy = _lossy(tmp_path / "lossy")
    truth = make_phantom_lesions(tmp_path / "truth", 4, 32)
    arguments = _surrogate_arguments(surrogate, [sets[0], lossy], tmp_path / "a", "--image_size", "16")
    polyps = surrogate.prepare(arguments)["base"] / "polyp"
    *_, test = masksplit.prepare(_masksplit_arguments(masksplit, [lossy], tmp_path / "b", "--image_size", "16"))
    for folder, numbers in ((polyps, (1, 2, 3, 4)), (test / "lossy", (2, 4))):
        for number in numbers:
            mask = _gray(folder / f"lesion_{number:03}.png")
            assert set(np.unique(mask)) <= {0, 255}
            expected = Image.open(truth / "masks" / f"lesion_{number:03}.png").resize(
                (32, 32), Image.Resampling.NEAREST
            )
            assert ((mask > 0) != (np.asarray(expected) > 0)).mean() < 0.02 or (number == 4 and mask.all())


def test_surrogate_table_holds_means_spreads_and_gains_over_the_same_seeds(surrogate, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path, "--seeds", "3")
    cells = surrogate.planned(arguments, dict.fromkeys(("base", "unlabeled", "annotated", "test"), tmp_path))
    alone, five, inpainting = "few-shot alone", "few-shot + denoising, 5", "few-shot + inpainting, 5"
    dice = {
        (1, alone): {0: 0.5, 1: 0.56, 2: 0.61},
        (1, five): {0: 0.55, 2: 0.6},
        (1, inpainting): {1: 0.5},
        (5, "few-shot + denoising, 10"): {0: 0.7, 1: 0.8},
    }
    for number, (key, by_seed) in enumerate(dice.items()):
        for seed, value in by_seed.items():
            _finish(cells[(*key, seed)], value, minutes=float(number))
    text = surrogate.table(arguments, cells)
    rows = _rows(text)
    assert [(row["shots"], row["method"], row["seeds"]) for row in rows] == [
        ("1", alone, "3"),
        ("1", five, "2"),
        ("1", inpainting, "1"),
        ("5", "few-shot + denoising, 10", "2"),
    ]
    assert [row["Dice, lesions"] for row in rows] == [
        _spread([50, 56, 61]),
        _spread([55, 60]),
        "50.0",
        _spread([70, 80]),
    ]
    gain = "gain over few-shot alone, same seed"
    assert [row[gain] for row in rows] == ["", _spread([5, -1], "+"), "-6.0", ""]
    assert [row["published, PH2"] for row in rows] == ["68.13", "74.12", "-", "75.54"]
    minutes = statistics.fmean([0] * 3 + [1] * 2 + [2] + [3] * 2)
    assert f"8 of 27 trainings, {minutes:.1f} min each" in text
    assert "64 x 64 pixels, 300 iterations of 4 episodes, 500 test episodes" in text


def test_published_figures_are_of_cells_that_are_planned(surrogate, masksplit, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path, "--seeds", "1")
    cells = surrogate.planned(arguments, dict.fromkeys(("base", "unlabeled", "annotated", "test"), tmp_path))
    assert set(surrogate.PUBLISHED) <= {key[:2] for key in cells}
    assert list(masksplit.PUBLISHED) == list(masksplit.VARIANTS)
    assert max(masksplit.PUBLISHED, key=masksplit.PUBLISHED.get) == "V (default)"


def test_a_report_writes_the_table_of_what_is_done(surrogate, masksplit, sets, tmp_path, capsys):
    results = tmp_path / "results.md"
    for module, marker, arguments in (
        (surrogate, "surrogate", _surrogate_arguments(surrogate, sets, tmp_path / "a")),
        (masksplit, "masksplit", _masksplit_arguments(masksplit, sets, tmp_path / "b")),
    ):
        results.write_text(MARKERS.format(marker))
        cell = next(iter(module.planned(arguments, module.prepare(arguments)).values()))
        _finish(cell, 0.625)
        words = {
            "surrogate": ["--lesions", str(sets[0]), "--polyps", str(sets[1])],
            "masksplit": [str(folder) for folder in sets],
        }[marker]
        output = ["--output_dir", str(arguments.output_dir), "--results", str(results), "--report_only"]
        assert module.main([*words, *output]) == 0
        (row,) = _rows(results.read_text())
        assert "62.5" in row.values()
        assert "old" not in results.read_text()
        assert capsys.readouterr().out.strip().endswith(results.read_text().split("-->")[1].split("<!--")[0].strip())


def test_masksplit_cells_are_variants_by_seeds(masksplit, sets, tmp_path):
    arguments = _masksplit_arguments(masksplit, sets, tmp_path, "--seeds", "2", "--iterations", "200")
    folders = tmp_path / "train", tmp_path / "masks", tmp_path / "test"
    cells = masksplit.planned(arguments, folders)
    assert list(cells) == [(variant, seed) for seed in range(2) for variant in masksplit.VARIANTS]
    assert len({cell.folder for cell in cells.values()}) == 16
    for (variant, seed), cell in cells.items():
        train, evaluate = cell.steps
        default = cells["V (default)", seed].steps[0].settings
        changed = {k: v for k, v in train.settings.items() if default.get(k, "unset") != v and k != "ckpt_dir"}
        assert changed == masksplit.VARIANTS[variant]
        assert (train.settings["dataset_dir"], train.settings["masks_dir"]) == folders[:2]
        assert evaluate.settings["dataset_dir"] == folders[2]
        assert train.settings["seed"] == seed
        assert train.settings["max_epochs"] * train.settings["epoch_length"] == 200
        assert evaluate.settings["checkpoint"] == train.settings["ckpt_dir"] / "model.pt"
        assert evaluate.settings["output_dir"] == cell.folder / "eval"
        assert "seed" not in evaluate.settings


def test_masks_are_found_in_one_half_and_the_other_is_tested(masksplit, sets, tmp_path):
    arguments = _masksplit_arguments(masksplit, sets, tmp_path, "--image_size", "12")
    train, masks, test = masksplit.prepare(arguments)
    assert not _pictures(train) & _pictures(test)
    assert {path.name for path in train.iterdir()} == {
        f"{folder.name}_lesion_{number:03}.jpg" for folder in sets for number in (1, 3, 5)
    }
    assert {f"{path.parent.name}/{path.name}" for path in test.rglob("*.jpg")} == {
        f"{folder.name}/lesion_{number:03}.jpg" for folder in sets for number in (2, 4)
    }
    found = load_image_set(test, require_labels=True)
    check_images(found.images)
    assert list(found.class_names.values()) == ["lesions", "polyps"]
    (command,) = masksplit.commands
    assert command[command.index("--config_file") + 1] == "configs/saliency.json"
    assert command[command.index("--dataset_dir") + 1] == str(train)
    assert masks.parent == Path(command[command.index("--output_dir") + 1])
    assert masksplit.prepare(arguments) == (train, masks, test)
    assert len(masksplit.commands) == 1


def test_masks_that_cannot_be_found_are_reported_with_their_log(masksplit, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(masksplit.ChildProcesses, "run", lambda self, command, **options: 1)
    with pytest.raises(RuntimeError, match=r"^No masks could be found, see .*saliency\.log$"):
        masksplit.prepare(_masksplit_arguments(masksplit, sets, tmp_path, "--image_size", "12"))
    assert (tmp_path / "data" / "saliency.log").is_file()


def test_masksplit_table_holds_means_and_spreads_by_variant_and_class(masksplit, sets, tmp_path):
    arguments = _masksplit_arguments(masksplit, sets, tmp_path, "--threads", "3")
    cells = masksplit.planned(arguments, (tmp_path,) * 3)
    for seed, (dice, iou, lesion, polyp) in enumerate([(0.7, 0.6, 0.5, 0.8), (0.8, 0.65, 0.6, 0.7)]):
        _finish(cells["V (default)", seed], dice, iou, 1.0, lesion=lesion, polyp=polyp)
    _finish(cells["no split", 2], 0.4, 0.3, 4.0, lesion=0.2, polyp=0.4)
    text = masksplit.table(arguments, cells)
    assert _rows(text) == [
        {
            "variant": "no split",
            "seeds": "1",
            "mIoU": "30.0",
            "IoU lesion": "20.0",
            "IoU polyp": "40.0",
            "Dice": "40.0",
            "published mIoU, Pascal-5i": "48.6",
        },
        {
            "variant": "V (default)",
            "seeds": "2",
            "mIoU": _spread([60, 65]),
            "IoU lesion": _spread([50, 60]),
            "IoU polyp": _spread([80, 70]),
            "Dice": _spread([70, 80]),
            "published mIoU, Pascal-5i": "53.0",
        },
    ]
    assert "3 of 24 trainings, 2.0 min each on 3 thread(s) of a CPU" in text


def test_nothing_done_is_an_empty_table(surrogate, masksplit, sets, tmp_path):
    arguments = _surrogate_arguments(surrogate, sets, tmp_path)
    folders = dict.fromkeys(("base", "unlabeled", "annotated", "test"), tmp_path)
    text = surrogate.table(arguments, surrogate.planned(arguments, folders))
    assert "0 of 45 trainings" in text
    assert _rows(text) == []
    arguments = _masksplit_arguments(masksplit, sets, tmp_path)
    text = masksplit.table(arguments, masksplit.planned(arguments, (tmp_path,) * 3))
    assert "0 of 24 trainings" in text
    assert _rows(text) == []


def test_failures_are_the_exit_code(surrogate, sets, tmp_path, monkeypatch, capsys):
    cells = importlib.import_module("image_cells")
    monkeypatch.setattr(cells, "run_cells", lambda cells, parallel, threads, finished: {"a": "broken"})
    words = ["--lesions", str(sets[0]), "--polyps", str(sets[1]), "--output_dir", str(tmp_path), "--image_size", "8"]
    assert surrogate.main(words) == 1
    assert "0 of 45 trainings" in capsys.readouterr().out


def test_overlap_is_the_iou_of_a_loop(saliency):
    masks, truth = torch.rand(2, 6, 1, 5, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[4], truth[4], masks[5], truth[5] = False, False, True, True
    expected = []
    for mine, true in zip(masks.flatten(1).tolist(), truth.flatten(1).tolist(), strict=True):
        both = sum(a and b for a, b in zip(mine, true, strict=True))
        either = sum(a or b for a, b in zip(mine, true, strict=True))
        expected.append(both / either if either else 0.0)
    np.testing.assert_allclose(saliency.overlap(masks, truth), expected, rtol=1e-6)
    assert expected[4:] == [0, 1]


def test_saliency_table_holds_means_and_shares_below_a_half(saliency):
    iou = {"fused": np.array([0.2, 0.4, 0.5, 0.9]), "refined, round 1": np.array([0.5, 0.75, 0.75, 1.0])}
    other = {"fused": np.array([0.1]), "refined, round 1": np.array([0.4])}
    results = {
        "ph2": {"iou": iou, "minutes": 3.2, "images": 4},
        "kvasir": {"iou": other, "minutes": 11.0, "images": 1},
    }
    text = saliency.table(results)
    assert _rows(text) == [
        {"step": "fused", "ph2, 4 images": "50.0 (50 %)", "kvasir, 1 images": "10.0 (100 %)"},
        {"step": "refined, round 1", "ph2, 4 images": "75.0 (0 %)", "kvasir, 1 images": "40.0 (100 %)"},
    ]
    assert text.endswith("Refinement took 3, 11 minutes.")


def test_saliency_methods_are_those_of_the_transform(saliency):
    for method in saliency.METHODS:
        SaliencyLabelsd("image", method=method)
    with pytest.raises(ValueError, match="guess"):
        SaliencyLabelsd("image", method="guess")


def test_saliency_of_every_set_is_written(saliency, sets, tmp_path, monkeypatch, capsys):
    results, output = tmp_path / "results.md", tmp_path / "output"
    results.write_text(MARKERS.format("saliency"))
    asked = []

    def steps_of(folder, arguments):
        asked.append((folder, arguments.rounds, arguments.steps, arguments.seed))
        return {"iou": {"fused": np.array([0.5])}, "minutes": 1.0, "images": 5}

    monkeypatch.setattr(saliency, "steps_of", steps_of)
    words = [*map(str, sets), "--output_dir", str(output), "--rounds", "2", "--steps", "7", "--results", str(results)]
    assert saliency.main(words) == 0
    assert asked == [(folder, 2, 7, 0) for folder in sets]
    assert output.is_dir()
    assert capsys.readouterr().out.strip() in results.read_text()
    assert list(_rows(results.read_text())[0]) == ["step", "lesions, 5 images", "polyps, 5 images"]
