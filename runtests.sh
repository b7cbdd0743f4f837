#!/usr/bin/env bash
# Copyright (c) monai_fewshot contributors
# SPDX-License-Identifier: Apache-2.0

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<'HELP'
Check the project in an environment of its own, with the tested versions of all packages.

usage: ./runtests.sh [--clean] [--dtype TYPE] [--lint] [--types] [--docs] [--quick] [--precision]
                     [--benchmark] [--tutorials] [--unit [PYTEST ARGUMENT ...]]

With none of the parts named, all of them run: lint, types, documentation, unit tests, those in
the other precision, the benchmark on phantoms and tutorials.

  --lint         ruff: rules and format
  --types        mypy
  --docs         build the documentation, docs/_build/index.html; a warning is an error
  --unit ...     unit tests and the examples in docstrings; what follows goes to pytest,
                 for example: ./runtests.sh --unit tests/data -k folds
  --quick        unit tests and examples, without those marked as slow
  --precision    the unit tests whose outcome can depend on the default precision, in the
                 other one: in bfloat16 where float32 is the default, and the reverse
  --benchmark    the whole benchmark on phantoms, at toy budget
  --tutorials    execute the notebooks
  --dtype TYPE   float32 or bfloat16: the default precision of all parts, which otherwise
                 is that of the device; bfloat16 works on every CPU, but is slow on most
  --clean        make the environment anew
  --help         this text

Environment variables:
  MONAI_FEWSHOT_VENV     folder of the environment (default .venv-tests)
  PYTHON                 the Python to make it from, 3.10 or later (default python3)
  MONAI_FEWSHOT_DTYPE    the same as --dtype
  MONAI_FEWSHOT_DATA     folder of real scans; tests that need them are skipped without
  MONAI_FEWSHOT_GOLDEN   folder of reference arrays; likewise
HELP
}

environment=${MONAI_FEWSHOT_VENV:-.venv-tests}
clean=false
parts=()
unit_arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --clean) clean=true ;;
        --lint | --types | --docs | --quick | --precision | --benchmark | --tutorials) parts+=("${1#--}") ;;
        --dtype)
            case ${2:-} in
                float32 | bfloat16) export MONAI_FEWSHOT_DTYPE=$2 ;;
                *) echo "--dtype is ${2:-missing}: use float32 or bfloat16." >&2 && exit 2 ;;
            esac
            shift
            ;;
        --unit)
            parts+=(unit)
            shift
            unit_arguments=("$@")
            break
            ;;
        *)
            echo "Unknown option $1." >&2
            usage >&2
            exit 2
            ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(lint types docs unit precision benchmark tutorials)

if $clean; then rm -rf "$environment"; fi
scripts/make_environment.sh "$environment" all,dev,docs
python="$environment/bin/python"
benchmark=tests/apps/benchmark/test_phantom_benchmark.py
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

lint() {
    "$python" -m ruff check . && "$python" -m ruff format --check . &&
        "$python" -m codespell_lib ./*.md benchmarks bundles docs monai_fewshot scripts
}
types() { "$python" -m mypy; }
docs() { "$python" -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -c docs . docs/_build; }
run_pytest() { "$python" -m pytest --durations 5 "$@"; }
run_units() { run_pytest -n 2 --dist loadfile --ignore tests/tutorials --ignore "$benchmark" "$@" monai_fewshot tests; }
quick() { run_units -m "not slow"; }
precision() {
    local other
    other=$("$python" -c 'from monai_fewshot.utils import default_dtype
print({"torch.float32": "bfloat16", "torch.bfloat16": "float32"}[str(default_dtype("cpu"))])') || return
    echo "default precision: $other"
    MONAI_FEWSHOT_DTYPE=$other run_units -m default_dtype
}
benchmark() { run_pytest "$benchmark"; }
tutorials() { run_pytest -n 2 tests/tutorials; }
unit() {
    if [ ${#unit_arguments[@]} -gt 0 ]; then
        run_pytest "${unit_arguments[@]}"
    else
        run_units
    fi
}

# What takes one processor runs at the same time, each part with its own output.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for part in "${parts[@]}"; do
    case $part in lint | types | docs) "$part" >"$logs/$part" 2>&1 & echo $! >"$logs/$part.pid" ;; esac
done
failed=()
for part in "${parts[@]}"; do
    echo "== $part =="
    if [ -f "$logs/$part.pid" ]; then
        wait "$(cat "$logs/$part.pid")" || failed+=("$part")
        cat "$logs/$part"
    else
        "$part" || failed+=("$part")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "PASSED: ${parts[*]}"
