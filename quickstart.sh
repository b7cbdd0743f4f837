#!/usr/bin/env bash
# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'HELP'
Segment a folder of phantom scans, which are made on the spot, after one annotated example, and compare the masks with
the truth. Takes about seven minutes on two free CPU cores once the environment is made.

usage: ./quickstart.sh [--clean] [--help]

A second run goes on where the first one stopped. --clean begins anew, keeping the environment.

Environment variables:
  MONAI_FEWSHOT_VENV   folder of the environment (default .venv)
  PYTHON               the Python to make it from, 3.10 or later (default python3)
HELP
}

root=$PWD
environment=${MONAI_FEWSHOT_VENV:-.venv}
output=$root/quickstart_output
minutes=5
case ${1:-} in
    "") ;;
    --clean) rm -rf "$output" ;;
    --help | -h) usage && exit 0 ;;
    *) echo "Unknown option $1." >&2 && usage >&2 && exit 2 ;;
esac

scripts/make_environment.sh "$environment"
python=$(cd "$environment" && pwd)/bin/python
export PYTHONWARNINGS=ignore
mkdir -p "$output"

# step NAME RESULT COMMAND...: run a command unless its result exists; progress is shown, all else goes to a log file.
step() {
    local name=$1 result=$2 log
    log="$output/${name// /_}.log"
    shift 2
    echo
    if [ -e "$result" ]; then
        echo "== $name: $result exists"
        return
    fi
    echo "== $name"
    printf '  '
    printf ' %q' "$@"
    echo
    if ! "$@" >"$log"; then
        tail -n 20 "$log" >&2
        echo "FAILED: $name. All of its output: $log" >&2
        exit 1
    fi
}

data=$output/data
masks=$output/masks
name=phantom_003
example=("$data/imagesTr/$name.nii.gz" "$data/labelsTr/$name.nii.gz")
command="$(dirname "$python")/monai-fewshot"
step "make ten phantom scans" "$data/dataset.json" "$command" phantom --output_dir "$data" --num_volumes 10
step "segment all of them after one annotated example" "$masks/index.html" \
    "$command" segment "$data/imagesTr" --example "${example[@]}" --output "$masks" --minutes "$minutes"
step "draw it" "$output/result.png" \
    "$python" scripts/draw_result.py --support_image "${example[0]}" --support_label "${example[1]}" \
    --image "$data/imagesTr/phantom_001.nii.gz" --label "$data/labelsTr/phantom_001.nii.gz" \
    --mask "$masks/phantom_001_seg.nii.gz" --output "$output/result.png"

echo
echo "The nine scans that were not the example, compared with the truth:"
"$python" scripts/compare_masks.py "$data" "$masks" "$name"
cat <<RESULT

All masks, with pictures: $masks/index.html
One of them, with truth:  $output/result.png
The network:              $masks/model
Your own scans:           README.md
RESULT
