#!/usr/bin/env bash
# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

# Make a virtual environment with monai_fewshot and the tested versions of what it needs, or bring one up to date.
#
#   scripts/make_environment.sh FOLDER [EXTRAS]     for example: scripts/make_environment.sh .venv all,dev
#
# PYTHON names the interpreter (default python3). Options of pip may be given through its PIP_... variables.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:?usage: scripts/make_environment.sh FOLDER [EXTRAS]}
extras=${2:-}
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null; then
    echo "There is no $python. Install Python 3.10 or later, or name it: PYTHON=/path/to/python $0" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "$python is $("$python" --version), but 3.10 or later is needed. Name another: PYTHON=python3.12" >&2
    exit 1
fi

wanted="$extras $PWD $(cat constraints.txt setup.py setup.cfg pyproject.toml | cksum)"
if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/.installed" 2>/dev/null)" = "$wanted" ]; then
    echo "Environment $folder is up to date."
    exit 0
fi

echo "Making the environment $folder (once; PyTorch is large, this can take minutes) ..."
if [ ! -x "$folder/bin/python" ] && ! "$python" -m venv "$folder"; then
    echo "No virtual environment could be made. On Debian and Ubuntu: sudo apt install python3-venv" >&2
    exit 1
fi
pip=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet --constraint constraints.txt)
"${pip[@]}" "$(grep '^torch==' constraints.txt)"
"${pip[@]}" --editable ".${extras:+[$extras]}"
echo "$wanted" >"$folder/.installed"
