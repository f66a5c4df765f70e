"""How paths are named in what is written down."""

from __future__ import annotations

from pathlib import Path


def shown_path(path: Path) -> str:
    """A path as in the repository, where it is in it."""
    root = Path(__file__).resolve().parents[1]
    resolved = path.resolve()
    return str(resolved.relative_to(root) if resolved.is_relative_to(root) else path)
