"""Shapes of transformer models: presets and Hugging Face ``config.json`` files.

Interface: :func:`load_model`, :class:`ModelShape`, :data:`PRESET_NAMES`.
"""

from cost_models.models.load import PRESET_NAMES, load_model
from cost_models.models.shape import MlaShape, ModelShape, MoeShape

__all__ = ["PRESET_NAMES", "MlaShape", "ModelShape", "MoeShape", "load_model"]
