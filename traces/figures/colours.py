"""One colour per kind of operation, in every figure, whatever else the figure shows.

Computation is cool (blue, green), communication warm (orange, red, pink), idle, copies and host grey: the families
stay apart in every form of colour blindness. Okabe and Ito's eight colours (2008) come first, then Tol's muted ones.
A kind that the table does not know takes the colour of its name's checksum within its family, so that it too keeps
its colour from figure to figure.
"""

from __future__ import annotations

from zlib import crc32

IDLE = "#E3E6EA"
EXPOSED = "#F3B8B0"

_KNOWN = {
    "attention_forward": "#56B4E9",
    "attention_backward": "#0072B2",
    "merge": "#009E73",
    "accumulate": "#117733",
    "row_dot": "#44AA99",
    "score": "#332288",
    "gemm": "#332288",
    "elementwise": "#88CCEE",
    "exchange": "#E69F00",
    "all_to_all": "#D55E00",
    "all_gather": "#CC79A7",
    "reduce_scatter": "#882255",
    "all_reduce": "#AA4466",
    "idle": IDLE,
}
_FAMILIES = {
    "compute": ("#6699CC", "#004488", "#225555", "#5E8CA8", "#4B6FB0", "#7FB8A4"),
    "communication": ("#DDAA33", "#CC6677", "#EE7733", "#CC3311", "#994455", "#EE99AA"),
    "copy": ("#7F8B99",),
    "host": ("#B4BDC9",),
}


def colour_of(kind: str, category: str) -> str:
    """Hexadecimal colour of a kind of operation.

    >>> colour_of("exchange", "communication")
    '#E69F00'
    """
    if kind in _KNOWN:
        return _KNOWN[kind]
    family = _FAMILIES[category]
    return family[crc32(kind.encode()) % len(family)]


def readable(kind: str) -> str:
    """A kind as a legend shows it.

    >>> readable("all_to_all"), readable("attention_forward")
    ('all-to-all', 'attention forward')
    """
    return kind.replace("_to_", "-to-").replace("_", " ")
