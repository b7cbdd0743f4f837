# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

"""NRRD files as 3D Slicer writes segmentations, written and read byte by byte."""

from __future__ import annotations

import gzip

import numpy as np

SPACES = {
    "left-posterior-superior": np.diag([-1.0, -1, 1, 1]),
    "right-anterior-superior": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1, 1, 1]),
}
"""From each space to RAS; they are their own inverses."""


def write_seg_nrrd_by_hand(path, layers, segments, affine, space="left-posterior-superior", old=False, **fields):
    """Write a segmentation.

    Args:
        path: of the file.
        layers: (H, W, D), or (layers, H, W, D).
        segments: name, layer and label value of each.
        affine: of the voxels, RAS.
        space: in which the header is written.
        old: whether layers and values are left out, as before they were shared.
        fields: further ones of the header.
    """
    layers = np.asarray(layers, np.uint8)
    to_space = SPACES[space] @ affine
    listed = layers.ndim == 4
    vectors = ["(" + ",".join(f"{x:.17g}" for x in column) + ")" for column in to_space[:3].T]
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "type: unsigned char",
        f"dimension: {layers.ndim}",
        f"space: {space}",
        f"sizes: {' '.join(map(str, layers.shape))}",
        f"space directions: {'none ' * listed}{' '.join(vectors[:3])}",
        f"kinds: {'list ' * listed}domain domain domain",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    for index, (name, layer, value) in enumerate(segments):
        own = {"Color": "0.5 0.68 0.5", "ID": f"Segment_{index + 1}", "Name": name, "Tags": "Segmentation.Status:done|"}
        own |= {} if old else {"Layer": layer, "LabelValue": value}
        lines += [f"Segment{index}_{key}:={text}" for key, text in own.items()]
    fields = {"Segmentation_MasterRepresentation": "Binary labelmap", **fields}
    lines += [f"{key}:={text}" for key, text in fields.items()]
    voxels = gzip.compress(layers.tobytes(order="F"))
    path.write_bytes("\n".join([*lines, "", ""]).encode() + voxels)
    return path


def read_nrrd_by_hand(path):
    """Fields of the header as texts, and the voxels of 8 or 16 bits."""
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    lines = [line for line in header.decode().splitlines()[1:] if not line.startswith("#")]
    fields = dict(line.split(":=", 1) if ":=" in line else line.split(": ", 1) for line in lines)
    kind = {"unsigned char": np.uint8, "unsigned short": np.dtype("<u2")}[fields["type"]]
    flat = np.frombuffer(gzip.decompress(voxels), kind)
    return fields, flat.reshape([int(size) for size in fields["sizes"].split()], order="F")
