"""Triton, interpreted where there is no GPU: import it from here.

The switch is read when a kernel is decorated, so it has to be set before Triton is imported.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton
import triton.language as tl

__all__ = ["tl", "triton"]
