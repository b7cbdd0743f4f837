# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import runpy
import sys

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK

from monai_fewshot.apps.phantom import make_phantom_studies, make_phantom_volume
from monai_fewshot.data import LoadScand, find_series, load_scans

SMALL = (32, 40, 12)


@pytest.fixture(scope="module", params=["mr", "ct"])
def studies(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, make_phantom_studies(folder, num_studies=2, size=SMALL, modality=request.param)


def files(folder):
    return [path for path in sorted((folder / "archive").rglob("*")) if path.is_file()]


def test_each_study_has_a_localizer_a_volume_and_a_coronal_series(studies):
    modality, folder = studies
    tree = find_series(folder / "archive")
    assert not tree.unreadable
    found = sorted((series.description, series.modality, len(series.slices)) for series in tree.series)
    volume, coronal = {
        "mr": ("t2_spir_tra", "t2_spir_cor"),
        "ct": ("Abdomen venous 6.0", "Abdomen coronal"),
    }[modality]
    expected = [(volume, 12), (coronal, 10), ("localizer", 3)]
    assert found == sorted((name, modality.upper(), count) for name, count in 2 * expected)
    assert sum(series.is_volume for series in tree.series) == 4


def test_the_archive_tells_nothing_by_its_names(studies):
    _, folder = studies
    assert len({path.parent for path in files(folder)}) == 2
    for path in files(folder):
        header = pydicom.dcmread(path)
        assert set(path.name + path.parent.name) <= set("0123456789abcdef")
        assert header.PatientName.family_name.lower() not in str(path).lower()


def test_patients_are_told_apart_and_have_all_identifiers(studies):
    _, folder = studies
    headers = [pydicom.dcmread(path) for path in files(folder)]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyInstanceUID"):
        assert len({str(header[keyword].value) for header in headers}) == 2
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)


def test_volumes_lie_where_the_phantoms_lie(studies):
    modality, folder = studies
    described = "t2*tra" if modality == "mr" else "venous"
    scans = load_scans(folder / "archive", modality=modality, description=described)
    matched = set()
    for scan in scans:
        loaded = LoadScand()({**scan, "label": str(folder / "labels" / f"{scan['name']}.nii.gz")})
        image = nib.as_closest_canonical(nib.Nifti1Image(loaded["image"][0].numpy(), loaded["image"].affine.numpy()))
        label = nib.as_closest_canonical(nib.Nifti1Image(loaded["label"][0].numpy(), loaded["label"].affine.numpy()))
        for index in range(2):
            made, drawn, affine = make_phantom_volume(index, size=SMALL, modality=modality)
            if np.array_equal(image.get_fdata(), made):
                np.testing.assert_array_equal(label.get_fdata(), drawn)
                np.testing.assert_allclose(image.affine, affine, atol=1e-4)
                matched.add(index)
    assert matched == {0, 1}


def test_the_coronal_series_shows_the_same_place(studies):
    modality, folder = studies
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(load_scans(folder / "archive", description="cor")[0]["image"])
    coronal = reader.Execute()
    volumes = [make_phantom_volume(index, size=SMALL, modality=modality) for index in range(2)]
    found = False
    for image, _, affine in volumes:
        point = coronal.TransformIndexToPhysicalPoint((16, 6, 5))
        voxel = np.rint(np.linalg.inv(affine) @ [-point[0], -point[1], point[2], 1])[:3].astype(int)
        found |= bool((voxel < SMALL).all() and (voxel >= 0).all() and image[tuple(voxel)] == coronal[16, 6, 5])
    assert found


def test_a_study_is_a_function_of_seed_and_number(tmp_path):
    first = make_phantom_studies(tmp_path / "a", num_studies=1, size=SMALL)
    again = make_phantom_studies(tmp_path / "b", num_studies=2, size=SMALL)
    other = make_phantom_studies(tmp_path / "c", num_studies=1, size=SMALL, seed=1)
    contents = [{path.relative_to(folder): path.read_bytes() for path in files(folder)} for folder in (first, again)]
    assert contents[0].items() <= contents[1].items()
    assert not {path.name for path in files(other)} & {path.name for path in contents[1]}


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="num_studies is 0"):
        make_phantom_studies(tmp_path, num_studies=0)
    with pytest.raises(ValueError, match="modality is 'pet'"):
        make_phantom_studies(tmp_path, modality="pet")


def test_the_command_makes_studies(tmp_path, monkeypatch):
    arguments = ["phantom", "studies", "--output_dir", str(tmp_path), "--num_studies", "1", "--size", "32,32,8"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_module("monai_fewshot.apps.phantom", run_name="__main__")
    assert len(files(tmp_path)) == 3 + 8 + 8
