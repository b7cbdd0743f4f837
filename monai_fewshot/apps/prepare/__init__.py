# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .acdc import prepare_acdc
from .archives import unpack_archive
from .cases import Case, Problem
from .chaos import prepare_chaos
from .dataset_description import DatasetDescription
from .decathlon import prepare_decathlon
from .download import RemoteFile, download_file
from .image_sets import prepare_images
from .mscmr import prepare_mscmr
from .nnunet import prepare_nnunet
from .plain_folder import prepare_folder
from .runner import prepare_dataset
from .sabs import prepare_sabs
from .sources import SOURCES, download_dataset, open_source

__all__ = [
    "SOURCES",
    "Case",
    "DatasetDescription",
    "Problem",
    "RemoteFile",
    "download_dataset",
    "download_file",
    "open_source",
    "prepare_acdc",
    "prepare_chaos",
    "prepare_dataset",
    "prepare_decathlon",
    "prepare_folder",
    "prepare_images",
    "prepare_mscmr",
    "prepare_nnunet",
    "prepare_sabs",
    "unpack_archive",
]
