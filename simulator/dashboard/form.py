"""The form's fields as a state and back, and the marks on those that are wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from simulator.dashboard.checks import Problem
from simulator.dashboard.fields import ALL, GROUP_IDS, GROUPS
from simulator.dashboard.layout import field_class
from simulator.dashboard.state import (
    FLAGS,
    MOST_FIELDS,
    PARTS,
    STEP_FIELDS,
    SUBJECTS,
    State,
    exponent_of,
    factor_of,
)
from simulator.dashboard.views import VIEWS

FIELDS = ("subject", *ALL, *PARTS, "schedule")
MARKED = ("subject", *(name for name in ALL if name != "interference"), "what_if")
"""Fields that are marked where they are wrong."""
WHOLE = "attention"
"""How the form calls the empty subject."""


def fill_form(search: str | None) -> list[Any]:
    """Values of the form's fields, the kept set-up and the view, from the link that was opened.

    A subject that is none is passed over, as are names that no field has: its list would show nothing, and attention be
    simulated.
    """
    state = State.from_query(search or "")
    given = dict(parse_qsl((search or "").lstrip("?"), max_num_fields=MOST_FIELDS))
    sliders = [exponent_of(getattr(state, part)) for part in PARTS]
    view, subject = given.get("view", ""), state.subject if state.subject in SUBJECTS else ""
    return [
        subject or WHOLE, *(_shown(name, getattr(state, name)) for name in ALL), *sliders, state.schedule or None,
        given.get("kept"), view if view in VIEWS else next(iter(VIEWS)),
    ]  # fmt: skip


def _shown(name: str, value: str) -> Any:
    """A field's value as its component has it."""
    if ALL[name].kind == "flag":
        return ["on"] if value == "on" else []
    return None if ALL[name].kind == "choice" and not value else value


def read_form(values: tuple[Any, ...]) -> State:
    """The state of the form's fields."""
    given = dict(zip(FIELDS, values, strict=True))
    given |= {name: "on" if given[name] else "off" for name in FLAGS}
    given["subject"] = "" if given["subject"] == WHOLE else given["subject"]
    return State.of(given | {part: factor_of(given[part] or 0) for part in PARTS})


def marks(problems: Sequence[Problem]) -> list[str]:
    """Classes of the fields, then what is said under each and under all."""
    said = {each.field: each.message for each in problems}
    classes = [f"{field_class(name)} wrong" if name in said else field_class(name) for name in MARKED]
    return [*classes, *[said.get(name, "") for name in (*MARKED, "")]]


_SHOWN = {value or WHOLE: State(subject=value).step_fields for value in SUBJECTS}
_OF_GROUP = [GROUPS[title] for title in GROUP_IDS]
HIDE_FIELDS = f"""function (subject) {{
  const shown = {json.dumps(_SHOWN)}[subject] || [];
  const groups = {json.dumps(_OF_GROUP)}.map((names) => !names.some((name) => shown.includes(name)));
  return [...{json.dumps(STEP_FIELDS)}.map((name) => !shown.includes(name)), ...groups];
}}"""
"""In the browser: of each field of a layer or a model, whether it is hidden; last, of each group that can be."""
