"""The weights of a model's layers on one rank, named as Hugging Face does, and how tensor parallelism splits them.

q, k, v, gate, up, embedding, head      rows split over the N ranks (heads, hidden features, words)
o, down                                 columns split
norms                                   whole on every rank; with split tokens their gradients are summed over N
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cost_models.models import ModelShape
from simulator.layers.parameter import Parameter
from simulator.layers.tensor_parallel import TensorParallel
from simulator.program.operations import Slices
from traces.errors import InputError

Weights = dict[str, Parameter]


@dataclass(frozen=True)
class WeightMaker:
    """Makes the weights of a model for a grid.

    Parameters
    ----------
    fp8 : whether matrices of layers, but for routers, multiply in FP8.
    """

    shape: ModelShape
    parallel: TensorParallel
    dtype: str = "bf16"
    prefix: str = ""
    fp8: bool = False

    def check(self) -> None:
        """Refuse heads, features and words that the ranks cannot share evenly."""
        shape, n = self.shape, self.parallel.size
        for what, count in (
            ("heads", shape.heads), ("kv heads", shape.kv_heads), ("intermediate size", shape.intermediate),
            ("vocabulary", shape.vocab), ("experts' intermediate size", shape.moe.intermediate if shape.moe else 0),
        ):  # fmt: skip
            if count % n:
                raise InputError(f"{what} of {shape.name} are not divisible by the tensor parallel ranks",
                                 got=f"{count} / {n}")  # fmt: skip

    def mlp(self, at: str, intermediate: int) -> Weights:
        """Gate, up and down projection; without the first where the model's have no gate."""
        h = self.shape.hidden
        gate = {"gate_proj": self.rows(at + "gate_proj", intermediate, h)} if self.shape.gated else {}
        return {
            **gate,
            "up_proj": self.rows(at + "up_proj", intermediate, h),
            "down_proj": self.columns(at + "down_proj", h, intermediate),
        }

    def ends(self) -> Weights:
        """Embedding, last norm and head; a tied head is the embedding."""
        shape = self.shape
        table = self.rows("embed_tokens", shape.vocab, shape.hidden)
        head = table if shape.tied_embeddings else self.rows("lm_head", shape.vocab, shape.hidden)
        return {"embed_tokens": table, "norm": self.gain("norm", shape.hidden), "lm_head": head}

    def rows(self, name: str, rows: int, columns: int) -> Parameter:
        """A matrix whose output features are split."""
        part = rows // self.parallel.size
        return Parameter(self.prefix + name, part, columns, slices=self._split(0, part), dtype=self.dtype)

    def columns(self, name: str, rows: int, columns: int) -> Parameter:
        """A matrix whose input features are split."""
        part = columns // self.parallel.size
        return Parameter(self.prefix + name, rows, part, slices=self._split(1, part), dtype=self.dtype)

    def gain(self, name: str, size: int) -> Parameter:
        """A vector that every rank has."""
        replicas = ("tp",) if self.parallel.splits_tokens else ()
        return Parameter(self.prefix + name, 1, size, replicas=replicas, dtype=self.dtype)

    def lengths(self, name: str, size: int, *, whole: bool) -> Parameter:
        """A vector, one number for each of a matrix's output features on this rank; ``whole`` where it has all.

        A whole one's gradient is a part of a sum on each rank.
        """
        replicas = ("tp",) if whole and self.parallel.size > 1 else ()
        slices = () if whole else self._split(0, size)
        return Parameter(self.prefix + name, 1, size, slices=slices, replicas=replicas, dtype=self.dtype)

    def whole(self, name: str, rows: int, columns: int, *, sees_all: bool = False) -> Parameter:
        """A matrix that every rank has; its gradient is summed over the group unless every rank sees all tokens."""
        replicas = ("tp",) if self.parallel.size > 1 and not sees_all else ()
        return Parameter(name, rows, columns, replicas=replicas, dtype=self.dtype)

    def _split(self, axis: int, part: int) -> tuple[Slices, ...]:
        if self.parallel.size == 1:
            return ()
        start = self.parallel.grid.coordinate("tp") * part
        return (Slices(axis, start, start + part),)


def n_parameters(weights: Mapping[str, Parameter]) -> int:
    """Elements of this rank's parts."""
    return sum({id(each): each.size for each in weights.values()}.values())
