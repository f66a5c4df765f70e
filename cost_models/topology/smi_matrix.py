"""The table that ``nvidia-smi topo -m`` prints, as text to cells.

The text comes from issues and logs as often as from a pipe: terminal codes, tabs or spaces, blank affinity cells,
header cells run together (``NIC11CPU Affinity``), NICs as ``NICn`` with a legend or as ``mlx5_n`` (older drivers),
``SOC`` for ``SYS``. Everything outside the table is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from traces.errors import InputError

MAX_DEVICES = 256
MAX_LINES = 5000

_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DEVICE = re.compile(r"GPU\d+|NIC\d+|[a-z][\w.-]*\d")
_CELL = re.compile(r"X|PIX|PXB|PHB|NODE|SYS|SOC|NV\d{1,3}")
_LEGEND = re.compile(r"^\s*(NIC\d+):\s*(\S+)\s*$")
_OLD_NAMES = {"SOC": "SYS"}


@dataclass
class SmiMatrix:
    """Devices in order, the cell of each ordered pair that the text has, affinities of rows, names of NICs."""

    devices: list[str]
    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    affinity: dict[str, tuple[str, str]] = field(default_factory=dict)
    legend: dict[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> list[str]:
        """Devices that are GPUs."""
        return [name for name in self.devices if name.startswith("GPU")]

    @property
    def nics(self) -> list[str]:
        """Devices that are not GPUs."""
        return [name for name in self.devices if not name.startswith("GPU")]


def parse_matrix(content: bytes) -> SmiMatrix:
    """Cells of the table.

    >>> rows = b"  GPU0 GPU1 CPU Affinity", b"GPU0 X PIX 0-7", b"GPU1 PIX X 0-7"
    >>> parse_matrix(bytes([10]).join(rows)).cells["GPU0", "GPU1"]
    'PIX'
    """
    lines = _lines(content)
    start = next((number for number, line in enumerate(lines) if _is_header(line)), None)
    if start is None:
        raise InputError(
            "file is neither NCCL topology XML nor the table of nvidia-smi topo -m",
            expected="a header line GPU0 GPU1 ...",
            remedy="save the output of `nvidia-smi topo -m`, or dump NCCL_TOPO_DUMP_FILE",
        )
    matrix = SmiMatrix(_header_devices(lines[start]))
    for line in lines[start + 1 :]:
        _read_row(line, matrix)
        if legend := _LEGEND.match(line):
            matrix.legend[legend[1]] = legend[2]
    _check_complete(matrix)
    return matrix


def _lines(content: bytes) -> list[str]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("topology file is not text", expected="NCCL topology XML or nvidia-smi topo -m") from None
    lines = _ESCAPE.sub("", text).splitlines()
    if len(lines) > MAX_LINES:
        raise InputError("topology text is too long", got=f"{len(lines)} lines", expected=f"at most {MAX_LINES}")
    return lines


def _is_header(line: str) -> bool:
    words = line.partition("CPU Affinity")[0].split()
    return bool(words) and words[0] == "GPU0" and all(_DEVICE.fullmatch(word) for word in words)


def _header_devices(line: str) -> list[str]:
    devices = line.partition("CPU Affinity")[0].split()
    if len(set(devices)) < len(devices) or len(devices) > MAX_DEVICES:
        raise InputError(
            "header of nvidia-smi topo -m names a device twice, or too many", got=f"{len(devices)} devices"
        )
    return devices


def _read_row(line: str, matrix: SmiMatrix) -> None:
    words = line.split()
    if not words or words[0] not in matrix.devices or words[0] + ":" == words[0]:
        return
    row, cells = words[0], words[1 : 1 + len(matrix.devices)]
    if not cells or not _CELL.fullmatch(cells[0]):
        return
    if len(cells) < len(matrix.devices) or not all(_CELL.fullmatch(cell) for cell in cells):
        raise InputError(
            f"row {row} of nvidia-smi topo -m is cut or malformed",
            got=" ".join(cells)[:80],
            expected=f"{len(matrix.devices)} cells of X, NV#, PIX, PXB, PHB, NODE, SYS",
        )
    for column, cell in zip(matrix.devices, cells, strict=True):
        matrix.cells[row, column] = _OLD_NAMES.get(cell, cell)
    matrix.affinity[row] = _affinity(line, words, len(matrix.devices))


def _affinity(line: str, words: list[str], devices: int) -> tuple[str, str]:
    """CPU and NUMA affinity of a row; with tabs a blank cell keeps its place."""
    rest = line.split("\t")[1 + devices :] if "\t" in line else words[1 + devices :]
    cpu, numa, *_ = [text.strip() for text in rest] + ["", ""]
    return ("" if cpu == "N/A" else cpu), ("" if numa == "N/A" else numa)


def _check_complete(matrix: SmiMatrix) -> None:
    """Every pair needs a cell in at least one direction; only rows of NICs may be missing."""
    missing = [gpu for gpu in matrix.gpus if (gpu, gpu) not in matrix.cells]
    if missing:
        raise InputError(
            "nvidia-smi topo -m lacks rows", got="no row " + ", ".join(missing[:8]), remedy="save all of it"
        )
