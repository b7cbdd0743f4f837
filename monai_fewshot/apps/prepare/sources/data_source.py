# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monai.apps import DecathlonDataset
from monai.config import PathLike

from .archives import MAX_BYTES, MAX_FILES, is_archive, unpack_archive
from .download import RemoteFile, download_file

__all__ = ["SOURCES", "DataSource", "download_dataset", "open_source"]

_ISIC = "https://isic-challenge-data.s3.amazonaws.com/2018/ISIC2018_Task1"
UNPACKED = ".unpacked"


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from.

    Args:
        title: its name.
        page: where its terms are, and its download where it needs registration.
        contents: what there is to download, and what the folder or archive given as source looks like.
        files: what can be downloaded without registration; empty where it needs one.
    """

    title: str
    page: str
    contents: str
    files: tuple[RemoteFile, ...] = ()


def _decathlon() -> dict[str, DataSource]:
    """The tasks with the addresses and checksums that MONAI has."""
    return {
        task: DataSource(
            f"Medical Segmentation Decathlon, {task}",
            "http://medicaldecathlon.com",
            f"{task}.tar, or its folder with dataset.json",
            (RemoteFile(url, md5=DecathlonDataset.md5[task]),),
        )
        for task, url in DecathlonDataset.resource.items()
    }


SOURCES: Mapping[str, DataSource] = {
    "chaos": DataSource(
        "CHAOS: Combined Healthy Abdominal Organ Segmentation",
        "https://doi.org/10.5281/zenodo.3431873",
        "CHAOS_Train_Sets.zip, or its folder Train_Sets with MR and CT in it",
        (
            RemoteFile(
                "https://zenodo.org/records/3431873/files/CHAOS_Train_Sets.zip",
                "535f7d3417a0e0f0d9133fb3d962423d2a9cf3f103e4f09a3d8a1daf87d5d2fc",
                "df21053002a1cc86df918a87da3b2c19",
            ),
        ),
    ),
    "kvasir_seg": DataSource(
        "Kvasir-SEG: polyps in colonoscopy",
        "https://datasets.simula.no/kvasir-seg",
        "kvasir-seg.zip, or its folder Kvasir-SEG with images and masks in it",
        (
            RemoteFile(
                "https://datasets.simula.no/downloads/kvasir-seg.zip",
                "03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
            ),
        ),
    ),
    "isic2018": DataSource(
        "ISIC 2018 Task 1: lesions in dermoscopy",
        "https://challenge.isic-archive.com/data/#2018",
        "the two archives of training images (10 GB) and masks",
        (
            RemoteFile(
                f"{_ISIC}-2_Training_Input.zip", "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f"
            ),
            RemoteFile(
                f"{_ISIC}_Training_GroundTruth.zip", "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c"
            ),
        ),
    ),
    "sabs": DataSource(
        "BTCV / Synapse: Multi-Atlas Labeling Beyond the Cranial Vault, abdomen",
        "https://www.synapse.org/#!Synapse:syn3193805",
        "RawData.zip of the abdomen, or its folder with Training/img/img0001.nii.gz, Training/label/label0001.nii.gz",
    ),
    "mscmr": DataSource(
        "MS-CMRSeg 2019: Multi-sequence Cardiac MR Segmentation",
        "https://zmiclab.github.io/zxh/0/mscmrseg19",
        "the bSSFP images of all patients, patient1_C0.nii.gz and so on, and their labels, patient1_C0_manual.nii.gz",
    ),
    "acdc": DataSource(
        "ACDC: Automated Cardiac Diagnosis Challenge",
        "https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
        "the folder or archive of the training patients, patient001 to patient100, each with its Info.cfg",
    ),
    **_decathlon(),
}
"""Data sets by name. Checksums of CHAOS and Decathlon are their publishers' or MONAI's; the others are those that
independent users of the same files have published."""


def download_dataset(name: str, output_dir: PathLike) -> list[Path]:
    """Download a data set that needs no registration, or say where to get it.

    A download that was cut goes on with the same command, see :func:`download_file`.

    Args:
        name: "chaos", "kvasir_seg", "isic2018", or a task of the Decathlon such as "Task09_Spleen".
        output_dir: folder to put it in.

    Returns:
        The files, archives as they are, to be given as ``source`` to the preparation.

    Raises:
        ValueError: for an unknown name, a set that needs registration, or a failed download.
    """
    source = SOURCES.get(name)
    if source is None:
        raise ValueError(f"There is no data set {name!r}; choose one of {', '.join(SOURCES)}.")
    if not source.files:
        raise ValueError(f"{name} needs registration. {_where_to_get(source)}")
    return [download_file(file, output_dir) for file in source.files]


def open_source(
    source: PathLike,
    output_dir: PathLike,
    name: str = "",
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Find the folder of a downloaded data set, unpacking it where it is an archive.

    Args:
        source: folder or archive.
        output_dir: folder of the prepared data set, in whose hidden folder ``.unpacked`` an archive is unpacked. It can
            be removed after the preparation; a later one unpacks the archive again.
        name: of the data set in ``SOURCES``, to say where to get it.
        max_files: greatest number of files of an archive.
        max_bytes: greatest size of its files together.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: where there is nothing.
        ValueError: where the source is another file, or an archive that cannot be unpacked.
    """
    path = Path(str(source)).expanduser().absolute()
    if path.is_dir():
        return path
    advice = f" {_where_to_get(SOURCES[name], name)}" if name in SOURCES else " Give the folder or archive."
    if not path.exists():
        raise FileNotFoundError(f"source {path} does not exist.{advice}")
    if not is_archive(path):
        raise ValueError(f"source {path} is neither a folder nor a zip or tar archive.{advice}")
    return unpack_archive(path, Path(output_dir).expanduser() / UNPACKED, max_files, max_bytes)


def _where_to_get(source: DataSource, name: str = "") -> str:
    command = f"python -m monai_fewshot.apps.prepare download {name} --output_dir FOLDER" if source.files else ""
    how = f"download it by '{command}', or from {source.page}" if command else f"register at {source.page}, download it"
    return f"For {source.title}, {how}, and give as source {source.contents}."
