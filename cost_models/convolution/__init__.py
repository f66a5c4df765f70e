"""Convolutional mixers: FFNified attention and the FFNet family.

Interface: :data:`VARIANTS`, :class:`FfNet`, :class:`FfnifiedBlock`.
"""

from cost_models.convolution.ffnet import VARIANTS, FfNet, FfnifiedBlock

__all__ = ["VARIANTS", "FfNet", "FfnifiedBlock"]
