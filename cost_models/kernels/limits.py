"""Which attention kernels go wrong on large tensors.

Some backward kernels index with 32 bits. Beyond 2^31 elements of a tensor flash-attention 2 reads and writes elsewhere
(an illegal access, which ends the process), and cuDNN gives wrong dQ and dK without a word; forward, and our Triton
kernels, are right. Measured on an H100 with PyTorch 2.11 (docs/validation/h100-large.jsonl). Our executor refuses such
calls, and a simulation of them warns that they cannot be run so.
Source of the cause in flash-attention: Dao-AILab/flash-attention pull request 1500 (``row_offset_dq_accum``).
"""

from __future__ import annotations

from traces.errors import InputError

MOST_ELEMENTS = 2**31
NARROW_BACKWARD = {"flash2": "an illegal access", "cudnn": "wrong dQ and dK"}
"""Kernels whose backward has 32-bit indices, and what comes of them."""
REMEDY = "use the kernel triton, a smaller batch, or more ranks"


def backward_fault(kernel: str, elements: int) -> str | None:
    """What the backward of a kernel comes to on a tensor of so many elements, None if it is right.

    >>> backward_fault("triton", 2**32)
    >>> backward_fault("cudnn", 2**32)
    'the backward of kernel cudnn ends in wrong dQ and dK on tensors of more than 2^31 elements'
    """
    if kernel not in NARROW_BACKWARD or elements <= MOST_ELEMENTS:
        return None
    return f"the backward of kernel {kernel} ends in {NARROW_BACKWARD[kernel]} on tensors of more than 2^31 elements"


def check_backward_size(kernel: str, elements: int) -> None:
    """Refuse a backward that would go wrong.

    Raises
    ------
    InputError
        Where `backward_fault` finds one.
    """
    fault = backward_fault(kernel, elements)
    if fault:
        raise InputError(fault, got=f"{elements:,} elements of Q or K on one rank", remedy=REMEDY)
