"""Record Kineto traces of real runs, a file per rank: ``python -m validators.record_trace FOLDER``, or under torchrun.

    python -m validators.record_trace out --workload kernels                          one process, CPU or GPU
    torchrun --nproc-per-node 2 -m validators.record_trace out --workload collectives   gloo on CPUs, NCCL on GPUs
    torchrun --nproc-per-node 2 -m validators.record_trace out --workload executor --schedule ring      our executor,
                                                                                      or a peer by our name for it
    torchrun --nproc-per-node 2 -m validators.record_trace out --workload context-parallel              PyTorch's

Ranks share a GPU where NCCL 2.30 is told to let them (NCCL_MULTI_RANK_GPU_ENABLE=1), or with ``--backend gloo``.

Each step does the same work; the first ones warm up, the last ``--steps`` are recorded by PyTorch's profiler with
input shapes and, on GPUs, with events for synchronisation (CUPTI), so that who waits for whom is known. Files are named
``rank0.json.gz`` and so on, as :mod:`traces.kineto` reads them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from validators.executors.world import BACKENDS, own_gpu
from validators.trace_workloads import WORKLOADS, Case

WARM_UP_STEPS = 2


def record(folder: Path, case: Case, workload: str, steps: int) -> Path:
    """Run a workload and write this rank's trace.

    Parameters
    ----------
    folder : where ``rankR.json.gz`` goes; made if missing.
    case : device, sizes and this process's rank.
    workload : a key of :data:`WORKLOADS`.
    steps : steps to record, after two of warming up.
    """
    return record_step(folder, case, WORKLOADS[workload](case), steps)


def record_step(folder: Path, case: Case, step: Callable[[], object], steps: int) -> Path:
    """Record calls of a function, likewise."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if case.device.type == "cuda" else [])
    plan = schedule(wait=0, warmup=WARM_UP_STEPS, active=steps, repeat=1)
    with profile(
        activities=activities, schedule=plan, record_shapes=True, experimental_config=_sync_events(case.device)
    ) as profiler:
        for _ in range(WARM_UP_STEPS + steps):
            _synchronised(step, case)
            profiler.step()
    return _write(profiler, folder / f"rank{case.rank}.json.gz")


def _synchronised(step: Callable[[], object], case: Case) -> None:
    """One step; all its work is done at its end, as after reading a loss."""
    with record_function("step"):
        step()
        if case.device.type == "cuda":
            torch.cuda.synchronize()


def _sync_events(device: torch.device) -> torch._C._profiler._ExperimentalConfig:
    """On GPUs events of synchronisation; on CPUs all threads, as communication has its own."""
    on_gpu = device.type == "cuda"
    return torch._C._profiler._ExperimentalConfig(enable_cuda_sync_events=on_gpu, profile_all_threads=not on_gpu)


def _write(profiler: profile, path: Path) -> Path:
    """Under another name until it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        written = Path(temporary) / path.name
        profiler.export_chrome_trace(str(written))
        shutil.move(written, path)
    return path


def main() -> None:
    """Parse options, set up the process group where torchrun started several processes, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for the traces")
    parser.add_argument("--workload", choices=[*sorted(WORKLOADS), "executor"], default="kernels")
    parser.add_argument("--steps", type=int, default=2, help="steps to record (2)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", choices=BACKENDS, help="of communication (NCCL on GPUs, gloo on CPUs)")
    parser.add_argument("--seq-len", type=int, default=4096, help="tokens per rank (4096)")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--schedule", default="ring", help="of --workload executor (ring)")
    parser.add_argument("--pass", dest="pass_", default="both", help="of --workload executor: forward, backward, both")
    parser.add_argument("--mask", default="causal", help="of --workload executor (causal)")
    parser.add_argument("--kernel", help="attention kernel of --workload executor")
    options = parser.parse_args()
    if options.workload == "executor":
        _record_executor(options)
        return
    device = own_gpu(options.backend or "nccl") if options.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(options.backend or ("nccl" if device.type == "cuda" else "gloo"))
    rank, world_size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    case = Case(device, rank, world_size, options.seq_len, options.heads, options.head_dim)
    try:
        print(record(options.folder, case, options.workload, options.steps))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _record_executor(options: argparse.Namespace) -> None:
    from validators.annotated import prepare_call
    from validators.executors.world import World

    world = World("nccl" if options.device == "cuda" else "gloo")
    call = prepare_call(
        world, options.schedule, options.seq_len * world.size, options.heads, options.head_dim, options.pass_,
        options.mask, options.kernel,
    )  # fmt: skip
    case = Case(world.device, world.rank, world.size, options.seq_len, options.heads, options.head_dim)
    print(record_step(options.folder, case, call, options.steps))
    world.leave()


if __name__ == "__main__":
    main()
