#!/usr/bin/env bash
# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

# Build the wheel and the source distribution of a release, and check that each installs and runs.
#
#   scripts/release.sh FOLDER     FOLDER/dist has both files, ready for "twine upload"
#
# PYTHON names the interpreter (default python3). Options of pip may be given through its PIP_... variables.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:?usage: scripts/release.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -rf "$folder/dist"

"${PYTHON:-python3}" -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip --disable-pip-version-check install --quiet build twine
git archive --format tar --prefix source/ HEAD | tar -x -C "$folder"
"$folder/tools/bin/python" -m build --outdir "$folder/dist" "$folder/source"
"$folder/tools/bin/python" -m twine check --strict "$folder"/dist/*

for file in "$folder"/dist/*.whl "$folder"/dist/*.tar.gz; do
    rm -rf "$folder/installed" "$folder/tried"
    "${PYTHON:-python3}" -m venv "$folder/installed"
    pip=("$folder/installed/bin/python" -m pip --disable-pip-version-check install --quiet --constraint constraints.txt)
    "${pip[@]}" "$(grep '^torch==' constraints.txt)"
    "${pip[@]}" "$file"
    (
        cd "$folder"
        installed/bin/monai-fewshot phantom --output_dir tried --num_volumes 5 --size "(48,48,12)"
        installed/bin/monai-fewshot segment tried/imagesTr --output tried/masks --minutes 0.2 \
            --example tried/imagesTr/phantom_001.nii.gz tried/labelsTr/phantom_001.nii.gz
        test -f tried/masks/phantom_002_seg.nii.gz
    )
    echo "$(basename "$file") installs and runs."
done
echo "Ready: $folder/dist"
