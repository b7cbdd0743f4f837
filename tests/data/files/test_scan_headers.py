# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest

from monai_fewshot.data import check_headers


def _save(path, voxels, **header):
    image = nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 4, 1]))
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, path)
    return {"name": path.name.partition(".")[0], "image": str(path)}


def test_all_problems_of_headers_are_told_together(tmp_path):
    random = np.random.default_rng(0)
    colors = np.zeros((4, 5, 6), dtype=[(channel, "u1") for channel in "RGB"])
    scans = [
        _save(tmp_path / "sound.nii.gz", random.random((4, 5, 6))),
        _save(tmp_path / "series.nii.gz", random.random((4, 5, 6, 7))),
        _save(tmp_path / "colors.nii.gz", colors),
        _save(tmp_path / "short.nii.gz", random.random((4, 5, 6))),
        {"name": "missing", "image": str(tmp_path / "missing.nii.gz")},
    ]
    (tmp_path / "short.nii.gz").write_bytes((tmp_path / "short.nii.gz").read_bytes()[:20])
    with pytest.raises(ValueError, match=r"^4 problem\(s\) in 4 of 5 scans:\n") as caught:
        check_headers(scans)
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(".nii.gz: ")[0].rpartition("/")[2] for line in lines] == [
        "series",
        "colors",
        "short",
        "missing",
    ]
    for line, text in zip(
        lines, ["has 7 channels", "stores 3 color", "is truncated or damaged", "is missing"], strict=True
    ):
        assert text in line
    check_headers(scans[:2], num_channels=None)


def test_voxels_are_counted_without_reading_them(tmp_path):
    scans = [
        _save(tmp_path / "a.nii.gz", np.random.default_rng(0).random((14, 15, 16))),
        _save(tmp_path / "b.nii", np.zeros((2, 3, 4, 1, 1))),
    ]
    content = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content)[:-3000])
    assert check_headers(scans) == [14 * 15 * 16, 24]
    for name in ("c.mha", "1.dcm", "2.dcm"):
        (tmp_path / name).write_bytes(bytes(100))
    others = [str(tmp_path / "c.mha"), (str(tmp_path / "1.dcm"), str(tmp_path / "2.dcm"))]
    assert check_headers([{"name": "x", "image": image} for image in others]) == [200, 400]
