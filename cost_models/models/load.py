"""A model by name or by file. Presets are kept as their published configurations and read by the same parser."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from cost_models.models.hf_config import parse_hf_config
from cost_models.models.shape import ModelShape
from traces.bounded import read_bounded
from traces.errors import InputError

MAX_FILE_BYTES = 4 * 2**20

PRESETS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("presets.toml").read_text(encoding="utf-8"))
PRESET_NAMES = tuple(PRESETS)


def load_model(name_or_path: str | Path) -> ModelShape:
    """Shape of a preset, or of the model in a Hugging Face ``config.json`` or the folder that holds one.

    Raises
    ------
    InputError
        Where there is no such preset or file, or the file describes no supported model.

    >>> shape = load_model("deepseek-v3")
    >>> shape.heads, shape.kv_heads, shape.head_dim, shape.v_head_dim
    (128, 128, 192, 128)
    """
    name = str(name_or_path)
    if name in PRESETS:
        return parse_hf_config(PRESETS[name], name, PRESETS[name]["source"])
    path = Path(name_or_path)
    return parse_hf_config(_read(path, name), name, f"file {name}")


def _read(path: Path, name: str) -> dict[str, object]:
    missing = InputError(
        "no such model", got=repr(name), expected="one of " + ", ".join(PRESET_NAMES) + " or a config.json"
    )
    return _parse(read_bounded(_config_of(path), f"model file {name}", MAX_FILE_BYTES, missing), name)


def _config_of(path: Path) -> Path:
    try:
        return path / "config.json" if path.is_dir() else path
    except OSError:  # a name too long for the file system
        return path


def _parse(data: bytes, name: str) -> dict[str, object]:
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"model file {name} is not JSON", got=str(error)) from None
    if not isinstance(config, dict):
        raise InputError(f"model file {name} holds no JSON object", got=type(config).__name__)
    return config
