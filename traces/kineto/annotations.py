"""Annotations by which our executor says, on the host, which operation of its Program it is issuing.

    attnsim#NUMBER CATEGORY/KIND PHASE STEP        as `validators.annotated` makes them

A row belongs to the operation during whose annotation the host issued it, among those of its category: computation may
be issued by one thread while another waits for communication. Its kind, phase and step are then the Program's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from traces.kineto.classify import Kind
from traces.kineto.facts import Label, RankTrace
from traces.kineto.matching import Lookup

ANNOTATION_PREFIX = "attnsim#"
SIDES = ("compute", "communication")
ANNOTATION = re.compile(r"attnsim#(\d+) (compute|communication)/([^\s/]+) ([^\s/]+) (\d+)")


class Named(NamedTuple):
    """What an annotation says."""

    operation: int
    category: str
    kind: str
    phase: str
    step: int


def annotation(named: Named) -> str:
    """The text of an annotation.

    >>> annotation(Named(12, "compute", "merge", "forward", 3))
    'attnsim#12 compute/merge forward 3'
    """
    return f"{ANNOTATION_PREFIX}{named.operation} {named.category}/{named.kind} {named.phase} {named.step}"


def parse_annotation(text: str) -> Named | None:
    """What an annotation says; None where it is not one of ours."""
    match = ANNOTATION.fullmatch(text)
    if match is None:
        return None
    number, category, kind, phase, step = match.groups()
    return Named(int(number), category, kind, phase, int(step))


def name_annotated(trace: RankTrace, labels: dict[Label, int]) -> dict[Label, int]:
    """Give annotated rows their operation's number, kind, phase and step; returns the labels, with new ones."""
    named = [(window, said) for window in trace.operations if (said := parse_annotation(window.name)) is not None]
    if not named:
        return labels
    rows, known = trace.rows, list(labels)
    lookups = {category: Lookup([w for w, said in named if said.category == category]) for category in SIDES}
    called = trace.launches.find(rows.numpy("correlation"))[0]
    issued = np.where(called >= 0, called, rows.numpy("start_ns")).tolist()
    for row, issued_ns in enumerate(issued):
        label = known[rows["label"][row]]
        side = "communication" if label.kind.category == "communication" else "compute"
        said = parse_annotation(lookups[side].name(issued_ns))
        if said is None:
            continue
        rows["operation"][row] = said.operation
        new = label._replace(
            name=f"{ANNOTATION_PREFIX}{said.operation} {said.kind}", kind=Kind(label.kind.category, said.kind),
            phase=said.phase, step=said.step,
        )  # fmt: skip
        rows["label"][row] = labels.setdefault(new, len(labels))
    return labels
