"""Attention kernels: checked at the shape that is timed, then timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor

from cost_models.masks import KernelCall, Segment
from traces.errors import InputError
from traces.records import Value
from validators.bench.checks import Problem, check_backward, check_forward, failures
from validators.bench.plan import Case
from validators.bench.timing import Call, Timer
from validators.dense import row_dot
from validators.executors.local import AttentionKernel, SegmentsKernel
from validators.kernels import build_attention_kernel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
SUSTAINED_S = 1.0


class WrongResultError(Exception):
    """A kernel's result is past its tolerance."""

    def __init__(self, errors: dict[str, float]) -> None:
        self.errors = errors
        super().__init__(failures(errors))


@dataclass
class AttentionBench:
    """Prepares each attention problem once for all its cases."""

    timer: Timer
    seed: int = 0
    _kernels: dict[str, AttentionKernel] = field(default_factory=dict)
    _key: object = None
    _problem: Problem | None = None

    def run(self, case: Case) -> tuple[list[float], dict[str, float]]:
        """Samples in seconds, and the errors of the check; errors as of :meth:`prepare`."""
        call, errors = self.prepare(case)
        if case.kind == "sustained":
            return self.timer.measure_train([call], SUSTAINED_S), errors
        return self.timer.measure(call), errors

    def prepare(self, case: Case) -> tuple[Call, dict[str, float]]:
        """The call of a case, and the errors of its check.

        Raises
        ------
        WrongResultError
            Where the kernel computes something else; nothing is timed then.
        """
        kernel = self._kernel(str(case.parameters["kernel"]))
        problem, call = self._prepare(case), call_of(case.parameters)
        if case.parameters["direction"] == "forward":
            return self._forward(kernel, problem, call)
        return self._backward(kernel, problem, call, delta=bool(case.parameters.get("delta", False)))

    def forget(self) -> None:
        """Free the memory of the last problem."""
        self._key = self._problem = None

    def _forward(self, kernel: AttentionKernel, problem: Problem, call: KernelCall) -> tuple[Call, dict[str, float]]:
        forward = _functions(kernel, call)[0]
        problem.o, problem.lse = forward(problem.q, problem.k, problem.v, call)
        errors = _checked(check_forward(problem, problem.o, problem.lse, self.seed))
        return lambda: forward(problem.q, problem.k, problem.v, call), errors

    def _backward(
        self, kernel: AttentionKernel, problem: Problem, call: KernelCall, *, delta: bool
    ) -> tuple[Call, dict[str, float]]:
        forward, backward = _functions(kernel, call)
        if problem.o is None:
            problem.o, problem.lse = forward(problem.q, problem.k, problem.v, call)
            _checked(check_forward(problem, problem.o, problem.lse, self.seed))
        row = row_dot(problem.do.float(), problem.o.float()).contiguous() if delta else problem.o
        lse = cast(Tensor, problem.lse)

        def run() -> tuple[Tensor, Tensor, Tensor]:
            return backward(problem.q, problem.k, problem.v, problem.do, lse, row, call, delta=delta)

        return run, _checked(check_backward(problem, run(), self.seed))

    def _kernel(self, name: str) -> AttentionKernel:
        if name not in self._kernels:
            self._kernels[name] = build_attention_kernel(name)
        return self._kernels[name]

    def _prepare(self, case: Case) -> Problem:
        key = {name: value for name, value in case.parameters.items() if name not in ("direction", "delta")}
        if self._problem is None or self._key != key:
            self.forget()
            self._problem = draw_problem(case.parameters, self.seed, self.timer.device)
            self._key = key
        return self._problem


def draw_problem(parameters: Mapping[str, Value], seed: int, device: torch.device) -> Problem:
    """Fresh standard normal inputs of a case."""
    p = {name: cast(int, value) for name, value in parameters.items()}
    generator = torch.Generator(device).manual_seed(seed)
    dtype = DTYPES[str(parameters["dtype"])]
    shapes = [
        (p["rows"], p["heads"]),
        (p["columns"], p["kv_heads"]),
        (p["columns"], p["kv_heads"]),
        (p["rows"], p["heads"]),
    ]
    drawn = [
        torch.randn(p["batch"], tokens, heads, p["head_dim"], generator=generator, device=device, dtype=dtype)
        for tokens, heads in shapes
    ]
    return Problem(*drawn, left=p["left"], right=p["right"], documents=_documents(parameters))


def call_of(parameters: Mapping[str, Value]) -> KernelCall:
    """The launch that a case is about."""
    p = {name: cast(int, value) for name, value in parameters.items()}
    edges = [0, *accumulate(_documents(parameters))]
    segments = [Segment(start, stop, start, stop) for start, stop in pairwise(edges)]
    return KernelCall(tuple(segments) or (Segment(0, p["rows"], 0, p["columns"]),), p["left"], p["right"])


def _documents(parameters: Mapping[str, Value]) -> tuple[int, ...]:
    """Lengths of packed documents; none where there is one sequence."""
    return tuple(int(each) for each in str(parameters.get("documents", "")).split("+") if each)


def _functions(kernel: AttentionKernel, call: KernelCall) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward of one segment, or of several in one launch."""
    if len(call.segments) == 1:
        return kernel.forward, kernel.backward
    if not isinstance(kernel, SegmentsKernel):
        raise InputError("the kernel takes one segment a launch", got=f"{len(call.segments)} segments")
    return kernel.forward_segments, kernel.backward_segments


def _checked(errors: dict[str, float]) -> dict[str, float]:
    if failures(errors):
        raise WrongResultError(errors)
    return errors
