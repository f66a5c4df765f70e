#!/usr/bin/env bash
# On a machine with one GPU and 16 cores, in one call of a few minutes: loopback checks of every schedule with the GPU's
# kernels, single-rank timings over NCCL, and gloo processes (4 and 8) calibrated and measured on the other cores.
# Usage: scripts/validate_one_gpu.sh OUT_FOLDER [SECONDS]
set -u
out=$1; total=${2:-440}; mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning
host=${HOST_CORES:-0-11}; gpu=${GPU_CORES:-12-15}

gloo() {
  for ranks in 4 8; do
    taskset -c "$host" python3 -m validators.validation.host --folder "$out/gloo" --ranks $ranks --draws 24 --seed 11 \
      --rounds 3 --seconds $((total / 2))
  done
}
single() {
  taskset -c "$gpu" python3 -m validators.validation.loopback_check --out "$out/loopback.jsonl" \
    --kernels flash2 cudnn triton --seconds $((total * 55 / 100))
  taskset -c "$gpu" torchrun --standalone --nproc-per-node 1 -m validators.validation.worker --backend nccl \
    --plan docs/validation/plans/one-gpu.json --out "$out/one-gpu" --seconds $((total * 30 / 100)) --threads 2
  taskset -c "$gpu" python3 -m pytest -q -c /dev/null --rootdir "$PWD" --import-mode=importlib \
    -p no:cacheprovider tests/gpu/test_nccl.py
}
gloo >"$out/gloo.log" 2>&1 &
single >"$out/single.log" 2>&1
wait
tail -n 40 "$out/single.log"; tail -n 30 "$out/gloo.log"
tar -C "$out" -czf "$out/results.tar.gz" --exclude results.tar.gz .
