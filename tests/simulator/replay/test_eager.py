"""Eager parts: every kernel of a part is priced, on the GPU and on the host, and nothing else changes."""

import pytest

from cost_models.hardware import load_hardware
from cost_models.topology import load_topology
from simulator.costing import CostModel
from simulator.program.operations import Elementwise
from simulator.program.tape import Ignore
from simulator.replay.eager import KERNELS, EagerCosts
from simulator.request import SimulationRequest
from simulator.schedules import parse_schedule
from simulator.steps.record import subject_of


class Collect(Ignore):
    """All operations."""

    def __init__(self):
        self.operations = []

    def operation(self, operation):
        self.operations.append(operation)


def operations():
    """A layer's prefill on one GPU."""
    request = SimulationRequest(model="llama-3.1-8b", schedule="flash", gpus=1, seq_len=16384, layers="layer",
                                pass_="forward", topology="dgx-a100", hardware="a100-80")  # fmt: skip
    sink = Collect()
    subject_of(parse_schedule("flash"), request.resolve()).record(sink)
    return sink.operations


def test_passes_over_a_tensor():
    passes = {name: sum(map(sum, kernels)) for name, kernels in KERNELS.items()}
    assert passes == {"rms_norm": 18, "rope": 10, "swiglu": 5}


def test_eager_parts_take_their_passes_and_launches_and_the_rest_stays():
    costs = [kind(load_topology("dgx-a100", 1), load_hardware("a100-80"), "flash2") for kind in (CostModel, EagerCosts)]
    fused_passes, seen = {"rms_norm": 2, "rope": 2, "swiglu": 3}, set()
    for operation in operations():
        fused, eager = (each.device_ns(operation) for each in costs)
        fused_host, eager_host = (each.host_ns(operation) for each in costs)
        kernels = KERNELS.get(operation.kind)
        if kernels is None:
            assert (eager, eager_host) == (fused, fused_host)
            continue
        seen.add(operation.kind)
        assert isinstance(operation.work, Elementwise) and eager_host == len(kernels) * fused_host
        if operation.kind != "rms_norm":  # its fused kernel is a reduction, which has another rate
            assert eager / fused == pytest.approx(sum(map(sum, kernels)) / fused_passes[operation.kind], rel=0.15)
        assert eager > fused
    assert seen == set(KERNELS)
