"""Read one rank's trace file: what its device did, who launched it, and what the host waited for.

Rows are the device's work (kernels, copies, memsets), or, where a trace has none, the outermost operators of the CPU's
threads and the communication of gloo's. Everything kept is a number in an array or one of few names, so that a file of
hundreds of megabytes needs tens.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from traces.errors import InputError
from traces.kineto.annotations import ANNOTATION_PREFIX, name_annotated
from traces.kineto.arguments import MAX_NS, arguments, bytes_sent, own_kind, peers, span_ns, tensor_bytes
from traces.kineto.classify import Kind, classify_collective, classify_kernel, classify_operator, is_communication
from traces.kineto.facts import Columns, Label, Peers, RankTrace, Sync, Wait, Window
from traces.kineto.stream import Event, EventStream

STEP = re.compile(r"^(?:ProfilerStep|Iteration)#(\d+)$")
PHASES = ("forward", "backward", "optimizer")
LAUNCH = re.compile(r"[lL]aunch|Memcpy|Memset")

classify_kernel_cached = lru_cache(maxsize=None)(classify_kernel)
classify_operator_cached = lru_cache(maxsize=None)(classify_operator)


def read_rank(path: str | os.PathLike[str]) -> RankTrace:
    """Read one file.

    Raises
    ------
    InputError
        Where the file is no trace, is truncated, or holds nothing that ran.
    """
    stream = EventStream(path)
    reader = _Reader(Path(path))
    for event in stream:
        reader.take(event)
    return reader.finish(stream.header)


class _Reader:
    """Sorts events by what they are."""

    def __init__(self, path: Path) -> None:
        self._trace = RankTrace(path)
        self._labels: dict[Label, int] = {}
        self._lanes: dict[tuple[str, object, object], int] = {}
        self._thread_names: dict[tuple[object, object], str] = {}
        self._operators = Columns()
        self._stream_of_sync: dict[int, int] = {}
        self._waits: list[tuple[int, int, int, int]] = []
        self._event_calls: dict[int, int] = {}
        self._sync_calls: list[tuple[int, int, int]] = []
        self._around: list[tuple[int, int, int, str]] = []
        self._takers: Mapping[str, Callable[[Event], None]] = {
            "kernel": self._kernel,
            "gpu_memcpy": self._kernel,
            "gpu_memset": self._kernel,
            "cpu_op": self._operator,
            "user_annotation": self._annotation,
            "gpu_user_annotation": self._device_annotation,
            "cuda_runtime": self._call,
            "cuda_driver": self._call,
            "cuda_sync": self._sync,
        }

    def take(self, event: Event) -> None:
        """One event."""
        try:
            self._sort(event)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"cannot read trace {self._trace.path}: event {str(event.get('name'))[:60]!r} is malformed", got=error
            ) from error

    def _sort(self, event: Event) -> None:
        phase = event.get("ph")
        if phase == "X":
            category = str(event.get("cat", "")).lower()
            taker = self._takers.get(category)
            if taker is None:
                self._trace.skipped[category] = self._trace.skipped.get(category, 0) + 1
            else:
                taker(event)
        elif phase == "M" and event.get("name") == "thread_name":
            self._thread_names[event.get("pid"), event.get("tid")] = str(arguments(event).get("name", "")).strip()

    def finish(self, header: Mapping[str, Any]) -> RankTrace:
        """Everything together, on the header's clock."""
        trace = self._trace
        self._say_rank(header)
        trace.on_device = len(trace.rows) > 0
        if not trace.on_device:
            self._keep_outermost()
        if not len(trace.rows):
            raise InputError(
                f"trace {trace.path} holds no kernels and no operators", got=_found(trace.skipped),
                expected="a PyTorch profile of CPU or CUDA activities",
            )  # fmt: skip
        self._name_exchanges()
        self._labels = name_annotated(trace, self._labels)
        self._name_lanes()
        for start_ns, end_ns, correlation in self._sync_calls:
            trace.syncs.append(Sync(start_ns, end_ns, self._stream_of_sync.get(correlation, -1)))
        called = trace.launches.find(np.array([wait[3] for wait in self._waits], dtype=np.int64))[1].tolist()
        for (host_ns, stream, source, call), launched_ns in zip(self._waits, called, strict=True):
            trace.waits.append(Wait(host_ns, stream, source, self._event_calls.get(call, launched_ns)))
        trace.labels = list(self._labels)
        trace.shift(self._base_ns(header))
        return trace

    # -- events ------------------------------------------------------------------------------------------------------

    def _kernel(self, event: Event) -> None:
        args, name = arguments(event), str(event["name"])
        start_ns, end_ns = span_ns(event)
        if event["cat"] == "kernel":
            collective = str(args.get("Collective name", ""))
            kind = own_kind(args) or classify_kernel_cached(name, collective)
        else:
            kind = own_kind(args) or Kind("copy", "memset" if event["cat"] == "gpu_memset" else "memcpy")
        group, phase, step = str(args.get("Process Group Name", "")), str(args.get("phase", "")), args.get("step", -1)
        label = Label(name, kind, group, phase, int(step), peers(args) if kind.category == "communication" else Peers())
        stream = int(args["stream"] if "stream" in args else event["tid"])
        lane = self._lane("stream", event.get("pid"), event.get("tid"))
        self._trace.stream_lanes.setdefault(stream, lane)
        sent = int(args["bytes"]) if kind.category == "communication" and "bytes" in args else bytes_sent(kind, args)
        self._trace.rows.append(
            start_ns, end_ns, lane, self._label(label), sent, int(args.get("correlation", -1)),
            int(args.get("operation", -1)),
        )  # fmt: skip

    def _operator(self, event: Event) -> None:
        name, args = str(event["name"]), arguments(event)
        own = own_kind(args)
        if own is not None:
            lane = self._lane("stream", event.get("pid"), event.get("tid"))
            label = Label(name, own, "", str(args.get("phase", "")), int(args.get("step", -1)))
            self._trace.rows.append(
                *span_ns(event), lane, self._label(label), int(args.get("bytes", 0)), -1, int(args.get("operation", -1))
            )
            return
        lane = self._lane("thread", event.get("pid"), event.get("tid"))
        label = Label(name, classify_operator_cached(name))
        self._operators.append(*span_ns(event), lane, self._label(label), 0, -1, -1)

    def _annotation(self, event: Event) -> None:
        name = str(event["name"])
        start_ns, end_ns = span_ns(event)
        step = STEP.match(name)
        if step:
            self._trace.windows.append(Window(step.group(1), start_ns, end_ns))
        elif name.startswith(ANNOTATION_PREFIX):
            self._trace.operations.append(Window(name, start_ns, end_ns))
        elif name in PHASES:
            self._trace.phases.append(Window(name, start_ns, end_ns))
        elif name.startswith("gloo:"):
            kind = classify_collective(name)
            label = Label(name, kind, "gloo")
            thread, lane = self._lane("thread", event.get("pid"), event.get("tid")), self._lane("gloo", None, None)
            sent = tensor_bytes(arguments(event))
            self._operators.append(start_ns, end_ns, lane, self._label(label), sent, thread, -1)

    def _device_annotation(self, event: Event) -> None:
        if is_communication(str(event["name"])):
            args = arguments(event)
            stream = int(args["stream"] if "stream" in args else event["tid"])
            self._around.append((*span_ns(event), stream, str(event["name"])))

    def _call(self, event: Event) -> None:
        purpose, correlation = purpose_of_call(str(event["name"])), int(arguments(event).get("correlation", -1))
        if purpose == "launch" and correlation >= 0:
            self._trace.launches.add(correlation, span_ns(event))
        elif purpose == "synchronise":
            self._sync_calls.append((*span_ns(event), correlation))
        elif purpose == "record":
            self._event_calls[correlation] = span_ns(event)[1]

    def _sync(self, event: Event) -> None:
        args = arguments(event)
        stream, correlation = int(args.get("stream", -1)), int(args.get("correlation", -1))
        if "Wait" in str(event["name"]):
            source, event_call = (int(args.get(f"wait_on_{of}", -1)) for of in ("stream", "cuda_event_record_corr_id"))
            self._waits.append((span_ns(event)[0], stream, source, event_call))
        else:
            self._stream_of_sync[correlation] = stream

    # -- afterwards --------------------------------------------------------------------------------------------------

    def _base_ns(self, header: Mapping[str, Any]) -> int:
        base_ns = header.get("baseTimeNanoseconds", 0)
        if type(base_ns) is not int or not 0 <= base_ns <= MAX_NS:
            raise InputError(
                f"cannot read trace {self._trace.path}: baseTimeNanoseconds", got=repr(base_ns)[:40], expected="a time"
            )
        return base_ns

    def _say_rank(self, header: Mapping[str, Any]) -> None:
        info = header.get("distributedInfo")
        if isinstance(info, dict) and type(info.get("rank")) is int:
            self._trace.rank = info["rank"]
            world_size = info.get("world_size")
            self._trace.world_size = world_size if type(world_size) is int else 1
        self._trace.host_name = str(header.get("host_name", ""))
        self._trace.simulated = "provenance" in header

    def _keep_outermost(self) -> None:
        """Operators that nothing else of their thread contains; communication, whose thread is in ``correlation``."""
        rows, kept = self._operators, self._trace.rows
        labels = list(self._labels)
        reach: dict[int, int] = {}
        for i in sorted(range(len(rows)), key=lambda i: (rows["start_ns"][i], -rows["end_ns"][i])):
            lane, end_ns, kind = rows["lane"][i], rows["end_ns"][i], labels[rows["label"][i]].kind
            thread = rows["correlation"][i] if kind.category == "communication" else lane
            contained = end_ns <= reach.get(thread, -1)
            if kind.kind != "exchange":
                reach[thread] = max(end_ns, reach.get(thread, -1))
            if not contained or kind.category == "communication":
                kept.append(rows["start_ns"][i], end_ns, lane, rows["label"][i], rows["bytes"][i], -1, -1)

    def _name_exchanges(self) -> None:
        """Communication kernels without arguments are what the annotation around them on their stream says."""
        rows, labels = self._trace.rows, list(self._labels)
        streams = {lane: stream for stream, lane in self._trace.stream_lanes.items()}
        around: dict[int, list[tuple[int, int, str]]] = {}
        if not self._around:
            return
        for start_ns, end_ns, stream, name in sorted(self._around):
            around.setdefault(stream, []).append((start_ns, end_ns, name))
        for i in range(len(rows)):
            label = labels[rows["label"][i]]
            if label.kind != ("communication", "exchange"):
                continue
            name = _containing(around.get(streams.get(rows["lane"][i], -1), []), rows["start_ns"][i])
            if name:
                rows["label"][i] = self._label(label._replace(kind=classify_collective(label.name, name)))

    def _name_lanes(self) -> None:
        """Streams as the file names them; threads by the order in which they appear, as their numbers are chance."""
        used = set(self._trace.rows["lane"])
        threads = 0
        for number, (kind, process, thread) in enumerate(self._lanes):
            threads += kind == "thread" and number in used
            name = {"stream": f"stream {thread}", "thread": f"cpu {threads}"}.get(kind, kind)
            if kind == "stream":
                name = self._thread_names.get((process, thread)) or name
            self._trace.lanes.append(name)

    def _label(self, label: Label) -> int:
        return self._labels.setdefault(label, len(self._labels))

    def _lane(self, kind: str, process: object, thread: object) -> int:
        return self._lanes.setdefault((kind, process, thread), len(self._lanes))


def _found(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} events of category {name or 'none'}" for name, count in skipped.items()) or "no events"


@cache
def purpose_of_call(name: str) -> str:
    """What a call of the CUDA runtime or driver is for: launch, synchronise, record (an event), or other."""
    if "Synchronize" in name:
        return "synchronise"
    if "EventRecord" in name:
        return "record"
    return "launch" if LAUNCH.search(name) else "other"


def _containing(around: Sequence[tuple[int, int, str]], time_ns: int) -> str:
    """Name of the annotation, of those in order of their starts, that contains a time."""
    at = bisect_right(around, time_ns, key=lambda each: each[0]) - 1
    return around[at][2] if at >= 0 and time_ns < around[at][1] else ""
