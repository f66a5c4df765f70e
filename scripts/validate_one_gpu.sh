#!/usr/bin/env bash
# On a machine with one GPU and 16 cores, in calls of a few minutes, in parts:
#
#   scripts/validate_one_gpu.sh OUT SECONDS PART...
#
# tests     kernels and the executor over NCCL (tests/gpu)          kernels   microbenchmarks that a fit needs
# loopback  every schedule with the GPU's kernels (KERNELS, SCHEDULES)   single    runs of one rank, PLANS=...
# memory    whether runs fit that are about as large as memory   issued    what the host needs to issue operations
# large     attention kernels above 2^31 elements
# gloo      gloo processes (4 and 8) calibrated and measured, on HOST_CORES, beside the parts after it
#
# PART:SECONDS gives a part so many seconds at most, and single:SECONDS:NAME measures docs/validation/plans/NAME.json.
#
# OUT/results.tar.gz is written anew all the time, so that a call that is cut off loses little. What is in OUT/work (the
# unpacked results of an earlier call) is not measured again. SEED of the gloo draws; each part ends in time by itself.
set -u
out=$1 total=$2; shift 2
work=${WORK:-/tmp/validation}; mkdir -p "$out" "$work"
[ -d "$out/work" ] && cp -r "$out/work/." "$work"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning
host=${HOST_CORES:-0-11} gpu=${GPU_CORES:-12-15} begun=$(date +%s)
left() {  # seconds of the call, or of the part that runs
  all=$((total - ($(date +%s) - begun))); own=$((${until:-0} - $(date +%s)))
  [ -n "${until:-}" ] && [ $own -lt $all ] && echo $own || echo $all
}
save() { tar -C "$work" -czf "$out/.results" . 2>/dev/null; mv "$out/.results" "$out/results.tar.gz"; }
on_gpu() { taskset -c "$gpu" "$@"; }

tests() {
  on_gpu timeout ${TEST_SECONDS:-100} python3 -m pytest -q -c /dev/null --rootdir "$PWD" --import-mode=importlib -p no:cacheprovider \
    --maxfail 8 tests/gpu/test_kernels.py tests/gpu/test_nccl.py -k "not flex" 2>&1 | tail -n 30
}
loopback() {
  on_gpu python3 -m validators.validation.loopback_check --out "$work/loopback.jsonl" \
    --kernels ${KERNELS:-flash2 cudnn triton} ${SCHEDULES:+--schedules $SCHEDULES} --seconds "$(($(left) * ${LOOPBACK_SHARE:-50} / 100))"
}
kernels() {
  on_gpu python3 -m validators.bench --records "$work/kernels.jsonl" --minutes "$(echo "$(left)" | awk '{print ($1 - 5) / 60}')" \
    >>"$work/kernels.log" 2>&1
  tail -n 3 "$work/kernels.log"
}
single() {
  for plan in ${PLANS:-docs/validation/plans/one-gpu-22.json}; do
    on_gpu torchrun --standalone --nproc-per-node 1 -m validators.validation.worker --backend nccl --plan "$plan" \
      --out "$work/$(basename "$plan" .json)" --seconds "$(($(left) * ${SINGLE_SHARE:-50} / 100))" --threads 2 --memory-share "${MEMORY_SHARE:-1}"
  done
}
issued() {
  on_gpu timeout "$(left)" torchrun --standalone --nproc-per-node 1 -m validators.bench.issued --records "$work/issued.jsonl" \
    --minutes "$(left | awk '{print $1 * 0.8 / 60}')"
}
large() { on_gpu python3 -m validators.kernels.large_check --out "$work/large.jsonl" --seconds "$(left)"; }
memory() { PLANS=docs/validation/plans/one-gpu-memory.json MEMORY_SHARE=0.2 single; }
gloo() {
  each=$(($(left) / 2 - 5))
  for ranks in 4 8; do
    taskset -c "$host" python3 -m validators.validation.host --folder "$work/gloo" --ranks $ranks --draws "${DRAWS:-24}" \
      --seed "${SEED:-11}" --rounds 5 --seconds $each
  done
}

while sleep 15; do save; done & saver=$!
beside=
for argument in "$@"; do
  IFS=: read -r part seconds plan <<<"$argument"
  until=${seconds:+$(($(date +%s) + seconds))}
  [ -n "$plan" ] && PLANS=docs/validation/plans/$plan.json SINGLE_SHARE=95
  if [ "$part" = gloo ]; then gloo >"$work/gloo.log" 2>&1 & beside=$!
  else "$part" 2>&1 | tee -a "$work/$part.log" | tail -n 40; fi
done
[ -n "$beside" ] && wait "$beside" && tail -n 20 "$work/gloo.log"
kill $saver; save
