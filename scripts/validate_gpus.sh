#!/usr/bin/env bash
# One resumable shard of calibration and cross-check on several GPUs of one host, for one link of NCCL's.
#
#   scripts/validate_gpus.sh RANKS LINK PLAN OUT [SECONDS]
#   scripts/validate_gpus.sh RANKS all PLANS OUT [SECONDS]
#
# The second does every link that has a plan in the folder PLANS (PLANS/*-LINK/draws-RANKS.json; channels-* use that of
# nvlink) in turn, its time shared out: a first call of 520 seconds has some of each, later calls go on.
#
# RANKS  GPUs in use (2, 4, 8); LINK  nvlink, channels-1, channels-2, channels-4, shm or socket
# PLAN   of `attnsim validate ... --plan-only` (docs/validation/plans); OUT  folder of records, runs and logs
# BACKEND=gloo runs the same on CPUs, as a rehearsal. NVLink multicast stays off, as the machine has it set.
set -u
ranks=$1 link=$2 plan=$3 out=$4 total=${5:-520}
backend=${BACKEND:-nccl}
if [ "$link" = all ]; then
  links=$(for each in nvlink channels-1 channels-2 channels-4 shm socket; do
    found=$(ls "$plan"/*-"${each/channels-*/nvlink}"/draws-"$ranks".json 2>/dev/null | head -n 1)
    [ -n "$found" ] && echo "$each=$found"
  done)
  [ -n "$links" ] || { echo "no plan of $ranks ranks in $plan" >&2; exit 2; }
  share=$((total / $(echo "$links" | wc -l)))
  for each in $links; do NETWORK_MINUTES=${NETWORK_MINUTES:-0.4} "$0" "$ranks" "${each%%=*}" "${each#*=}" "$out" "$share"; done
  exit 0
fi
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1
case $link in
  nvlink) ;;
  channels-*) export NCCL_MAX_NCHANNELS=${link#channels-} NCCL_MAX_CTAS=${link#channels-} ;;
  shm) export NCCL_P2P_DISABLE=1 ;;
  socket) export NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 ;;
  *) echo "unknown link $link" >&2; exit 2 ;;
esac
mkdir -p "$out"
start=$(date +%s)
run() { python3 -m torch.distributed.run --standalone --nproc-per-node "$1" "${@:2}"; }

# Collectives and hops at 2, 4, ... ranks by size; records are appended, so that a second call goes on.
for some in 2 4 8; do
  [ "$some" -le "$ranks" ] || continue
  run "$some" -m validators.bench.network --records "$out/network-$link.jsonl" --link "$link" \
    --minutes "${NETWORK_MINUTES:-1}" >>"$out/network.log" 2>&1
done
# Schedules and peers: checked, then timed in turn, then once with every operation timed.
left=$((total - ($(date +%s) - start)))
run "$ranks" -m validators.validation.worker --backend "$backend" --plan "$plan" --out "$out/runs-$link" \
  --seconds "$left" 2>&1 | tee -a "$out/runs.log" | tail -n 30
tar -C "$out" -czf "$out.tar.gz" .
