"""Colours told apart with normal sight and with each form of colour blindness.

Simulation: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
IEEE TVCG 2009, the matrices for severity 1.0, applied to linear sRGB. Difference: CIE 1976, in CIELAB under D65.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from traces.figures.colours import COMMUNICATION, COMPUTE, EXPOSED, IDLE, OTHER_KINDS, colour_of, readable
from traces.figures.ranking import APPROXIMATE, EXACT
from traces.timeline import CATEGORIES

SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = SRGB_TO_XYZ @ np.ones(3)


def lab(colour: str, sight: str) -> NDArray[np.float64]:
    encoded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = SRGB_TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(a: str, b: str, sight: str) -> float:
    return float(np.linalg.norm(lab(a, sight) - lab(b, sight)))


def test_difference_of_known_colours():
    """Black and white differ by L* = 100; red and green become one hue without the green cones."""
    assert difference("#000000", "#FFFFFF", "normal") == pytest.approx(100, abs=0.01)
    assert difference("#A08000", "#709000", "deuteranopia") < difference("#A08000", "#709000", "normal") / 2


@pytest.mark.parametrize("sight", SIGHT)
def test_computation_and_communication_stay_apart(sight):
    compute = {*COMPUTE.values(), *OTHER_KINDS["compute"]}
    communication = {*COMMUNICATION.values(), *OTHER_KINDS["communication"]}
    assert min(difference(a, b, sight) for a, b in product(compute, communication)) >= 20


@pytest.mark.parametrize("sight", SIGHT)
def test_common_kinds_stay_apart(sight):
    known = {**COMPUTE, **COMMUNICATION}
    assert min(difference(known[a], known[b], sight) for a, b in combinations(known, 2)) >= 10


@pytest.mark.parametrize("sight", SIGHT)
def test_every_colour_is_seen_on_white_and_beside_grey_and_shading(sight):
    bars = {*COMPUTE.values(), *COMMUNICATION.values(), *OTHER_KINDS["compute"], *OTHER_KINDS["communication"]}
    beside = ("#FFFFFF", IDLE, EXPOSED)
    assert min(difference(a, b, sight) for a, b in product(bars, beside)) >= 10
    assert difference(EXACT, APPROXIMATE, sight) >= 20


@pytest.mark.parametrize("category", CATEGORIES)
def test_unknown_kinds_keep_a_colour_of_their_family(category):
    colours = {colour_of(f"new kind {i}", category) for i in range(100)}
    assert colours == set(OTHER_KINDS[category])
    assert colour_of("new kind 7", category) == colour_of("new kind 7", category)


@pytest.mark.parametrize(
    ("kind", "text"), [("all_to_all", "all-to-all"), ("row_dot", "row dot"), ("to_tokens", "to tokens")]
)
def test_readable(kind, text):
    assert readable(kind) == text
