"""What would help most: how the time changes where one part of the cluster is a tenth slower.

    elasticity = -d ln(time) / d ln(rate)  ~  ln(time slower / time) / ln(1 / 0.9)

1 is a time that this part alone decides, 0 one that it does not matter to; what is missing to 1 in sum is overlap and
latency. Of deep models both times are those of a first look (`looks`).
"""

from __future__ import annotations

import math
from typing import Any

from cost_models.models import ModelShape
from cost_models.variation import PARTS
from simulator.planning.looks import Look, take_look
from simulator.planning.points import Point
from simulator.planning.runners import Runner

SLOWER = 0.9
SMALLEST = 0.005


def estimate_sensitivity(
    runner: Runner, point: Point, time_s: float, deep: ModelShape | None = None
) -> dict[str, float]:  # fmt: skip
    """Elasticity of a point's time with respect to each part, the largest first; parts that do not matter left out.

    Parameters
    ----------
    time_s : of the point, simulated whole.
    deep : the point's model, where looks do.
    """
    slowed: list[dict[str, Any]] = [{**point, "what_if": _slower(point, part)} for part in PARTS]
    if deep is None:
        outcomes = runner.run(slowed)
    else:
        stages = int(point.get("pp", 1)) * int(point.get("virtual_stages", 1))
        time_s = float(take_look(Look(point, deep, stages))["time_s"])
        outcomes = runner.map(take_look, [Look(each, deep, stages) for each in slowed])
    found = {}
    for index, outcome in outcomes:
        if "time_s" in outcome:
            found[PARTS[index]] = math.log(outcome["time_s"] / time_s) / -math.log(SLOWER)
    ranked = sorted(found.items(), key=lambda each: (-each[1], PARTS.index(each[0])))
    return {part: round(elasticity, 4) for part, elasticity in ranked if elasticity >= SMALLEST}


def _slower(point: Point, part: str) -> str:
    """The point's own factors, and one part slower."""
    own = dict(item.split("=") for item in str(point.get("what_if") or "").split(",") if item)
    own[part] = repr(float(own.get(part, 1.0)) * SLOWER)
    return ",".join(f"{name}={factor}" for name, factor in own.items())
