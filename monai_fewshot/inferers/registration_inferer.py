# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.networks.utils import one_hot
from monai.utils import StrEnum

from monai_fewshot.utils import later_import

from .protocol import SegmentationProtocol
from .scan_registration import RAS_TO_LPS, ScanRegistration, as_itk
from .support_choice import align_slices, slice_direction, slice_similarity
from .support_encoding import SupportScan
from .volume_inferer import QueryScan, VolumeInferer, winning_margins

sitk, _ = later_import("SimpleITK")

__all__ = ["RegistrationInferer", "ScanPlacement"]


class ScanPlacement(StrEnum):
    """How two scans lie to one another before they are registered.

    - ``AXES``: their array axes are parallel (the slice axis opposed where their affines say so), their bodies' middles
      coincide in a slice, and along the slice axis they lie where their slices look most alike
      (``monai_fewshot.inferers.support_choice.align_slices``).
    - ``SCANNER``: as their affines say, for scans of one patient in one position.
    """

    AXES = "axes"
    SCANNER = "scanner"


class RegistrationInferer(VolumeInferer):
    """Segments query volumes by laying annotated support volumes on them: registration and label propagation.

    Nothing is trained, and the network is ignored. Each support is registered to the query, and its labels are read at
    the voxels nearest to where the transform points; several supports vote. The margin of class c is the share of the
    supports that vote for it minus the highest share of any other class or the background, a score and no probability.
    Beyond the supports' fields of view there is background. Protocols differ in which slices are scored, not in the
    margins. Channels of images are averaged.

    Args:
        protocol: a protocol or its name, or several; then the result is a dictionary from their names to the margins.
        num_classes: number of classes N in the labels. Default: the highest value in the support's labels.
        registration: finds the transforms; default :class:`ScanRegistration` as it is.
        placement: how scans lie to one another before.

    Example:
        >>> inferer = RegistrationInferer("whole_volume", 2, placement="scanner")
        >>> [protocol.name for protocol in inferer.protocols]
        ['whole_volume']
    """

    def __init__(
        self,
        protocol: SegmentationProtocol | str | Sequence[SegmentationProtocol | str],
        num_classes: int | None = None,
        registration: ScanRegistration | None = None,
        placement: ScanPlacement | str = ScanPlacement.AXES,
    ) -> None:
        super().__init__(protocol, num_classes)
        self.registration = registration or ScanRegistration()
        self.placement = ScanPlacement(placement)

    def segment(self, query: QueryScan, network: Any, scans: Sequence[SupportScan]) -> Sequence[torch.Tensor]:
        """Segment one volume; see :class:`~monai_fewshot.inferers.VolumeInferer`.

        Raises:
            ValueError: where a support cannot be registered.
        """
        channels = len(scans[0].pixels) + 1
        votes = torch.zeros(channels, *query.image.shape[1:])
        for number, scan in enumerate(scans):
            try:
                found = self._propagate(query, scan)
            except ValueError as error:
                raise ValueError(f"Support scan {number} and the query: {error}") from error
            votes += one_hot(found[None], channels)[0]
        return [winning_margins((votes / len(scans))[None])[0].to(query.image.device)]

    def _propagate(self, query: QueryScan, scan: SupportScan) -> torch.Tensor:
        """Return a support's labels at the voxels of the query, (1, H, W, D)."""
        affine, place = query.affine, query.affine if scan.affine is None else scan.affine
        start = np.zeros(3)
        if self.placement == ScanPlacement.AXES:
            alignment = align_slices(slice_similarity(query.image, scan.image), affine, place)
            reverse = np.diag([1, 1, np.sign(slice_direction(affine, place)) or 1, 1])
            affine, place = (np.diag([*np.linalg.norm(matrix[:3, :3], axis=0), 1]) for matrix in (affine, place))
            affine = affine @ reverse
            from_point = _middle(query.image, query.image.shape[3] / 2)
            to_point = _middle(scan.image, (alignment.begin + alignment.end) / 2)
            start = (to_point @ place - from_point @ affine)[:3] * RAS_TO_LPS
        fixed, moving = as_itk(query.image.mean(0), affine), as_itk(scan.image.mean(0), place)
        label = as_itk(scan.label.to(torch.int16), place)
        transform = self.registration(fixed, moving, label, start.tolist())
        found = sitk.Resample(label, fixed, transform, sitk.sitkNearestNeighbor, 0)
        return torch.from_numpy(sitk.GetArrayFromImage(found).transpose()[None].copy())


def _middle(image: torch.Tensor, height: float) -> np.ndarray:
    """Return the indices (4,), the last of them 1, of the middle of an image at a height on its slice axis."""
    return np.array([image.shape[1] / 2 - 0.5, image.shape[2] / 2 - 0.5, height - 0.5, 1.0])
