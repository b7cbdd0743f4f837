# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai.config import PathLike

from monai_fewshot.utils import later_import

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

__all__ = ["PRIVATE_SCHEME", "SegmentCode", "load_segment_codes", "segment_code"]

codedict, _ = later_import("pydicom.sr.codedict")
coding, _ = later_import("pydicom.sr.coding")

PRIVATE_SCHEME = "99MONAI_FEWSHOT"
"""Designator of the private coding scheme of classes that have no code; DICOM wants such names to begin with 99."""

ORGANS = {
    "adrenal": "AdrenalGland",
    "adrenal gland": "AdrenalGland",
    "aorta": "Aorta",
    "bladder": "Bladder",
    "brain": "Brain",
    "colon": "Colon",
    "duodenum": "Duodenum",
    "esophagus": "Esophagus",
    "gall bladder": "Gallbladder",
    "gallbladder": "Gallbladder",
    "heart": "Heart",
    "hippocampus": "Hippocampus",
    "inferior vena cava": "InferiorVenaCava",
    "kidney": "Kidney",
    "left atrium": "LeftAtrium",
    "left ventricle": "LeftVentricle",
    "left ventricle blood pool": "LeftVentricle",
    "left ventricle myocardium": "LeftVentricleMyocardium",
    "liver": "Liver",
    "lung": "Lung",
    "oesophagus": "Esophagus",
    "pancreas": "Pancreas",
    "portal vein": "PortalVein",
    "prostate": "Prostate",
    "rectum": "Rectum",
    "right atrium": "RightAtrium",
    "right ventricle": "RightVentricle",
    "right ventricle blood pool": "RightVentricle",
    "spinal cord": "SpinalCord",
    "spleen": "Spleen",
    "splenic vein": "SplenicVein",
    "stomach": "Stomach",
    "trachea": "Trachea",
    "urinary bladder": "Bladder",
    "uterus": "Uterus",
}
TISSUES = {"myocardium": "CardiacMuscleTissue"}
ABNORMALITIES = {
    "colon polyp": "PolypOfColon",
    "colonic polyp": "PolypOfColon",
    "cyst": "Cyst",
    "lesion": "Lesion",
    "neoplasm": "Neoplasm",
    "skin lesion": "SkinLesion",
    "tumor": "Neoplasm",
    "tumour": "Neoplasm",
}
CATEGORIES = {
    "AnatomicalStructure": ORGANS,
    "Tissue": TISSUES,
    "MorphologicallyAbnormalStructure": ABNORMALITIES,
}
ABBREVIATIONS = {
    "ivc": "inferior vena cava",
    "la": "left atrium",
    "lk": "left kidney",
    "lv": "left ventricle",
    "myo": "myocardium",
    "ra": "right atrium",
    "rk": "right kidney",
    "rv": "right ventricle",
}
SIDES = {"left": "Left", "right": "Right"}


@dataclass(frozen=True)
class SegmentCode:
    """What a segment of a DICOM segmentation shows, in codes.

    Attributes:
        category: kind of property, one of DICOM's CID 7150.
        type: the property itself, such as SNOMED CT's code for the liver.
        side: SNOMED CT's code for left or right, where the name has it and the type does not.
    """

    category: Code
    type: Code
    side: Code | None = None

    @property
    def is_private(self) -> bool:
        """Whether no public code is known for the class."""
        return self.type.scheme_designator == PRIVATE_SCHEME


def segment_code(name: str, own_codes: Mapping[str, SegmentCode] | None = None) -> SegmentCode:
    """Find the codes of a class by its name.

    Common organs, heart structures, lesions and polyps of the colon have codes of SNOMED CT, which pydicom's code
    dictionary holds. Names match whatever their case, order of side and organ, plural and separators ("Left_Kidney",
    "kidney left"), and by the abbreviations of cardiac and abdominal data sets ("LV myocardium", "RK"). A blood pool is
    coded as its ventricle, for which the dictionary has nothing narrower.

    Any other class becomes a concept of the private scheme :data:`PRIVATE_SCHEME`, whose value is made of a hash of the
    name and whose meaning is the name: readers show it, and none takes it for something else.

    Args:
        name: of the class, e.g. ``"left kidney"``.
        own_codes: by name, as :func:`load_segment_codes` reads them; they go before ours.

    Returns:
        Its codes.

    Raises:
        OptionalImportError: without pydicom.

    Example:
        >>> code = segment_code("Left Kidney")
        >>> code.type.value, code.type.scheme_designator, code.side.meaning
        ('64033007', 'SCT', 'Left')
        >>> segment_code("implant").type.scheme_designator
        '99MONAI_FEWSHOT'
    """
    words = _words(name)
    for own_name, code in (own_codes or {}).items():
        if _words(own_name) == words:
            return code
    sides = [word for word in words if word in SIDES]
    without_side = [word for word in words if word not in SIDES]
    for category, known in CATEGORIES.items():
        if keyword := known.get(" ".join(sides + without_side)):
            return SegmentCode(_code(category), _code(keyword))
        if len(sides) < 2 and (keyword := known.get(" ".join(without_side))):
            return SegmentCode(_code(category), _code(keyword), _code(SIDES[sides[0]]) if sides else None)
    value = hashlib.sha256(" ".join(words).encode()).hexdigest()[:12].upper()
    return SegmentCode(_code("SpatialAndRelationalConcept"), coding.Code(value, PRIVATE_SCHEME, name[:64]))


def load_segment_codes(codes_of_user: Mapping[str, Mapping[str, str]] | PathLike | None) -> dict[str, SegmentCode]:
    """Read a user's own codes.

    Args:
        codes_of_user: dictionary, or path of a JSON file, that gives each name a ``value``, a ``meaning`` and, where
            they differ from SNOMED CT and an anatomical structure, a ``scheme`` (``"SCT"``) and a ``category`` (one of
            ``"AnatomicalStructure"``, ``"MorphologicallyAbnormalStructure"``, ``"Tissue"``, ``"PhysicalObject"``,
            ``"SpatialAndRelationalConcept"``): ``{"stent": {"value": "65818007", "meaning": "Stent", "category":
            "PhysicalObject"}}``. None: no codes.

    Returns:
        Codes by name.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it does not hold codes.
    """
    if codes_of_user is None:
        return {}
    source = "segment_codes" if isinstance(codes_of_user, Mapping) else str(codes_of_user)
    entries = codes_of_user if isinstance(codes_of_user, Mapping) else _read(Path(codes_of_user).expanduser())
    return {str(name): _own_code(source, str(name), entry) for name, entry in entries.items()}


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There are no segment codes at {path}: name a JSON file, or give a dictionary.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): correct it.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected codes by name of the class.")
    return content


def _own_code(source: str, name: str, entry: Any) -> SegmentCode:
    known = {"value", "meaning", "scheme", "category"}
    fields = dict(entry) if isinstance(entry, Mapping) else {}
    texts = all(isinstance(text, str) and text for text in fields.values())
    if not {"value", "meaning"} <= fields.keys() <= known or not texts:
        raise ValueError(
            f'{source}: the code of "{name}" is {entry!r}; expected "value" and "meaning", and "scheme" and "category" '
            'where they are not "SCT" and "AnatomicalStructure", all texts.'
        )
    category = fields.get("category", "AnatomicalStructure")
    if category not in codedict.codes.cid7150.dir():
        raise ValueError(
            f'{source}: "{name}" has the category {category!r}; use one of {codedict.codes.cid7150.dir()}.'
        )
    scheme = fields.get("scheme", "SCT")
    return SegmentCode(
        getattr(codedict.codes.cid7150, category), coding.Code(fields["value"], scheme, fields["meaning"])
    )


def _code(keyword: str) -> Code:
    return getattr(codedict.codes.SCT, keyword)


def _words(name: str) -> list[str]:
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name).lower().split()
    words = " ".join(ABBREVIATIONS.get(word, word) for word in separated).split()
    return [_singular(word) for word in words]


def _singular(word: str) -> str:
    return (
        word[:-1] if word in {"kidneys", "lungs", "lesions", "polyps", "tumors", "tumours", "glands", "cysts"} else word
    )
