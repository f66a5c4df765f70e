#!/usr/bin/env bash
# One resumable shard of calibration and cross-check on several GPUs of one host, for one or every link of NCCL's.
#
#   scripts/validate_gpus.sh RANKS LINK PLAN OUT [SECONDS]
#   scripts/validate_gpus.sh RANKS all PLANS OUT [SECONDS]
#
# The second does every link that has a plan in the folder PLANS (PLANS/*-LINK/draws-RANKS.json; channels-* use that of
# nvlink) in turn, its time shared out: a first call of 520 seconds has some of each, later calls go on.
#
# RANKS  GPUs in use (2, 4, 8); LINK  nvlink, channels-1, channels-2, channels-4, shm or socket; steps: training steps,
#        by what links there are
# PLAN   of `attnsim validate ... --plan-only` (docs/validation/plans)
# OUT    gets results.tar.gz, written anew all the time. A later call on another machine gets it unpacked as RESUME=FOLDER.
#
# Peers need their packages (ring-flash-attn, yunchang) on PYTHONPATH. BACKEND=gloo runs the same on CPUs, as a rehearsal;
# ranks that share one GPU need NCCL 2.30 and NCCL_MULTI_RANK_GPU_ENABLE=1. NVLink multicast stays off, as it is set.
set -u
ranks=$1 link=$2 plan=$3 out=$4 total=${5:-520}
export WORK=${WORK:-/tmp/validation-gpus} backend=${BACKEND:-nccl} start=$(date +%s)
mkdir -p "$WORK" "$out"
[ -d "${RESUME:-}" ] && cp -rn "$RESUME/." "$WORK"
unset RESUME
left() { echo $((total - ($(date +%s) - start))); }
save() { tar -C "$WORK" -czf "$out/.results" . 2>/dev/null; mv "$out/.results" "$out/results.tar.gz"; }

if [ "$link" = all ]; then
  links=$(for each in nvlink channels-1 channels-2 channels-4 shm socket steps; do
    found=$(ls "$plan"/*-"${each/channels-*/nvlink}"/draws-"$ranks".json 2>/dev/null | head -n 1)
    [ -n "$found" ] && echo "$each=$found"
  done)
  [ -n "$links" ] || { echo "no plan of $ranks ranks in $plan" >&2; exit 2; }
  todo=$(echo "$links" | wc -l)
  for each in $links; do
    NETWORK_MINUTES=${NETWORK_MINUTES:-0.4} "$0" "$ranks" "${each%%=*}" "${each#*=}" "$out" "$(($(left) / todo))"
    todo=$((todo - 1))
  done
  exit 0
fi

export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning
export NCCL_NVLS_ENABLE=0 TORCH_SYMM_MEM_DISABLE_MULTICAST=1
case $link in
  nvlink | steps) ;;
  channels-*) export NCCL_MAX_NCHANNELS=${link#channels-} NCCL_MAX_CTAS=${link#channels-} ;;
  shm) export NCCL_P2P_DISABLE=1 ;;
  socket) export NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 ;;
  *) echo "unknown link $link" >&2; exit 2 ;;
esac
run() { timeout -k 5 "$(($(left) + 45))" python3 -m torch.distributed.run --standalone --nproc-per-node "$1" "${@:2}"; }
while sleep 15; do save; done & saver=$!
trap 'kill $saver' EXIT

# Collectives and hops at 2, 4, ... ranks by size; records are appended, so that a second call goes on.
for some in 2 4 8; do
  log=$WORK/network-$link-$some.log
  { [ "$link" = steps ] || [ "$some" -gt "$ranks" ] || grep -qs " 0 left" "$log"; } && continue
  NCCL_TOPO_DUMP_FILE=$WORK/topology-$link-$some.xml NCCL_GRAPH_DUMP_FILE=$WORK/graph-$link-$some.xml \
    run "$some" -m validators.bench.network --records "$WORK/network-$link.jsonl" --link "$link" \
    --minutes "${NETWORK_MINUTES:-1}" --largest "${NETWORK_LARGEST:-30}" >>"$log" 2>&1
  tail -n 1 "$log"
done
# Schedules and peers: checked, then timed in turn, then with every operation timed. Where the processes end, they are
# started again, without what ended them.
for attempt in 1 2 3 4 5; do
  run "$ranks" -m validators.validation.worker --backend "$backend" --plan "$plan" --out "$WORK/runs-$link" \
    --seconds "$(left)" >>"$WORK/runs-$link.log" 2>&1 && break
  [ "$(left)" -gt 30 ] || break
done
grep -v Warning "$WORK/runs-$link.log" | tail -n 8
save
