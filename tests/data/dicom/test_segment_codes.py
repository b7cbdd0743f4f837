# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from monai_fewshot.data import PRIVATE_SCHEME, load_segment_codes, segment_code
from monai_fewshot.data.dicom.segment_codes import CATEGORIES

CHAOS = {"liver": codes.SCT.Liver, "spleen": codes.SCT.Spleen}
KIDNEYS = ["left kidney", "Left_Kidney", "kidney-left", "LK", "leftKidney", "kidney (left)"]
SABS = {
    "gallbladder": codes.SCT.Gallbladder,
    "esophagus": codes.SCT.Esophagus,
    "stomach": codes.SCT.Stomach,
    "aorta": codes.SCT.Aorta,
    "inferior vena cava": codes.SCT.InferiorVenaCava,
    "pancreas": codes.SCT.Pancreas,
}
CARDIAC = {
    "LV myocardium": codes.SCT.LeftVentricleMyocardium,
    "LV blood pool": codes.SCT.LeftVentricle,
    "right ventricle": codes.SCT.RightVentricle,
    "RV": codes.SCT.RightVentricle,
    "myocardium": codes.SCT.CardiacMuscleTissue,
}


@pytest.mark.parametrize(("name", "expected"), [*CHAOS.items(), *SABS.items(), *CARDIAC.items()])
def test_names_of_the_data_sets(name, expected):
    code = segment_code(name)
    assert (code.type, code.side, code.is_private) == (expected, None, False)


@pytest.mark.parametrize("name", KIDNEYS)
def test_a_side_is_a_modifier(name):
    code = segment_code(name)
    assert code.type == codes.SCT.Kidney
    assert code.side == codes.SCT.Left
    assert code.category == codes.SCT.AnatomicalStructure


def test_adrenal_glands():
    assert segment_code("right adrenal gland").type == codes.SCT.AdrenalGland
    assert segment_code("right adrenal gland").side == codes.SCT.Right


@pytest.mark.parametrize("name", ["lesion", "lesions", "Skin lesion", "colon polyp", "tumour"])
def test_abnormalities(name):
    assert segment_code(name).category == codes.SCT.MorphologicallyAbnormalStructure
    assert not segment_code(name).is_private


def test_every_code_is_in_the_dictionary_and_told_once():
    for category, known in CATEGORIES.items():
        assert category in codes.cid7150.dir()
        for name, keyword in known.items():
            assert getattr(codes.SCT, keyword).scheme_designator == "SCT"
            assert segment_code(name).type == getattr(codes.SCT, keyword), name


@pytest.mark.parametrize("name", ["portal and splenic vein", "class 3", "left right kidney", "naïve", "polyp", "肝"])
def test_an_unknown_name_is_a_private_concept(name):
    code = segment_code(name)
    assert code.is_private
    assert code.type.meaning == name
    assert code.type.scheme_designator == PRIVATE_SCHEME
    assert len(code.type.value) == 12
    assert len(PRIVATE_SCHEME) <= 16
    assert code.type == segment_code(name).type
    assert code.type.value != segment_code("something else").type.value


def test_own_codes_go_first(tmp_path):
    own = {
        "Liver": {"value": "LIV", "meaning": "Our liver", "scheme": "99CLINIC"},
        "stent": {"value": "65818007", "meaning": "Stent", "category": "PhysicalObject"},
    }
    file = tmp_path / "codes.json"
    file.write_text(json.dumps(own))
    for given in (own, file):
        loaded = load_segment_codes(given)
        assert segment_code("liver", loaded).type == Code("LIV", "99CLINIC", "Our liver")
        assert segment_code("stent", loaded).category == codes.SCT.PhysicalObject
        assert segment_code("spleen", loaded).type == codes.SCT.Spleen
    assert load_segment_codes(None) == {}


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"a": "65818007"}, '"a" is \'65818007\'; expected "value" and "meaning"'),
        ({"a": {"value": "1"}}, 'expected "value" and "meaning"'),
        ({"a": {"value": 1, "meaning": "x"}}, "all texts"),
        ({"a": {"value": "1", "meaning": "x", "kind": "y"}}, 'expected "value" and "meaning"'),
        ({"a": {"value": "1", "meaning": "x", "category": "Organ"}}, "category 'Organ'; use one of .*Tissue"),
    ],
)
def test_malformed_codes(given, pattern):
    with pytest.raises(ValueError, match=pattern):
        load_segment_codes(given)


def test_malformed_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no segment codes at .*none\.json"):
        load_segment_codes(tmp_path / "none.json")
    for text, pattern in (("{", "is not JSON"), ("[]", "holds a list; expected codes by name")):
        (tmp_path / "codes.json").write_text(text)
        with pytest.raises(ValueError, match=pattern):
            load_segment_codes(tmp_path / "codes.json")
