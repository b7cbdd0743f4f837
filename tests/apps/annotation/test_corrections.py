# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fewshot.apps.annotation.corrections import (
    add_file_classes,
    check_scan_of,
    find_corrections,
    touched_slices,
)
from monai_fewshot.data import VolumePreparation
from tests.helpers.slicer_files import write_seg_nrrd_by_hand

NAMES = ["patient_1", "patient_2", "scan_seg"]


def volume(path, voxels):
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("patient_1.nii.gz", "patient_1"),
        ("patient_2_seg.nii.gz", "patient_2"),
        ("patient_2_seg.seg.nrrd", "patient_2"),
        ("patient_2.seg.nrrd", "patient_2"),
        ("scan_seg.nii", "scan_seg"),
        ("scan_seg_seg.png", "scan_seg"),
    ],
)
def test_masks_are_known_by_their_names(file, name, tmp_path):
    (tmp_path / file).touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.nii.gz").touch()
    assert find_corrections([tmp_path / file], NAMES) == find_corrections([tmp_path], NAMES) == {name: tmp_path / file}


def test_names_that_fit_no_scan_or_one_twice(tmp_path):
    for file in ("patient_1.nii.gz", "patient_1_seg.nrrd", "patent_2.nii.gz"):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r"patient_1.nii.gz and .*patient_1_seg.nrrd are both of patient_1: keep one"):
        find_corrections([tmp_path / "patient_1.nii.gz", tmp_path / "patient_1_seg.nrrd"], NAMES)
    with pytest.raises(ValueError, match=r"called after none of the 3 scans .* such as patient_2_seg.nii.gz"):
        find_corrections([tmp_path / "patent_2.nii.gz"], NAMES)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none holds no mask: give files such as"):
        find_corrections([tmp_path / "none"], NAMES)


def test_classes_of_numbers_keep_theirs(tmp_path):
    label = MetaTensor(torch.tensor([0.0, 2.0, 7.0]).view(1, 3, 1, 1))
    file = volume(tmp_path / "a.nii.gz", np.zeros((3, 1, 1), np.uint8))
    mapped, classes = add_file_classes(file, label, {2: "liver"})
    assert mapped.flatten().tolist() == [0, 2, 7]
    assert classes == {2: "liver", 7: "class 7"}


def test_classes_of_names_are_known_by_them(tmp_path):
    """Spleen is class 4 here and 1 in the file; the cyst is 4 there, which is taken, so it gets the next one."""
    numbers = np.zeros((4, 4, 3), np.uint8)
    numbers[0], numbers[1], numbers[2] = 1, 4, 2
    segments = [("Spleen", 0, 1), ("cyst", 0, 4), ("vessel", 0, 2)]
    file = write_seg_nrrd_by_hand(tmp_path / "a.seg.nrrd", numbers, segments, np.eye(4))
    label = MetaTensor(torch.from_numpy(numbers.astype(np.float32))[None])
    mapped, classes = add_file_classes(file, label, {1: "liver", 4: "spleen"})
    assert classes == {1: "liver", 2: "vessel", 4: "spleen", 5: "cyst"}
    assert [int(mapped[0, row, 0, 0]) for row in range(4)] == [4, 5, 2, 0]


def test_a_mask_under_the_name_of_another_scan(tmp_path):
    one, other = np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 4), np.uint8)
    one[:3], other[5:] = 1, 1
    masks = {"a": volume(tmp_path / "a.nii.gz", one), "b": volume(tmp_path / "b.nii.gz", other)}
    drawn = other.copy()
    drawn[4] = 1
    label = MetaTensor(torch.from_numpy(drawn.astype(np.float32))[None])
    with pytest.raises(ValueError, match=r"is called after the scan a, but is like the mask of b and unlike that of a"):
        check_scan_of(tmp_path / "drawn.nii.gz", label, "a", masks)
    check_scan_of(tmp_path / "drawn.nii.gz", label, "b", masks)
    masks["b"] = volume(tmp_path / "c.nii.gz", np.zeros((8, 8, 5), np.uint8))
    check_scan_of(tmp_path / "drawn.nii.gz", label, "a", masks)


def test_slices_are_counted_along_the_axis_of_the_network(tmp_path):
    """The network cuts along the first axis, which runs the other way in the scan."""
    before = np.zeros((5, 6, 4), np.uint8)
    after = before.copy()
    after[1, 2, 3] = after[4, 0, 0] = 1
    files = [volume(tmp_path / f"{number}.nii.gz", voxels) for number, voxels in enumerate((before, after))]
    image = volume(tmp_path / "image.nii.gz", np.random.default_rng(0).random((5, 6, 4)).astype(np.float32))
    preparation = VolumePreparation(axes=[[0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    scan = {"name": "a", "image": str(image)}
    assert touched_slices(files[1], files[0], scan, preparation) == (0, 3)
    assert touched_slices(files[0], files[0], scan, preparation) == ()
