"""A node's devices and links, coloured by how busy each link is.

The two directions of a connection are two parallel lines. Places, loads and names come as plain data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from traces.figures.style import GRID, MUTED, TEXT, make_room_for_legend, new_figure, safe

HEIGHT = 460
APART = 0.004
IDLE_COLOUR = "#D5DADF"
LEAST = 1e-6
"""Least load of a link that is in use at all."""
STEPS = (
    (0.0, IDLE_COLOUR),
    (LEAST, "#C6DBEF"),
    (0.02, "#9ECAE1"),
    (0.25, "#6BAED6"),
    (0.5, "#2171B5"),
    (0.75, "#F16913"),
    (0.95, "#B30000"),
)
"""Least load of each colour."""
STEP_NAMES = {0.0: "idle", LEAST: "in use", **{least: f"from {least:.0%}" for least, _ in STEPS[2:]}}

MARKERS = {
    "gpu": ("square", "#56B4E9"), "nvs": ("hexagon2", "#009E73"), "cpu": ("diamond", "#F0E442"),
    "switch": ("triangle-up", "#B4BDC9"), "nic": ("circle", "#D55E00"), "port": ("circle-open", "#D55E00"),
    "mem": ("square-open", "#52606D"), "leaf": ("hexagon", "#7F8B99"), "spine": ("hexagon", "#52606D"),
}  # fmt: skip
KINDS = {"gpu": "GPU", "nvs": "NVSwitch", "cpu": "CPU", "switch": "PCIe switch", "nic": "NIC", "port": "NIC port",
         "mem": "host memory", "leaf": "leaf switch", "spine": "spine switch"}  # fmt: skip
"""Kinds as a legend calls them."""
NAMED_DEVICES = 16
"""Devices of a kind up to which each has its name beside it."""
OTHER = ("circle-open", "#52606D")


def plot_topology(
    devices: Sequence[Mapping[str, object]], links: Sequence[Mapping[str, object]], title: str, note: str
) -> go.Figure:
    """Devices at their places, links coloured by load.

    Parameters
    ----------
    devices : ``name``, ``kind`` (best a key of ``MARKERS``), ``label`` (a few characters beside it), ``text`` to hover
        over, ``x`` and ``y`` from 0 to 1.
    links : ``source`` and ``target`` (names of devices), ``load`` (share of capacity, 0 to 1), ``text`` (lines
        to hover over).
    title, note : what it shows.
    """
    figure = new_figure(title, note, HEIGHT)
    places = {str(device["name"]): (_number(device["x"]), _number(device["y"])) for device in devices}
    for least, colour in STEPS:
        figure.add_trace(
            _lines([link for link in links if _least(_number(link["load"])) == least], places, least, colour)
        )
    figure.add_trace(_hover_points(links, places))
    for kind in dict.fromkeys(str(device["kind"]) for device in devices):
        figure.add_trace(_markers(kind, [device for device in devices if device["kind"] == kind]))
    hidden = {"visible": False, "range": [-0.06, 1.06], "fixedrange": True}
    figure.update_layout(
        xaxis=hidden, yaxis=hidden | {"range": [-0.1, 1.1]}, hovermode="closest", annotations=_labels(devices)
    )
    make_room_for_legend(figure)
    return figure


def _number(value: object) -> float:
    return float(str(value))


def _least(load: float) -> float:
    return max(least for least, _ in STEPS if load >= least or least == 0)


def _ends(link: Mapping[str, object], places: Mapping[str, tuple[float, float]]) -> tuple[float, float, float, float]:
    """Ends of a direction's line, moved to its right-hand side."""
    (x0, y0), (x1, y1) = places[str(link["source"])], places[str(link["target"])]
    length = max(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5, 1e-9)
    right_x, right_y = APART * (y1 - y0) / length, -APART * (x1 - x0) / length
    return x0 + right_x, y0 + right_y, x1 + right_x, y1 + right_y


def _lines(
    links: Sequence[Mapping[str, object]], places: Mapping[str, tuple[float, float]], least: float, colour: str
) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for link in links:
        x0, y0, x1, y1 = _ends(link, places)
        xs += [x0, x1, None]
        ys += [y0, y1, None]
    width = 1 if least == 0 else 2 + 2 * least
    return go.Scatter(
        x=xs, y=ys, mode="lines", name=STEP_NAMES[least], line={"color": colour, "width": width}, hoverinfo="skip",
        showlegend=bool(links),
    )  # fmt: skip


def _hover_points(links: Sequence[Mapping[str, object]], places: Mapping[str, tuple[float, float]]) -> go.Scatter:
    """A third of the way along each direction, so that the two do not meet."""
    ends = [_ends(link, places) for link in links]
    return go.Scatter(
        x=[x0 + (x1 - x0) / 3 for x0, _, x1, _ in ends],
        y=[y0 + (y1 - y0) / 3 for _, y0, _, y1 in ends],
        mode="markers",
        marker={"size": 9, "color": GRID, "opacity": 0.01},
        text=[safe(link["text"]).replace("\n", "<br>") for link in links],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _markers(kind: str, devices: Sequence[Mapping[str, object]]) -> go.Scatter:
    symbol, colour = MARKERS.get(kind, OTHER)
    return go.Scatter(
        x=[_number(device["x"]) for device in devices],
        y=[_number(device["y"]) for device in devices],
        mode="markers",
        text=[safe(device["text"]) for device in devices],
        hovertemplate="%{text}<extra></extra>",
        marker={"symbol": symbol, "size": 15, "color": colour, "line": {"width": 1, "color": TEXT}},
        name=safe(KINDS.get(kind, kind)),
    )


def _labels(devices: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Names on white, so that lines behind them do not cross them out; of kinds with too many, none."""
    count = Counter(str(device["kind"]) for device in devices)
    look = {"showarrow": False, "yshift": 17, "font": {"size": 11, "color": MUTED}, "bgcolor": "white", "borderpad": 0}
    return [
        {"x": _number(device["x"]), "y": _number(device["y"]), "text": safe(device["label"]), **look}
        for device in devices
        if count[str(device["kind"])] <= NAMED_DEVICES
    ]
