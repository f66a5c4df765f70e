"""What every part of a profile has in common: immutable, no unknown terms, numbers finite, positive and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

LARGEST = 1e20
"""Bound of every number: far above any rate or size here, far below what overflows."""

Positive = Annotated[float, Field(gt=0, le=LARGEST)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Cost = Annotated[float, Field(ge=0, le=100)]
Ratio = Annotated[float, Field(ge=1, le=100)]
Seconds = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0, le=2**50)]


class Terms(BaseModel):
    """A group of terms of a profile."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _pairs(value: Any) -> Any:
    """``{"128" = 0.6}`` of a file as ((128, 0.6),): hashable, and in order."""
    if not isinstance(value, Mapping):
        return value
    if not all(isinstance(key, str) and key.isdecimal() and len(key) < 10 for key in value):
        raise ValueError("keys are not whole numbers")
    return tuple(sorted((int(key), number) for key, number in value.items()))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


ByNumber = Annotated[tuple[tuple[Count, Fraction], ...], BeforeValidator(_pairs), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_tuple), Field(min_length=1)]
Range = Annotated[tuple[Count, Count], BeforeValidator(_tuple)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_tuple), Field(min_length=1)]
