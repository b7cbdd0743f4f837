# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import Dataset
from PIL import Image

from monai_fewshot.data import (
    AnnotatedEpisodes,
    ImageSet,
    SliceStack,
    check_images,
    few_shot_fold_classes,
    image_reading,
    load_image_list,
    load_image_pools,
    load_image_set,
)


def _save(path, mode="RGB", size=(12, 8), value=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(str(path)))
    if mode == "RGB":
        Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        return
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[2:6, 3:9] = 255 if value is None else value
    Image.fromarray(mask).save(path)


def _pairs(folder, images="images", masks="masks", stems=("a", "b", "c"), mask_name="{}.png", suffix=".jpg"):
    for stem in stems:
        _save(folder / images / f"{stem}{suffix}")
        _save(folder / masks / mask_name.format(stem), "L")
    return folder


def _fss_1000(folder):
    for name in ("abacus", "zebra", "ab_wheel"):
        for number in range(1, 5):
            _save(folder / name / f"{number}.jpg")
            _save(folder / name / f"{number}.png", "L")
    return folder


def _isic(folder):
    return _pairs(
        folder,
        "ISIC2018_Task1-2_Training_Input",
        "ISIC2018_Task1_Training_GroundTruth",
        ("ISIC_0000000", "ISIC_0000001"),
        "{}_segmentation.png",
    )


def _ph2(folder):
    for case in ("IMD002", "IMD003"):
        root = folder / "PH2 Dataset images" / case
        _save(root / f"{case}_Dermoscopic_Image" / f"{case}.bmp")
        _save(root / f"{case}_lesion" / f"{case}_lesion.bmp", "L")
        _save(root / f"{case}_roi" / f"{case}_R1_Label3.bmp", "L")
    return folder


def _kvasir(folder):
    (folder / "kavsir_bboxes.json").parent.mkdir(parents=True, exist_ok=True)
    (folder / "kavsir_bboxes.json").write_text("{}")
    return _pairs(folder, mask_name="{}.jpg")


def _cvc(folder):
    return _pairs(folder, "Original", "Ground Truth", ("1", "2", "10"), "{}.tif", ".tif")


def _pascal(folder):
    for stem, value in (("2007_000032", 1), ("2007_000033", 5), ("2007_000039", 20)):
        _save(folder / "JPEGImages" / f"{stem}.jpg")
        _save(folder / "SegmentationClassAug" / f"{stem}.png", "L", value=value)
    _save(folder / "JPEGImages" / "2008_000001.jpg")
    return folder


def _coco(folder):
    for part in ("train2014", "val2014"):
        _save(folder / part / f"COCO_{part}_000000000009.jpg")
        _save(folder / "annotations" / part / f"COCO_{part}_000000000009.png", "L", value=51)
    return folder


@pytest.mark.parametrize(
    ("make", "layout", "count", "classes", "first"),
    [
        (_pairs, "pairs", 3, {1: "foreground"}, {"name": "a", "class_number": 1}),
        (_fss_1000, "class_folders", 12, {1: "ab_wheel", 2: "abacus", 3: "zebra"}, {"name": "ab_wheel_1"}),
        (_isic, "isic2018", 2, {1: "skin lesion"}, {"name": "ISIC_0000000", "class_number": 1}),
        (_ph2, "ph2", 2, {1: "skin lesion"}, {"name": "IMD002", "class_number": 1}),
        (_kvasir, "kvasir_seg", 3, {1: "polyp"}, {"name": "a", "mask_threshold": 127}),
        (_pairs, "kvasir_capsule_seg", 3, {1: "polyp"}, {"name": "a", "mask_threshold": 127}),
        (_cvc, "cvc_clinicdb", 3, {1: "polyp"}, {"name": "1", "mask_threshold": 127}),
        (_pascal, "pascal", 3, None, {"name": "2007_000032"}),
        (_coco, "coco", 2, None, {"name": "COCO_train2014_000000000009"}),
    ],
)
def test_layouts_as_they_are_downloaded(tmp_path, make, layout, count, classes, first):
    folder = make(tmp_path / "set")
    image_set = load_image_set(folder, layout, require_labels=True)
    assert len(image_set.images) == count
    assert image_set.class_names == classes or len(image_set.class_names) in (20, 80)
    assert image_set.images[0].items() >= first.items()
    for image in image_set.images:
        read = image_reading()(dict(image))
        assert read["image"].shape == (3, 8, 12)
        assert set(read["label"].unique().tolist()) <= {0, image.get("class_number", 0), *image_set.class_names}
        assert read["label"].any()
    if layout != "kvasir_capsule_seg":
        assert load_image_set(folder) == image_set


def test_images_alone(tmp_path):
    for suffix in (".png", ".jpg", ".JPEG", ".bmp", ".tiff"):
        _save(tmp_path / f"image{suffix[1:].lower()}{suffix}")
    (tmp_path / "notes.txt").write_text("")
    image_set = load_image_set(tmp_path)
    assert [image["name"] for image in image_set.images] == [
        "imagebmp",
        "imagejpeg",
        "imagejpg",
        "imagepng",
        "imagetiff",
    ]
    assert image_set.class_names == {}
    with pytest.raises(ValueError, match="5 of 5 images have no mask: imagebmp, imagejpeg"):
        load_image_set(tmp_path, require_labels=True)


def test_masks_of_class_numbers(tmp_path):
    folder = _pairs(tmp_path)
    _save(folder / "masks" / "a.png", "L", value=2)
    named = load_image_set(folder, class_names={1: "polyp"})
    assert named.class_names == {1: "polyp"}
    assert all(image["class_number"] == 1 for image in named.images)
    image_set = load_image_set(folder, class_names={1: "skin", 2: "lesion"})
    assert not any("class_number" in image for image in image_set.images)
    read = image_reading(classes=image_set.class_names)
    assert read(dict(image_set.images[0]))["label"].unique().tolist() == [0, 2]
    assert read(dict(image_set.images[1]))["label"].unique().tolist() == [0, 255]


def test_what_does_not_pair_is_listed(tmp_path):
    folder = _pairs(tmp_path)
    for index in range(12):
        _save(folder / "images" / f"lonely_{index:02}.png")
    _save(folder / "masks" / "stray.png", "L")
    _save(folder / "masks" / "b_mask.png", "L")
    with pytest.raises(ValueError, match="do not pair") as error:
        load_image_set(folder)
    text = str(error.value)
    assert "12 images without a mask: lonely_00, lonely_01" in text
    assert "lonely_09 and 2 more" in text
    assert "1 masks without an image: stray" in text
    assert "1 images with several masks: b" in text
    assert "rename them, or take out what has no partner" in text


@pytest.mark.parametrize("mask_name", ["{}_segmentation.png", "{}_mask.png", "{}-mask.tif", "{}_lesion.bmp", "{}.png"])
def test_names_of_masks(tmp_path, mask_name):
    image_set = load_image_set(_pairs(tmp_path, stems=("a", "b_label", "c.v2"), mask_name=mask_name))
    assert [image["name"] for image in image_set.images] == ["a", "b_label", "c.v2"]
    assert [image["label"].rpartition("masks/")[2] for image in image_set.images] == [
        mask_name.format(stem) for stem in ("a", "b_label", "c.v2")
    ]


def test_folders_in_folders(tmp_path):
    for patient in ("p1", "p2"):
        for stem in ("1", "2"):
            _save(tmp_path / "images" / patient / f"{stem}.jpg")
            _save(tmp_path / "masks" / patient / f"{stem}_mask.png", "L")
    _save(tmp_path / "images" / ".cache" / "1.jpg")
    image_set = load_image_set(tmp_path)
    assert [image["name"] for image in image_set.images] == ["p1_1", "p1_2", "p2_1", "p2_2"]
    assert image_set.images[2]["label"] == str(tmp_path / "masks" / "p2" / "1_mask.png")
    _save(tmp_path / "images" / "p3" / "1.jpg")
    with pytest.raises(ValueError, match="1 images without a mask: p3_1"):
        load_image_set(tmp_path)


def test_classes_of_png_images_with_marked_masks(tmp_path):
    for name in ("cup", "disc"):
        _save(tmp_path / name / "1.png")
        _save(tmp_path / name / "1_mask.png", "L")
    image_set = load_image_set(tmp_path)
    assert [image["image"] for image in image_set.images] == [str(tmp_path / n / "1.png") for n in ("cup", "disc")]
    assert [image["name"] for image in image_set.images] == ["cup_1", "disc_1"]


def _dataset_json(folder, labels, suffix=".png"):
    entries = [{"image": f"i/{s}{suffix}", "label": f"m/{s}.png"} for s in "ab"] + [{"image": f"i/c{suffix}"}]
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries}))
    return folder


def test_images_that_dataset_json_names(tmp_path):
    several = load_image_set(_dataset_json(tmp_path, {"0": "background", "1": "cup", "2": "disc"}))
    assert several.class_names == {1: "cup", 2: "disc"}
    assert several.images[0] == {
        "name": "a",
        "image": str(tmp_path / "i" / "a.png"),
        "label": str(tmp_path / "m" / "a.png"),
    }
    assert several.images[2] == {"name": "c", "image": str(tmp_path / "i" / "c.png")}
    one = load_image_set(_dataset_json(tmp_path, {"0": "background", "3": "polyp"}), mask_threshold=127)
    assert one.class_names == {3: "polyp"}
    assert [image.get("class_number") for image in one.images] == [3, 3, None]
    assert one.images[0]["mask_threshold"] == 127
    with pytest.raises(ValueError, match="1 of 3 images have no mask: c"):
        load_image_set(tmp_path, require_labels=True)
    with pytest.raises(
        ValueError, match=r"dataset\.json names 3 files that are no 2D images .*the first is .*a\.nii\.gz"
    ):
        load_image_set(_dataset_json(tmp_path, {"1": "liver"}, ".nii.gz"))


def test_two_images_of_one_name(tmp_path):
    folder = _pairs(tmp_path)
    _save(folder / "images" / "a.png")
    with pytest.raises(ValueError, match="image names that occur twice: a"):
        load_image_set(folder)
    with pytest.raises(ValueError, match="Several images are called x"):
        ImageSet(({"name": "x", "image": "1"}, {"name": "x", "image": "2"}), {})


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is not a folder"):
        load_image_set(tmp_path / "absent")
    (tmp_path / "scans").mkdir()
    with pytest.raises(ValueError, match=r"no layout that is known .*; it holds scans\. Give the folder with images/"):
        load_image_set(tmp_path)
    with pytest.raises(ValueError, match="layout is 'pets', must be auto or one of dataset_json, pairs, class_folders"):
        load_image_set(tmp_path, "pets")
    with pytest.raises(FileNotFoundError, match="has no folder 'Original'; is it the data set that you named"):
        load_image_set(tmp_path, "cvc_clinicdb")


def test_training_and_test_classes_are_disjoint(tmp_path):
    image_set = load_image_set(_fss_1000(tmp_path))
    test, train = image_set.of_classes(["zebra"]), image_set.without_classes(["zebra"])
    assert (test.class_names, train.class_names) == ({3: "zebra"}, {1: "ab_wheel", 2: "abacus"})
    assert {image["class_number"] for image in train.images} == {1, 2}
    assert len(test.images) + len(train.images) == len(image_set.images)
    assert image_set.of_classes([3]) == test
    with pytest.raises(ValueError, match="There are no classes 'horse'; known are: 1 ab_wheel, 2 abacus, 3 zebra"):
        image_set.of_classes(["horse"])


def test_images_of_several_classes_stay(tmp_path):
    image_set = load_image_set(_pascal(tmp_path))
    test = image_set.of_classes(few_shot_fold_classes("pascal", 0))
    assert list(test.class_names) == [1, 2, 3, 4, 5]
    assert test.images == image_set.images


def test_images_by_name(tmp_path):
    image_set = load_image_set(_pairs(tmp_path))
    assert [image["name"] for image in image_set.named(["c", "a"]).images] == ["a", "c"]
    with pytest.raises(ValueError, match="no images called x"):
        image_set.named(["a", "x"])


def test_a_class_needs_the_images_of_an_episode(tmp_path):
    image_set = load_image_set(_fss_1000(tmp_path))
    image_set.check_episodes(shots=3, ways=3)
    with pytest.raises(ValueError, match="5 annotated images of a class; ab_wheel has 4, abacus has 4, zebra has 4"):
        image_set.check_episodes(shots=4)
    with pytest.raises(ValueError, match="4-way episodes need as many classes, there are 3"):
        image_set.check_episodes(shots=1, ways=4)
    load_image_set(_pascal(tmp_path / "voc")).check_episodes(shots=5)


def test_folds_of_natural_images():
    for dataset, count in (("pascal", 20), ("coco", 80)):
        folds = [few_shot_fold_classes(dataset, fold) for fold in range(4)]
        assert sorted(number for fold in folds for number in fold) == list(range(1, count + 1))
    assert few_shot_fold_classes("pascal", 3)[20] == "tvmonitor"
    assert few_shot_fold_classes("coco", 3)[80] == "toothbrush"
    with pytest.raises(ValueError, match="Folds are 0 to 3 of 'pascal' or 'coco', got 4"):
        few_shot_fold_classes("pascal", 4)


def test_lists_of_pascal_5i(tmp_path):
    folder = _pascal(tmp_path / "voc")
    pairs, classes = tmp_path / "train.txt", few_shot_fold_classes("pascal", 0)
    pairs.write_text("JPEGImages/2007_000032.jpg SegmentationClassAug/2007_000032.png\n\n")
    by_class = tmp_path / "fold0.txt"
    by_class.write_text("2007_000033__05\n2007_000032__01\n2007_000032__15\n")
    assert [i["name"] for i in load_image_list(pairs, folder, classes).images] == ["2007_000032"]
    listed = load_image_list(by_class, folder, classes)
    assert [i["name"] for i in listed.images] == ["2007_000033", "2007_000032"]
    assert listed.class_names == classes
    assert image_reading()(dict(listed.images[0]))["label"].max() == 5
    pairs.write_text("JPEGImages/absent.jpg SegmentationClassAug/absent.png")
    with pytest.raises(FileNotFoundError, match=r"2 files that .*train\.txt names are missing: .*absent\.jpg"):
        load_image_list(pairs, folder, classes)
    pairs.write_text("one two three")
    with pytest.raises(ValueError, match=r"train\.txt, line 1: 'one two three' is neither"):
        load_image_list(pairs, folder, classes)
    with pytest.raises(FileNotFoundError, match="There is no list"):
        load_image_list(tmp_path / "no.txt", folder, classes)


def test_episodes_of_an_image_set(tmp_path):
    image_set = load_image_set(_fss_1000(tmp_path)).without_classes(["zebra"])
    stack = SliceStack.from_scans(Dataset(image_set.images, image_reading()), "label", image_size=(16, 16))
    assert stack.image.shape == (8, 3, 16, 16)
    episodes = AnnotatedEpisodes(stack, 20, list(image_set.class_names), ways=2, shots=3)
    for episode in episodes:
        assert episode["support_image"].shape == (6, 3, 16, 16)
        assert [int(label.max()) for label in episode["support_label"]] in ([1, 1, 1, 2, 2, 2], [2, 2, 2, 1, 1, 1])
        assert 0 <= episode["image"].min() <= episode["image"].max() <= 1


def test_pools_of_one_data_set_are_its_classes(tmp_path):
    folder = _fss_1000(tmp_path)
    assert load_image_pools(folder) == load_image_pools([folder]) == load_image_set(folder)
    thresholded = load_image_pools(folder, "class_folders", mask_threshold=100)
    assert {image["mask_threshold"] for image in thresholded.images} == {100}
    several = load_image_pools(_pascal(tmp_path / "voc"), "pascal")
    assert not any("class_number" in image for image in several.images)


def test_pools_of_several_data_sets_keep_apart_what_comes_from_where(tmp_path):
    lesions, objects, polyps = _isic(tmp_path / "skin"), _fss_1000(tmp_path / "fss"), _cvc(tmp_path / "colon")
    pools = load_image_pools([lesions, objects, polyps])
    assert pools.class_names == {
        1: "skin/skin lesion",
        2: "fss/ab_wheel",
        3: "fss/abacus",
        4: "fss/zebra",
        5: "colon/polyp",
    }
    assert [image["name"] for image in pools.images[:3]] == [
        "skin/ISIC_0000000",
        "skin/ISIC_0000001",
        "fss/ab_wheel_1",
    ]
    assert [image["class_number"] for image in pools.images] == [1, 1, *[2] * 4, *[3] * 4, *[4] * 4, *[5] * 3]
    assert [image.get("mask_threshold") for image in pools.images] == [None] * 14 + [127] * 3
    assert [image["image"].startswith(str(polyps)) for image in pools.images] == [False] * 14 + [True] * 3
    for image in (pools.images[0], pools.images[5], pools.images[-1]):
        assert set(image_reading()(dict(image))["label"].unique().tolist()) == {0, image["class_number"]}
    assert list(pools.without_classes(["fss/zebra"]).class_names) == [1, 2, 3, 5]


def test_pools_are_numbered_in_the_order_of_their_data_sets(tmp_path):
    one, other = _pairs(tmp_path / "a"), _pairs(tmp_path / "b")
    for folders in ((one, other), (other, one)):
        pools = load_image_pools([str(folder) for folder in folders], "pairs", mask_threshold=7)
        assert pools.class_names == {n: f"{folder.name}/foreground" for n, folder in enumerate(folders, 1)}
        assert [image["name"] for image in pools.images] == [f"{f.name}/{stem}" for f in folders for stem in "abc"]
        assert {image["mask_threshold"] for image in pools.images} == {7}


def test_pools_that_cannot_be_put_together(tmp_path):
    one, other, objects = _pairs(tmp_path / "x" / "set"), _pairs(tmp_path / "y" / "set"), _pascal(tmp_path / "voc")
    with pytest.raises(ValueError, match=r"Data sets need names of their own, got folders .*x/set, .*y/set"):
        load_image_pools([one, other])
    with pytest.raises(ValueError, match=r"voc: masks hold several classes, such a set cannot be put together"):
        load_image_pools([one, objects])
    with pytest.raises(FileNotFoundError, match="absent is not a folder"):
        load_image_pools([one, tmp_path / "absent"])
    (one / "masks" / "b.png").unlink()
    with pytest.raises(ValueError, match="1 images without a mask: b"):
        load_image_pools([one, objects])
    for stem in "ac":
        _save(tmp_path / "plain" / f"{stem}.png")
    with pytest.raises(ValueError, match="2 of 2 images have no mask: a, c"):
        load_image_pools(tmp_path / "plain")


@pytest.mark.parametrize(("name", "size"), [("ph2", None), ("kvasir_seg", (3, 352, 352))])
def test_real_images(data_dir, name, size):
    image_set = load_image_set(data_dir / name, require_labels=True)
    assert len(image_set.images) == 200
    check_images(image_set.images)
    for image in image_set.images[:5]:
        read = image_reading()(dict(image))
        assert size is None or read["image"].shape == size
        assert read["label"].unique().tolist() == [0, 1]
        assert read["image"].shape[1:] == read["label"].shape[1:]
        rows = np.asarray(Image.open(image["image"])).transpose(2, 0, 1)
        assert np.array_equal(read["image"].numpy(), rows)


def test_real_lesions_in_the_folders_of_ph2(data_dir, tmp_path):
    originals = load_image_set(data_dir / "ph2").images[:4]
    for image in originals:
        root = tmp_path / "PH2 Dataset images" / image["name"]
        (root / f"{image['name']}_Dermoscopic_Image").mkdir(parents=True)
        (root / f"{image['name']}_lesion").mkdir()
        Image.open(image["image"]).save(root / f"{image['name']}_Dermoscopic_Image" / f"{image['name']}.bmp")
        Image.open(image["label"]).convert("1").save(root / f"{image['name']}_lesion" / f"{image['name']}_lesion.bmp")
    nested = load_image_set(tmp_path)
    assert nested.class_names == {1: "skin lesion"}
    for original, image in zip(originals, nested.images, strict=True):
        expected, read = image_reading()(dict(original)), image_reading()(dict(image))
        assert torch.equal(read["image"], expected["image"])
        assert torch.equal(read["label"], expected["label"])


def test_real_polyps_with_masks_as_kvasir_has_them(data_dir, tmp_path):
    originals = load_image_set(data_dir / "kvasir_seg").images[:4]
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "kavsir_bboxes.json").write_text("{}")
    for image in originals:
        Image.open(image["image"]).save(tmp_path / "images" / f"{image['name']}.jpg")
        Image.open(image["label"]).convert("RGB").save(tmp_path / "masks" / f"{image['name']}.jpg", quality=75)
    image_set = load_image_set(tmp_path)
    check_images(image_set.images)
    for original, image in zip(originals, image_set.images, strict=True):
        assert len(np.unique(np.asarray(Image.open(image["label"])))) > 2
        expected, read = image_reading()(dict(original))["label"], image_reading()(dict(image))["label"]
        assert (expected != read).float().mean() < 1e-3
