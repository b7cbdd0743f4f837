# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""From a tree of DICOM studies and one annotated series to masks, measurements and a page, by one bundle run."""

from __future__ import annotations

import json
import logging
import os

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import IDENTIFIERS, oblique, write_report, write_seg, write_series
from slicer_files import read_nrrd_by_hand, write_seg_nrrd_by_hand

from monai_fewshot.data import find_series
from monai_fewshot.metrics import MEASUREMENT_TABLE

pytestmark = pytest.mark.default_dtype
SPACING = (1.5, 1.7, 7.0)
ALL = {"outputs": ["nifti", "dicom_seg"], "measurements": True, "previews": True}


def _pixels(scans, seed):
    image, label = scans.make(seed)
    return image.astype(np.int16), label


@pytest.fixture(scope="module")
def tree(scans, tmp_path_factory):
    """Two patients with an MR series each, among others, and an annotated one."""
    folder = tmp_path_factory.mktemp("archive")
    order = [3, 1, 0, 5, 2, 4]
    for seed in (0, 1):
        study = folder / "studies" / "Quxworth" / f"visit {seed}"
        place = {"spacing": SPACING, "directions": oblique(10 * seed)}
        write_series(study / "a", _pixels(scans, seed)[0], order=order, description="t2_spir_tra", **place)
        write_series(
            study / "a", _pixels(scans, 7)[0], description="localizer", modality="CT", file_name="CT{}", **place
        )
        write_report(study)
    image, label = _pixels(scans, 5)
    files = write_series(folder / "support" / "series", image, spacing=SPACING)
    write_seg(folder / "support" / "seg.dcm", files, label, ["Liver", "Left kidney"])
    return folder


@pytest.fixture(scope="module")
def bundle(at_root, save_model, tmp_path_factory):
    """A bundle with random weights."""
    bundle = at_root(tmp_path_factory.mktemp("bundle"))
    save_model(bundle.root / "model.pt")
    return bundle


def _infer(bundle, tree, output_dir, **settings):
    return bundle.run(
        "inference",
        **{
            "dataset_dir": str(tree / "studies"),
            "modality": "MR",
            "support_image": str(tree / "support" / "series"),
            "support_label": str(tree / "support" / "seg.dcm"),
            "checkpoint": str(bundle.root / "model.pt"),
            "output_dir": str(output_dir),
            "threshold": -0.2,
            **settings,
        },
    )


def _names(tree):
    return sorted(series.name for series in find_series(tree / "studies").series if series.modality == "MR")


@pytest.fixture(scope="module")
def results(bundle, tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    _infer(bundle, tree, folder, **ALL)
    return folder


def _files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("[!.]*") if file.is_file())


def test_a_tree_of_studies_becomes_masks_and_a_page(results, tree):
    names = _names(tree)
    assert len(names) == 2
    expected = ["index.html", "measurements.csv"]
    expected += [f"previews/{name}.png" for name in names]
    expected += [f"{name}_seg.{suffix}" for name in names for suffix in ("dcm", "nii.gz")]
    assert _files(results) == sorted(expected)
    rows = MEASUREMENT_TABLE.read(results / "measurements.csv")
    assert [(row.scan, row.label, row.name) for row in rows] == [
        (name, number, organ) for name in names for number, organ in ((1, "Liver"), (2, "Left kidney"))
    ]
    assert any(row.voxels for row in rows)
    page = (results / "index.html").read_text()
    assert page.count("data:image/png") == 2
    assert "ssl_alpnet" in page
    assert all(f'href="{name}_seg.dcm"' in page for name in names)


def test_both_formats_hold_the_same_mask(results, tree):
    for series in find_series(tree / "studies").series:
        if series.modality != "MR":
            continue
        mask = nibabel.load(results / f"{series.name}_seg.nii.gz")
        ds = pydicom.dcmread(results / f"{series.name}_seg.dcm")
        assert mask.shape == series.shape
        np.testing.assert_allclose(mask.affine, series.affine, atol=1e-4)
        found = np.zeros(mask.shape, np.uint8)
        for frame, group in zip(ds.pixel_array, ds.PerFrameFunctionalGroupsSequence, strict=True):
            position = np.diag([-1.0, -1, 1]) @ np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            place = np.linalg.inv(series.affine) @ [*position, 1]
            np.testing.assert_allclose(place[:2], 0, atol=1e-3)
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            found[:, :, round(place[2])] += (number * (frame > 0)).astype(np.uint8).T
        np.testing.assert_array_equal(found, mask.dataobj)
        assert [segment.SegmentLabel for segment in ds.SegmentSequence] == ["Liver", "Left kidney"]
        assert ds.SegmentSequence[1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
        assert ds.StudyInstanceUID == pydicom.dcmread(series.files[0]).StudyInstanceUID


def test_patients_are_in_no_name_log_or_page(bundle, tree, tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        _infer(bundle, tree, tmp_path, **ALL)
    told = caplog.text + "".join(capfd.readouterr()) + " ".join(_files(tmp_path))
    told += "".join((tmp_path / name).read_text() for name in ("index.html", "measurements.csv"))
    assert not [word for word in IDENTIFIERS if word in told]


def test_a_segmentation_of_slicer_serves_as_one_in_dicom(bundle, tree, scans, tmp_path):
    """The support's label is cropped to its segments, and masks are written for 3D Slicer."""
    label, series = _pixels(scans, 5)[1], find_series(tree / "support" / "series").series[0]
    low, high = np.argwhere(label).min(axis=0), np.argwhere(label).max(axis=0) + 1
    affine = series.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    support = write_seg_nrrd_by_hand(
        tmp_path / "support.seg.nrrd",
        label[tuple(map(slice, low, high))],
        [("Liver", 0, 1), ("Left kidney", 0, 2)],
        affine,
        Segmentation_ReferenceImageExtentOffset=" ".join(map(str, low)),
    )
    name = _names(tree)[0]
    for folder, other in (("slicer", {"support_label": str(support)}), ("dicom", {})):
        _infer(bundle, tree, tmp_path / folder, series_uid=name, outputs=["seg_nrrd"], **other)
        assert _files(tmp_path / folder) == [f"{name}_seg.seg.nrrd"]
    fields, voxels = read_nrrd_by_hand(tmp_path / "slicer" / f"{name}_seg.seg.nrrd")
    assert [fields[f"Segment{index}_Name"] for index in (0, 1)] == ["Liver", "Left kidney"]
    assert voxels.any()
    np.testing.assert_array_equal(voxels, read_nrrd_by_hand(tmp_path / "dicom" / f"{name}_seg.seg.nrrd")[1])


def test_an_interrupted_run_goes_on(results, bundle, tree):
    kept, lost = _names(tree)
    times = {name: os.stat(results / name).st_mtime_ns for name in _files(results) if kept in name}
    for file in (results / f"{lost}_seg.dcm", results / "previews" / f"{lost}.png", results / "index.html"):
        before = _files(results)
        file.unlink()
        _infer(bundle, tree, results, **ALL)
        assert _files(results) == before
    assert {name: os.stat(results / name).st_mtime_ns for name in times} == times
    assert len(MEASUREMENT_TABLE.read(results / "measurements.csv")) == 4
    (results / "index.html").unlink()
    _infer(bundle, tree, results, **ALL)
    assert kept in (results / "index.html").read_text()


@pytest.mark.parametrize("spacing", [[3.0, 3.0, 7.0], [0.8, 0.9, 3.5]])
def test_a_raw_scan_is_prepared_and_its_mask_brought_back(bundle, tree, tmp_path, spacing):
    chain = {"_target_": "monai_fewshot.transforms.mr_preparation", "spacing": spacing, "size": [48, 44]}
    _infer(bundle, tree, tmp_path, preparation=chain, measurements=True)
    rows = {(row.scan, row.label): row for row in MEASUREMENT_TABLE.read(tmp_path / "measurements.csv")}
    for series in find_series(tree / "studies").series:
        if series.modality != "MR":
            continue
        mask = nibabel.load(tmp_path / f"{series.name}_seg.nii.gz")
        assert mask.shape == series.shape
        np.testing.assert_allclose(mask.affine, series.affine, atol=1e-4)
        for number in (1, 2):
            inside = np.asarray(mask.dataobj) == number
            assert inside.sum() == rows[series.name, number].voxels


def test_a_mask_comes_back_to_where_it_belongs(bundle, tree, tmp_path):
    """All that the network sees is taken for an organ, in slices where it may be, so that the crop shows."""
    chain = {"_target_": "monai_fewshot.transforms.mr_preparation", "spacing": None, "size": [20, 18]}
    _infer(bundle, tree, tmp_path, preparation=chain, threshold=-1e3, keep_largest=False)
    for name in _names(tree):
        mask = np.asarray(nibabel.load(tmp_path / f"{name}_seg.nii.gz").dataobj) > 0
        seen = np.zeros((40, 36, 6), bool)
        seen[10:30, 9:27] = True
        np.testing.assert_array_equal(mask[..., 1:5], seen[..., 1:5])
        assert not mask[~seen].any()


def test_dicom_segmentations_need_dicom_series(bundle, tree, dataset_dir, tmp_path):
    settings = {"dataset_dir": str(dataset_dir / "imagesTr"), "modality": None, "outputs": ["dicom_seg"]}
    with pytest.raises(RuntimeError) as failure:
        _infer(bundle, tree, tmp_path / "out", **settings)
    error = failure.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert "dicom_seg, but 6 of 6 scans are no DICOM series: scan_0" in str(error)
    assert not list(tmp_path.rglob("*.nii.gz"))


def _turned(scan, axes):
    """The same scan with its axes in another order and direction."""
    codes = nibabel.orientations.axcodes2ornt(axes)
    return scan.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(scan.affine), codes))


def test_scans_of_any_orientation_are_segmented_alike(bundle, save_model, scans, dataset_dir, tmp_path):
    """The model's slices are axial; coronal, sagittal and flipped stacks are cut along the same axis."""
    checkpoint = save_model(tmp_path / "model.pt", axes=[[-1, 0, 0], [0, -1, 0], [0, 0, 1]])
    orders = ["LPS", "RAS", "PIR", "LIP"]
    supports = [dataset_dir / part / "scan_5.nii.gz" for part in ("imagesTr", "labelsTr")]
    for number, axes in enumerate(orders):
        for folder, order in (("mixed", axes), ("alike", "LPS")):
            image = nibabel.Nifti1Image(scans.make(number)[0], scans.affine)
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(_turned(image, order), tmp_path / folder / f"{axes}.nii.gz")
    turned = [tmp_path / f"support_{file.parent.name}.nii.gz" for file in supports]
    for file, other in zip(supports, turned, strict=True):
        nibabel.save(_turned(nibabel.load(file), "PIR"), other)
    for folder, (image, label) in (("mixed", turned), ("alike", supports)):
        settings = {
            "modality": None,
            "checkpoint": checkpoint,
            "support_image": str(image),
            "support_label": str(label),
        }
        out = tmp_path / f"{folder}_masks"
        _infer(bundle, tmp_path, out, dataset_dir=str(tmp_path / folder), dtype="$torch.float32", **settings)
    for axes in orders:
        own, alike = (
            nibabel.load(tmp_path / f"{folder}_masks" / f"{axes}_seg.nii.gz") for folder in ("mixed", "alike")
        )
        scan = nibabel.load(tmp_path / "mixed" / f"{axes}.nii.gz")
        assert own.shape == scan.shape
        np.testing.assert_allclose(own.affine, scan.affine, atol=1e-4)
        expected = np.asarray(_turned(alike, axes).dataobj)
        assert set(np.unique(expected)) == {0, 1, 2}
        np.testing.assert_array_equal(own.dataobj, expected)


def test_names_and_codes_of_the_user(bundle, tree, tmp_path):
    codes = tmp_path / "codes.json"
    codes.write_text(json.dumps({"left kidney": {"value": "LK", "meaning": "Our kidney", "scheme": "99CLINIC"}}))
    name = _names(tree)[0]
    _infer(
        bundle,
        tree,
        tmp_path / "out",
        series_uid=name,
        outputs=["dicom_seg"],
        segment_codes=str(codes),
        class_names=["Left kidney", "Liver"],
    )
    assert _files(tmp_path / "out") == [f"{name}_seg.dcm"]
    ds = pydicom.dcmread(tmp_path / "out" / f"{name}_seg.dcm")
    assert [segment.SegmentLabel for segment in ds.SegmentSequence] == ["Left kidney", "Liver"]
    (code,) = ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("LK", "99CLINIC")
