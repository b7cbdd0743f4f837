# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.networks.utils import one_hot
from monai.utils import StrEnum, convert_to_dst_type, optional_import

from .class_inferer import winning_margins
from .protocol import Protocol, get_protocols
from .scan_registration import RAS_TO_LPS, ScanRegistration, as_itk
from .support_choice import align_slices, slice_similarity
from .support_encoding import SupportScan
from .volume_checks import SupportReader, check_query

sitk, _ = optional_import("SimpleITK")

__all__ = ["RegistrationInferer", "ScanPlacement"]


class ScanPlacement(StrEnum):
    """How two scans lie to one another before they are registered.

    - ``AXES``: their array axes are parallel, their bodies' middles coincide in a slice, and along the slice axis they
      lie where their slices look most alike (``monai_fewshot.inferers.support_choice.align_slices``).
    - ``SCANNER``: as their affines say, for scans of one patient in one position.
    """

    AXES = "axes"
    SCANNER = "scanner"


class RegistrationInferer(Inferer):
    """Segments query volumes by laying annotated support volumes on them: registration and label propagation.

    Nothing is trained. Each support is registered to the query, and its labels are read at the voxels nearest to where
    the transform points; several supports vote. It gives what :class:`~monai_fewshot.inferers.FewShotVolumeInferer`
    gives, so that both are evaluated and reported alike: channel 0 is 0, channel c the margin of class c, the share of
    the supports that vote for it minus the highest share of any other class or the background. So ``result[:, c] > 0``
    is where class c wins. Beyond the supports' fields of view there is background. Protocols differ in which slices are
    scored, not in the margins.

    Args:
        protocol: a protocol or its name, or several; then the result is a dictionary from their names to the margins.
        num_classes: number of classes N in the labels.
        registration: finds the transforms; default :class:`ScanRegistration` as it is.
        placement: how scans lie to one another before.

    Raises:
        ValueError: where an argument is out of its range or two protocols have the same name.

    Example:
        >>> inferer = RegistrationInferer("whole_volume", 2, placement="scanner")
        >>> [protocol.name for protocol in inferer.protocols]
        ['whole_volume']
    """

    def __init__(
        self,
        protocol: Protocol | str | Sequence[Protocol | str],
        num_classes: int,
        registration: ScanRegistration | None = None,
        placement: ScanPlacement | str = ScanPlacement.AXES,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, got {num_classes}.")
        self.protocols = get_protocols(protocol)
        self.single = isinstance(protocol, (Protocol, str))
        self.num_classes = num_classes
        self.registration = registration or ScanRegistration()
        self.placement = ScanPlacement(placement)
        self._read_support = SupportReader(num_classes, self.protocols)

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Any,
        support_image: torch.Tensor | Sequence[torch.Tensor],
        support_label: torch.Tensor | Sequence[torch.Tensor],
        support_affine: torch.Tensor,
    ) -> Any:
        """Segment query volumes.

        Args:
            inputs: query images (B, C, H, W, D), slices along the last axis; channels are averaged. Voxel sizes come
                from their affine; a plain tensor has 1 mm.
            network: ignored.
            support_image: (B or 1, K, C, H, W, D), or a list of K images where the support scans differ in size.
            support_label: the same with one channel: 0 background, 1..N the classes.
            support_affine: (B or 1, K, 4, 4), from array indices to mm.

        Returns:
            Margins (B, N+1, H, W, D), float32, of the type of ``inputs`` and with its affine; for several protocols a
            dictionary of them.

        Raises:
            ValueError: where shapes do not fit together, a label has values beyond the classes, a class is absent from
                the support, an image holds NaN or infinite values, or a support cannot be registered.
        """
        check_query(inputs)
        volumes = inputs.as_subclass(torch.Tensor).float()
        affines = inputs.affine if isinstance(inputs, MetaTensor) else torch.eye(4)
        affines = affines.reshape(-1, 4, 4).expand(len(volumes), 4, 4).cpu().numpy()
        margins = []
        for index, (volume, affine) in enumerate(zip(volumes, affines, strict=True)):
            scans = self._read_support(support_image, support_label, index, len(volumes), volume)
            places = support_affine[index if len(support_affine) > 1 else 0].cpu().numpy()
            margins.append(self._segment(volume, affine, scans, places))
        result = convert_to_dst_type(torch.stack(margins), inputs, dtype=torch.float32)[0]
        return result if self.single else {protocol.name: result for protocol in self.protocols}

    def _segment(
        self, volume: torch.Tensor, affine: np.ndarray, scans: Sequence[SupportScan], places: np.ndarray
    ) -> torch.Tensor:
        """Segment one volume (C, H, W, D); return (N+1, H, W, D)."""
        votes = torch.zeros(self.num_classes + 1, *volume.shape[1:])
        for number, (scan, place) in enumerate(zip(scans, places, strict=True)):
            try:
                found = self._propagate(volume, affine, scan, place)
            except ValueError as error:
                raise ValueError(f"Support scan {number} and the query: {error}") from error
            votes += one_hot(found[None], self.num_classes + 1)[0]
        return winning_margins((votes / len(scans))[None])[0].to(volume.device)

    def _propagate(
        self, volume: torch.Tensor, affine: np.ndarray, scan: SupportScan, place: np.ndarray
    ) -> torch.Tensor:
        """Return a support's labels at the voxels of the query, (1, H, W, D)."""
        start = np.zeros(3)
        if self.placement == ScanPlacement.AXES:
            affine, place = (np.diag([*np.linalg.norm(matrix[:3, :3], axis=0), 1]) for matrix in (affine, place))
            from_point, to_point = _alike_points(volume, scan.image)
            start = (to_point @ place - from_point @ affine)[:3] * RAS_TO_LPS
        query, support = as_itk(volume.mean(0), affine), as_itk(scan.image.mean(0), place)
        label = as_itk(scan.label.to(torch.int16), place)
        transform = self.registration(query, support, label, start.tolist())
        found = sitk.Resample(label, query, transform, sitk.sitkNearestNeighbor, 0)
        return torch.from_numpy(sitk.GetArrayFromImage(found).transpose()[None].copy())


def _alike_points(query: torch.Tensor, support: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Find indices (4,), the last of them 1, of a point in the query and of its like in the support."""
    begin, end = align_slices(slice_similarity(query, support))
    heights = (query.shape[3] / 2, (begin + end) / 2)
    query_point, support_point = (
        np.array([image.shape[1] / 2 - 0.5, image.shape[2] / 2 - 0.5, height - 0.5, 1.0])
        for image, height in zip((query, support), heights, strict=True)
    )
    return query_point, support_point
