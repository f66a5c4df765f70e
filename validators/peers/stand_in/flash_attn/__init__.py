"""Stands in for the flash-attn package: the same functions over the kernels that PyTorch has."""

from __future__ import annotations

from pkgutil import extend_path

from flash_attn.flash_attn_interface import flash_attn_func

__path__ = extend_path(__path__, __name__)
__version__ = "2.8.3"

__all__ = ["flash_attn_func"]
