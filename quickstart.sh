#!/usr/bin/env bash
# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'HELP'
Train SSL-ALPNet on scans without annotations, evaluate it, and segment a scan from one annotated one; all on phantom
scans that are made on the spot. Takes about four minutes on two CPU cores once the environment is made.

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
epochs=6
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
support=(--support_image "$data/imagesTr/phantom_003.nii.gz" --support_label "$data/labelsTr/phantom_003.nii.gz")
step "make ten phantom scans" "$data/dataset.json" \
    "$python" -m monai_fewshot.apps.phantom --output_dir "$data" --num_volumes 10

cd bundles/ssl_alpnet
bundle=("$python" -m monai.bundle run --dataset_dir "$data")
# The network's own decisions, with nothing done to its masks, show best what training does.
bare=(--keep_largest False --threshold 0.0)
train=("${bundle[@]}" --config_file configs/train.json --fold 0 --resume True
    --cache_dir "$output/pseudo_labels" --pseudo_labels::min_size 100)
step "make an untrained network" "$output/untrained/model.pt" \
    "${train[@]}" --ckpt_dir "$output/untrained" --max_epochs 1 --epoch_length 1 --optimizer::lr 0
step "evaluate the untrained network" "$output/untrained/report.html" \
    "${bundle[@]}" --config_file configs/evaluate.json --fold 0 --checkpoint "$output/untrained/model.pt" "${bare[@]}" \
    --output_dir "$output/untrained"
step "train without annotations" "$output/model/checkpoint_epoch=$epochs.pt" \
    "${train[@]}" --ckpt_dir "$output/model" \
    --epoch_length 50 --max_epochs "$epochs" --val_interval "$epochs" --num_val_episodes 40
step "evaluate the trained network" "$output/trained/report.html" \
    "${bundle[@]}" --config_file configs/evaluate.json --fold 0 --checkpoint "$output/model/model.pt" "${bare[@]}" \
    --output_dir "$output/trained"
step "segment a scan after one annotated scan" "$output/masks/phantom_001_seg.nii.gz" \
    "$python" -m monai.bundle run --config_file configs/inference.json --dataset_dir "$data/imagesTr/phantom_001.nii.gz" \
    "${support[@]}" --checkpoint "$output/model/model.pt" --output_dir "$output/masks"
cd "$root"
step "draw it" "$output/result.png" \
    "$python" scripts/draw_result.py "${support[@]}" --image "$data/imagesTr/phantom_001.nii.gz" \
    --label "$data/labelsTr/phantom_001.nii.gz" --mask "$output/masks/phantom_001_seg.nii.gz" --output "$output/result.png"

echo
"$python" scripts/show_dice.py untrained "$output/untrained/results.json" trained "$output/trained/results.json"
cat <<RESULT

The picture:            $output/result.png
The report:             $output/trained/report.html
Before training:        $output/untrained/report.html
The mask:               $output/masks/phantom_001_seg.nii.gz
The network:            $output/model/model.pt
TensorBoard:            $environment/bin/tensorboard --logdir $output/model/logs
Your own scans:         README.md
RESULT
