#!/usr/bin/env bash
# On one GPU, in one call of a few minutes: training steps and layers checked against autograd, timed, and their memory
# taken; then microbenchmarks of layers' operations; then the fused kernels' tests. Each part resumes and has its time.
#
#   scripts/validate_layers.sh OUT [SECONDS]
#
# PLAN   of `attnsim validate FOLDER --steps --plan-only` (docs/validation/plans/one-gpu-steps.json)
# BACKEND=gloo with a plan of small steps for kernel cpu rehearses it without a GPU.
set -u
out=$1; total=${2:-340}; mkdir -p "$out"
plan=${PLAN:-docs/validation/plans/one-gpu-steps.json}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning
start=$(date +%s)
left() { echo $((total - ($(date +%s) - start))); }

timeout $((total * 75 / 100)) python3 -m torch.distributed.run --standalone --nproc-per-node 1 -m validators.validation.worker \
  --backend "${BACKEND:-nccl}" --plan "$plan" --out "$out/steps" --seconds $((total * 60 / 100)) \
  >"$out/steps.log" 2>&1
tail -n 60 "$out/steps.log"
timeout "$(left)" python3 -m validators.bench --only layers --records "$out/layers.jsonl" \
  --minutes "$(awk "BEGIN {print ($(left) - 40) / 60}")" >"$out/layers.log" 2>&1
tail -n 3 "$out/layers.log"
timeout "$(left)" python3 -m pytest -q -c /dev/null --rootdir "$PWD" --import-mode=importlib -p no:cacheprovider \
  tests/validators/kernels/test_pointwise.py >"$out/tests.log" 2>&1
tail -n 5 "$out/tests.log"
tar -C "$out" -czf "$out/steps.tar.gz" steps layers.jsonl steps.log layers.log tests.log
