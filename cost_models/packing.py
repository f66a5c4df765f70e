"""Keys and values stored in fewer bits: for each token and head a row of codes, and behind them its scale.

    x ~ s c,    s = max |x| / c_max (fp32),    row of D values = D b / 8 bytes of codes + 4 of s

| form | b | codes c | c_max | error of a value is at most |
|---|---|---|---|---|
| int8 | 8 | whole numbers | 127 | s / 2 |
| int4 | 4 | whole numbers, two to a byte | 7 | s / 2 |
| fp8 | 8 | e4m3 | 448 | max(2^-4 abs(x), 2^-10 s) |

and a rounding of s itself to fp32, 2^-24 relative. Symmetric, with a scale per token and head, as LMDeploy's int8 and
int4 caches have (they add a zero point, in the same four bytes); vLLM's fp8 has one scale per tensor, which saves the
four bytes. A packed row is a tensor of bytes, so that it moves between ranks as any other tensor does.
Sources: github InternLM/lmdeploy docs/en/quantization/kv_quant.md; Micikevicius et al. 2022, arXiv 2209.05433 (e4m3).
"""

from __future__ import annotations

from dataclasses import dataclass

from traces.errors import InputError

SCALE_BYTES = 4


@dataclass(frozen=True)
class Form:
    """How values are packed.

    Parameters
    ----------
    bits : of a code.
    largest : code c_max.
    whole : whether codes are whole numbers, else e4m3.
    """

    bits: int
    largest: float
    whole: bool = True

    def row_bytes(self, dim: int) -> int:
        """Bytes of a row of ``dim`` values.

        >>> FORMS["int8"].row_bytes(128), FORMS["int4"].row_bytes(128), FORMS["fp8"].row_bytes(576)
        (132, 68, 580)
        """
        if dim * self.bits % 8:
            raise InputError("values do not fill bytes", got=f"{dim} values of {self.bits} bits")
        return dim * self.bits // 8 + SCALE_BYTES

    def values(self, row_bytes: int) -> int:
        """Values in a row of so many bytes."""
        return (row_bytes - SCALE_BYTES) * 8 // self.bits

    def error(self, value: float, scale: float) -> float:
        """Most by which a stored value differs from ``value``, the scale being exact."""
        return scale / 2 if self.whole else max(abs(value) * 2.0**-4, scale * 2.0**-10)


FORMS = {"int8": Form(8, 127.0), "int4": Form(4, 7.0), "fp8": Form(8, 448.0, whole=False)}
PACKED = "packed-"
"""Before a form's name: the dtype of a buffer of such rows, whose element is a byte."""


def packed_form(dtype: str) -> Form | None:
    """The form of a buffer of packed rows; None for any other.

    >>> packed_form("packed-int4").bits, packed_form("bf16")
    (4, None)
    """
    return FORMS[dtype.removeprefix(PACKED)] if dtype.startswith(PACKED) else None
