# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_fewshot.data.dicom.scans import warn_of_unreadable
from monai_fewshot.data.dicom.series_files import SeriesFiles
from monai_fewshot.data.layouts.folder_scans import scans_of_folder
from monai_fewshot.data.layouts.nnunet_layout import names_of_labels, nnunet_scans
from monai_fewshot.data.layouts.scan_files import check_names, scan_name

__all__ = [
    "Scan",
    "fingerprint_scans",
    "load_class_names",
    "load_scans",
    "read_dataset_json",
]

Scan = dict[str, Any]
"""A scan before it is loaded: ``name``, path of the ``image`` and, where there is one, path of the ``label``.

The image of a DICOM series is a tuple, its files in spatial order, which :class:`monai_fewshot.data.LoadScand` reads.
"""

DATASET_JSON = "dataset.json"
_SAMPLED_BYTES = 1 << 16


def load_scans(
    dataset_dir: PathLike,
    names: Collection[str] | None = None,
    require_labels: bool = False,
    modality: str | Sequence[str] | None = None,
    description: str | Sequence[str] | None = None,
    series_uid: str | Sequence[str] | None = None,
    leave_out: Collection[PathLike] = (),
) -> list[Scan]:
    """List the scans of a data set, sorted by name.

    A data set is one of

    - a folder in the layout of the Medical Segmentation Decathlon: the list ``training`` of its ``dataset.json`` names
      image and label files of any format that ``monai.transforms.LoadImage`` opens, relative to the folder. The image
      may be a list, the files of one DICOM series in spatial order. A scan takes the key ``name`` of its entry, or the
      name of its image file without suffix;
    - a folder in the layout of nnU-Net, whose ``dataset.json`` has no such list: ``imagesTr/NAME_0000.nii.gz`` and
      ``labelsTr/NAME.nii.gz``, of one channel;
    - a folder of images without labels, at any depth: NIfTI, NRRD and MetaImage files, and DICOM series, several to a
      folder or in several folders (:func:`monai_fewshot.data.find_series`). Files take their name without suffix, with
      those of the folders before it where it repeats. Series are called ``series_`` and 12 digits of their UID's hash,
      never after a folder or a patient; what is no volume, such as localizers and reports, is passed over, and so are
      annotations, masks (``a_label.nii.gz``, ``a_seg.nii.gz``, ``.seg.nrrd``, files called as a series, folders such as
      ``labels``, ``masks`` and ``derivatives``) and files and folders whose name begins with a dot;
    - a folder of 2D pictures without masks, at any depth: PNG, JPEG, BMP and TIFF files, and none of the above. A
      picture is a scan of one slice;
    - one image file, or one DICOM file.

    But for headers of DICOM, files are not opened; :func:`monai_fewshot.data.check_scans` does that.

    Args:
        dataset_dir: folder or file.
        names: the scans to list, e.g. ``fold.query``; all by default.
        require_labels: whether a scan without a label is an error.
        modality: of the DICOM series to list, e.g. ``"MR"``, or several. Where this or one of the next two is given,
            other images than DICOM are left out, and a ``dataset.json`` is an error.
        description: part of their SeriesDescription in upper or lower case, ``*`` and ``?`` standing for any
            characters; or several.
        series_uid: their SeriesInstanceUID, or the name of the scan; or several. Series that are no volumes are then
            listed too.
        leave_out: files in the folder that are no scans, such as labels, and folders not to look into, such as that of
            the masks; of no effect on a ``dataset.json``.

    Returns:
        Dictionaries with ``name``, ``image`` and, where there is one, ``label``; paths are absolute. The ``image`` of a
        DICOM series is a tuple of its files.

    Raises:
        FileNotFoundError: if ``dataset_dir`` does not exist or holds no image.
        ValueError: if ``dataset.json`` is malformed, two scans share a name or one has a name that leads out of a
            folder, one of ``names`` is unknown, a required label is absent, no DICOM file can be read, or no series is
            as asked for.
    """
    folder = Path(os.path.abspath(Path(dataset_dir).expanduser()))
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist: give a folder with dataset.json, or a folder of images.")
    wanted = {"modality": modality, "description": description, "series_uid": series_uid}
    choice = {key: value for key, value in wanted.items() if value is not None}
    if (folder / DATASET_JSON).is_file():
        if choice:
            raise ValueError(f"{folder / DATASET_JSON} lists scans by file: leave out {', '.join(choice)}.")
        scans = _listed_scans(folder)
    else:
        scans, unreadable = scans_of_folder(folder, choice, leave_out)
        warn_of_unreadable(folder, unreadable)
    check_names(scans, folder)
    return _selected(sorted(scans, key=lambda scan: scan["name"]), folder, names, require_labels)


def load_class_names(dataset_dir: PathLike, required: bool = False) -> dict[int, str]:
    """Read the classes of a data set from ``labels`` of its ``dataset.json``, e.g. ``{1: "liver", 2: "spleen"}``.

    Names by number, as the Medical Segmentation Decathlon has them, or numbers by name, as nnU-Net has them.

    Args:
        dataset_dir: folder as for :func:`load_scans`.
        required: whether a folder whose classes are not named is an error.

    Returns:
        Name by number, ascending, without background (0); empty for a folder whose classes are not named.

    Raises:
        ValueError: if ``labels`` is neither, lacks though required, or doubles a name.
    """
    labels = read_dataset_json(dataset_dir).get("labels", {})
    try:
        class_names = names_of_labels(labels)
    except ValueError as error:
        raise ValueError(
            f'{Path(dataset_dir) / DATASET_JSON}: "labels" is {labels!r}; '
            'expected names by number such as {"0": "background", "1": "liver"}.'
        ) from error
    if required and not set(class_names) - {0}:
        raise ValueError(
            f'{Path(dataset_dir) / DATASET_JSON} names no class: add "labels", names by number such as '
            '{"0": "background", "1": "liver"}.'
        )
    counts = Counter(class_names.values())
    if doubled := [f"{number} {name}" for number, name in sorted(class_names.items()) if counts[name] > 1]:
        raise ValueError(f'{Path(dataset_dir) / DATASET_JSON}: "labels" names classes alike: {", ".join(doubled)}.')
    return {number: class_names[number] for number in sorted(class_names) if number != 0}


def fingerprint_scans(scans: Iterable[Scan]) -> str:
    """Identify the data that made a result: a SHA-256 over names, file sizes and the ends of the files.

    Of every file the size and the first and last 64 KiB count, so that hundreds of scans take a second. The last bytes
    of a gzip file hold the checksum of its whole content, hence no change of a ``.nii.gz`` goes unnoticed; of an
    uncompressed file, one that leaves both ends and the size alone does. Where the folder lies does not matter, nor
    what the files of a DICOM series are called.

    Args:
        scans: as :func:`load_scans` returns them, in any order.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for scan in sorted(scans, key=lambda scan: scan["name"]):
        for key in ("image", "label"):
            for file in _files(scan[key]) if key in scan else ():
                inner_name = file.name if isinstance(scan[key], str) and Path(scan[key]).is_dir() else ""
                digest.update(f"{scan['name']}/{key}/{inner_name}/{file.stat().st_size}\n".encode())
                digest.update(_both_ends(file))
    return digest.hexdigest()


def read_dataset_json(dataset_dir: PathLike) -> dict[str, Any]:
    """Read ``dataset.json``.

    Args:
        dataset_dir: folder as for :func:`load_scans`.

    Returns:
        Its content; empty for a folder without one.

    Raises:
        ValueError: if it is not JSON or not a dictionary.
    """
    path = Path(dataset_dir).expanduser() / DATASET_JSON
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_doubles)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}): correct it, or write it anew.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dictionary with the key 'training'.")
    return content


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that an object in JSON has twice: Python would keep the last."""
    if doubled := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise ValueError(f"the key {doubled[0]!r} stands there twice")
    return dict(pairs)


def _listed_scans(folder: Path) -> list[Scan]:
    content = read_dataset_json(folder)
    entries = content.get("training")
    if entries is None and (folder / "imagesTr").is_dir():
        return nnunet_scans(folder, content)
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f'{folder / DATASET_JSON}: "training" is {"absent" if entries is None else repr(entries)[:60]}; expected '
            'a list of scans such as {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}.'
        )
    return [_listed_scan(folder, index, entry) for index, entry in enumerate(entries)]


def _listed_scan(folder: Path, index: int, entry: Any) -> Scan:
    paths = {key: entry[key] for key in ("image", "label") if key in entry} if isinstance(entry, dict) else {}
    image = paths.get("image")
    if isinstance(image, list) and image and all(isinstance(file, str) for file in image) and entry.get("name"):
        files = SeriesFiles((os.path.normpath(folder / file) for file in image), entry.get("frames", ()))
        return {"name": str(entry["name"]), "image": files}
    if "image" not in paths or not all(isinstance(path, str) for path in paths.values()):
        raise ValueError(
            f'{folder / DATASET_JSON}: entry {index} of "training" is {entry!r}; expected a dictionary '
            'whose "image", and "label" where there is one, are each the path of one file.'
        )
    resolved = {key: os.path.normpath(folder / path) for key, path in paths.items()}
    return {"name": str(entry.get("name") or scan_name(Path(resolved["image"]))), **resolved}


def _files(path: PathLike | tuple[str, ...]) -> list[Path]:
    """Return the file itself, the files of a series, or the visible files directly in a folder."""
    if isinstance(path, tuple):
        return [Path(file) for file in path]
    path = Path(path)
    inner = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in inner if not file.name.startswith(".") and not file.is_dir()]


def _both_ends(file: Path) -> bytes:
    with open(file, "rb") as stream:
        head = stream.read(_SAMPLED_BYTES)
        stream.seek(max(file.stat().st_size - _SAMPLED_BYTES, 0))
        return head + stream.read(_SAMPLED_BYTES)


def _selected(scans: Sequence[Scan], folder: Path, names: Collection[str] | None, require_labels: bool) -> list[Scan]:
    unknown = sorted(set(names or ()) - {scan["name"] for scan in scans})
    if unknown:
        raise ValueError(f"{folder} has no scan called {', '.join(unknown)}; its {len(scans)} scans are {_few(scans)}.")
    selected = [scan for scan in scans if names is None or scan["name"] in names]
    unlabelled = [scan for scan in selected if "label" not in scan]
    if require_labels and unlabelled:
        raise ValueError(
            f"{folder}: {len(unlabelled)} of {len(selected)} scans have no label: {_few(unlabelled)}. "
            f'Name their label files in {DATASET_JSON} under "label", or leave these scans out.'
        )
    return selected


def _few(scans: Sequence[Scan]) -> str:
    return ", ".join(scan["name"] for scan in scans[:10]) + (", ..." if len(scans) > 10 else "")
