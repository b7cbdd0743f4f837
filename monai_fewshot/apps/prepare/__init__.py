# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from .cases.case import Case, Problem
from .dataset_description import DatasetDescription
from .datasets.acdc import prepare_acdc
from .datasets.chaos import prepare_chaos
from .datasets.decathlon import prepare_decathlon
from .datasets.image_sets import prepare_images
from .datasets.mscmr import prepare_mscmr
from .datasets.nnunet import prepare_nnunet
from .datasets.plain_folder import prepare_folder
from .datasets.sabs import prepare_sabs
from .runner import prepare_dataset
from .sources.archives import unpack_archive
from .sources.data_source import SOURCES, download_dataset, open_source
from .sources.download import RemoteFile, download_file

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
