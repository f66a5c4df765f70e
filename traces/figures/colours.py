"""One colour per kind of operation, in every figure, whatever else the figure shows.

Computation is cool (blue, bluish green), communication warm (yellow to brown), idle, copies and host grey. The two
families differ by at least 20 in CIELAB for normal sight and for simulated protanopia, deuteranopia and tritanopia
(Machado et al. 2009), and so do common kinds from each other by at least 10; the tests hold them to it. The colours
come from Okabe and Ito's eight (2008), Tol's schemes (2021) and ColorBrewer, chosen for these distances. A kind that
the table does not know takes the colour of its name's checksum within its family, so that it too keeps its colour
from figure to figure.
"""

from __future__ import annotations

from zlib import crc32

IDLE = "#E3E6EA"
EXPOSED = "#F3B8B0"

COMPUTE = {
    "attention_forward": "#56B4E9",
    "attention_backward": "#0072B2",
    "merge": "#009E73",
    "accumulate": "#225555",
    "row_dot": "#332288",
    "gemm": "#3B4CC0",
    "elementwise": "#99DDFF",
    "pack": "#A6BDDB",
    "score": "#7B68EE",
}
COMMUNICATION = {
    "exchange": "#E69F00",
    "all_to_all": "#D55E00",
    "all_gather": "#B15928",
    "all_reduce": "#F0E442",
    "reduce_scatter": "#663300",
}
GROUPS = {
    "gemm": (
        "matrix products",
        ("linear", "linear_dx", "linear_dw", "experts", "experts_dx", "experts_dw", "absorb", "latent_values"),
    ),
    "attention_forward": ("attention forward", ("attention_forward", "attention_cached", "attention_sparse")),
    "merge": ("merge", ("merge", "combine")),
    "pack": ("packing and reordering", ("pack", "unpack", "reorder", "cast", "concat", "select", "place", "clear",
                                        "reduce_replicas")),
    "score": ("scores and softmax", ("score", "scores", "softmax", "softmax_backward", "weigh", "weigh_transposed",
                                     "vertical_slash_scores", "vertical_slash_select")),
    "all_to_all": ("all-to-all", ("all_to_all", "all_to_all_v")),
    "elementwise": (
        "norms and pointwise",
        (
            "rms_norm", "rms_norm_dx", "rms_norm_dw", "rope", "append", "swiglu", "swiglu_backward", "gelu",
            "gelu_backward", "split", "join", "regroup", "bias", "bias_dw", "row_lengths", "scale", "length_dw", "add",
            "embed", "embed_dw", "take_tokens", "join_tokens", "drop_tokens", "cross_entropy", "cross_entropy_join",
            "cross_entropy_backward", "sequence_sum", "preference", "pack_rows", "unpack_rows", "store_rows",
            "best_word", "choose_word",
        ),
    ),
}  # fmt: skip
"""Kinds by the kind whose colour they have, and what these are called together."""
OTHER_KINDS = {
    "compute": ("#1965B0", "#1B7A9C", "#4477AA", "#004488", "#6699CC", "#88CCEE", "#222255", "#00A5A8"),
    "communication": ("#FFB000", "#DDAA33", "#AAAA00", "#997700", "#E08214", "#8C510A"),
    "copy": ("#7F8B99",),
    "host": ("#B4BDC9",),
}
_GROUP_OF = {kind: group for group, (_, kinds) in GROUPS.items() for kind in kinds}
_KNOWN = COMPUTE | COMMUNICATION
_KNOWN |= {kind: _KNOWN[group] for kind, group in _GROUP_OF.items()}


def colour_of(kind: str, category: str) -> str:
    """Hexadecimal colour of a kind of operation.

    >>> colour_of("exchange", "communication")
    '#E69F00'
    """
    if kind in _KNOWN:
        return _KNOWN[kind]
    family = OTHER_KINDS[category]
    return family[crc32(kind.encode()) % len(family)]


def group_of(kind: str) -> str:
    """What a legend calls a kind: its group, or itself.

    >>> group_of("linear_dx"), group_of("row_dot")
    ('matrix products', 'row dot')
    """
    leader = leader_of(kind)
    return GROUPS[leader][0] if leader in GROUPS else readable(kind)


def leader_of(kind: str) -> str:
    """The kind that a kind shares colour and legend with, most often itself.

    >>> leader_of("linear_dx"), leader_of("row_dot")
    ('gemm', 'row_dot')
    """
    return _GROUP_OF.get(kind, kind)


def readable(kind: str) -> str:
    """A kind as a legend shows it.

    >>> readable("all_to_all"), readable("attention_forward"), readable("exposed_reduce_scatter")
    ('all-to-all', 'attention forward', 'exposed reduce-scatter')
    """
    for name in COMMUNICATION:
        kind = kind.replace(name, name.replace("_", "-"))
    return kind.replace("_", " ")
