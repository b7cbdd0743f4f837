# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import convert_to_tensor
from numpy.typing import NDArray

from monai_fewshot.data.files.nifti_files import place_nifti
from monai_fewshot.data.scans.check_scan import CheckScand
from monai_fewshot.utils import Provenance, atomic_path, write_atomically

from .cases.case import Case
from .sources.hashing import hash_file

__all__ = ["IMAGE_FOLDER", "LABEL_FOLDER", "RECORD_FOLDER", "ScanPreparation"]

IMAGE_FOLDER, LABEL_FOLDER, RECORD_FOLDER = "imagesTr", "labelsTr", "provenance"
Scan = Mapping[Any, Any]


@dataclass(frozen=True)
class ScanPreparation:
    """Read a scan of a downloaded data set, transform it and write it with a record of what made it.

    The record, ``provenance/NAME.json``, holds the SHA-256 of all source and prepared files, the settings and the
    versions. By it :meth:`is_current` tells whether there is anything to do.

    Args:
        load: reads a case into ``image`` and, where it has one, ``label``, each a ``MetaTensor`` (C, H, W, D).
        transform: of such a dictionary.
        class_names: name by number of the classes that a label may hold beside 0; empty for any.
        settings: whatever of the preparation makes another result when it changes; as JSON holds it.
        source: folder that the source files are in.
        output_dir: folder of the prepared data set.
        num_channels: of an image.
    """

    load: Callable[[Case], Scan]
    transform: Callable[[Any], Any]
    class_names: Mapping[int, str]
    settings: Mapping[str, Any]
    source: Path
    output_dir: Path
    num_channels: int = 1

    def __call__(self, case: Case) -> None:
        """Prepare a scan, all of it or nothing.

        Args:
            case: the scan.

        Raises:
            ValueError: where it cannot be read, its voxels are not what they should be, or it cannot be written.
        """
        check = CheckScand("image", "label", self.class_names, self.num_channels)
        sources = self._sources(case)
        scan = check(self.load(case))
        scan = self.transform(scan)
        try:
            scan = check(scan)
        except ValueError as error:
            raise ValueError(f"after its preparation, {error}") from error
        self.record_file(case).unlink(missing_ok=True)
        files = self.outputs(case)
        for path, key in zip(files, ("image", "label"), strict=False):
            _write_nifti(self.output_dir / path, scan[key])
        record = {
            "patient": case.patient,
            "settings": self.settings,
            "sources": sources,
            "outputs": {path: hash_file(self.output_dir / path) for path in files},
            "versions": Provenance("").state_dict()["versions"],
        }
        write_atomically(self.record_file(case), json.dumps(record, indent=1) + "\n")

    def is_current(self, case: Case) -> bool:
        """Tell whether a scan was prepared from these source files with these settings.

        Args:
            case: the scan.

        Raises:
            ValueError: where a prepared file was changed since, so that preparing the scan anew would undo that.
        """
        try:
            record = self.record(case)
        except (FileNotFoundError, ValueError):
            return False
        outputs = {path: self.output_dir / path for path in self.outputs(case)}
        kept = {path: file for path, file in outputs.items() if file.is_file() and path in record["outputs"]}
        changed = [path for path, file in kept.items() if hash_file(file) != record["outputs"][path]]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} changed since the preparation wrote it: move it away, and put it back "
                "afterwards if its changes shall stay, or remove it to have it prepared anew."
            )
        made_by = {"settings": self.settings, "sources": self._sources(case)}
        return kept.keys() == record["outputs"].keys() == outputs.keys() and json.dumps(made_by) == json.dumps(
            {key: record[key] for key in made_by}
        )

    def record(self, case: Case) -> dict[str, Any]:
        """Read what made a prepared scan."""
        return json.loads(self.record_file(case).read_text(encoding="utf-8"))

    def record_file(self, case: Case) -> Path:
        """File that tells what made a prepared scan."""
        return self.output_dir / RECORD_FOLDER / f"{case.name}.json"

    def outputs(self, case: Case) -> list[str]:
        """Prepared files of a scan, relative to the output folder: image and, where there is one, label."""
        folders = (IMAGE_FOLDER, LABEL_FOLDER) if case.label else (IMAGE_FOLDER,)
        return [f"./{folder}/{case.name}.nii.gz" for folder in folders]

    def _sources(self, case: Case) -> dict[str, dict[str, str]]:
        return {"image": self._hashes(case.image), "label": self._hashes(case.label)}

    def _hashes(self, files: Sequence[Path]) -> dict[str, str]:
        return {Path(os.path.relpath(file, self.source)).as_posix(): hash_file(file) for file in files}


def _write_nifti(path: Path, volume: torch.Tensor) -> None:
    """Write a volume (C, H, W, D), never half of it, and remove what a killed run left of it; channels come last."""
    affine = volume.affine.numpy() if isinstance(volume, MetaTensor) else np.eye(4)
    voxels = convert_to_tensor(volume, track_meta=False).numpy()
    image = nib.Nifti1Image(_smallest(voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1)), affine)
    place_nifti(image, affine)
    for remains in path.parent.glob(f".*.{path.name}"):
        remains.unlink()
    with atomic_path(path, image.get_data_dtype().itemsize * voxels.size) as temporary:
        nib.save(image, temporary)


def _smallest(voxels: NDArray) -> NDArray:
    """Voxels as 8 or 16 bit integers where they are such, else in single precision."""
    lowest, highest = voxels.min(), voxels.max()
    for dtype in (np.uint8, np.int16):
        bounds = np.iinfo(dtype)
        if bounds.min <= lowest and highest <= bounds.max and (voxels == (integers := voxels.astype(dtype))).all():
            return integers
    return voxels.astype(np.float32, copy=False)
