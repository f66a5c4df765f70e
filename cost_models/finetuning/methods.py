"""Fine-tuning methods by name: ``NAME:key=value,...``.

| name | trains | options |
|---|---|---|
| full | everything | |
| lora | low-rank updates B A of some matrices (Hu et al. 2021, arXiv 2106.09685) | rank, targets |
| qlora | the same, the matrices in 4-bit NF4 (Dettmers et al. 2023, arXiv 2305.14314) | rank, targets, double |
| dora | the same, and the length of each row (Liu et al. 2024, arXiv 2402.09353) | rank, targets |
| adapters | two bottlenecks per layer (Houlsby et al. 2019, arXiv 1902.00751) | size |
| merged | nothing: serves ``count`` LoRA adapters combined to one of another rank | rank, targets, count, kind |
| half | a half of the matrices, drawn anew each round (Hui et al. 2024, arXiv 2404.18466) | seed |
| dpo | everything, or LoRA, on pairs of answers (Rafailov et al. 2023, arXiv 2305.18290) | reference, rank, targets |
| orpo | everything, or LoRA, on pairs, without a reference (Hong et al. 2024, arXiv 2403.07691) | rank, targets |

``targets`` names matrices as ``q+v``, or ``all`` for the seven of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

from cost_models.spec import Spec, parse_bool, parse_spec
from cost_models.units import parse_count
from traces.errors import InputError

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of a weight in NF4, doubly quantised: an 8-bit scale per 64, a fp32 scale per 256 of those (section 3)."""

NF4_SINGLE_BITS = 4 + 32 / 64
"""The same with one fp32 scale per 64 weights."""


@dataclass(frozen=True)
class Method:
    """A fine-tuning method with its options."""

    name: ClassVar[str]

    @property
    def low_rank(self) -> tuple[int, tuple[str, ...]] | None:
        """Rank and matrices of a low-rank update, None where there is none."""
        return None

    @property
    def answers(self) -> int:
        """Sequences per prompt: two where answers are compared."""
        return 1

    def __str__(self) -> str:
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        text = ",".join(f"{key}={_text(value)}" for key, value in options.items() if value is not None)
        return f"{self.name}:{text}" if text else self.name


@dataclass(frozen=True)
class FullFineTuning(Method):
    """Every weight is trained."""

    name: ClassVar[str] = "full"


@dataclass(frozen=True)
class Lora(Method):
    """Low-rank updates of some matrices; everything else is frozen."""

    rank: int = 16
    targets: str = "q+v"

    name: ClassVar[str] = "lora"

    def __post_init__(self) -> None:
        _check_positive(self.name, "rank", self.rank)
        _matrices(self.targets)

    @property
    def low_rank(self) -> tuple[int, tuple[str, ...]]:
        """Rank and matrices."""
        return self.rank, _matrices(self.targets)


@dataclass(frozen=True)
class QLora(Lora):
    """LoRA on matrices that are stored in NF4."""

    targets: str = "all"
    double: bool = True

    name: ClassVar[str] = "qlora"

    @property
    def bits(self) -> float:
        """Of a stored weight."""
        return NF4_BITS if self.double else NF4_SINGLE_BITS


@dataclass(frozen=True)
class Dora(Lora):
    """LoRA, and a trained length of each row of the sum."""

    name: ClassVar[str] = "dora"


@dataclass(frozen=True)
class Adapters(Method):
    """Bottlenecks of some size after attention and after the feed-forward."""

    size: int = 64

    name: ClassVar[str] = "adapters"

    def __post_init__(self) -> None:
        _check_positive(self.name, "size", self.size)


@dataclass(frozen=True)
class Merged(Method):
    """Several LoRA adapters combined: concatenated (ranks add up), summed, or compressed again by SVD to ``rank``."""

    rank: int = 16
    targets: str = "q+v"
    count: int = 2
    kind: str = "concatenation"

    name: ClassVar[str] = "merged"

    def __post_init__(self) -> None:
        _check_positive(self.name, "rank", self.rank)
        _check_positive(self.name, "count", self.count)
        _check_choice(self.name, "kind", self.kind, ("concatenation", "linear", "svd"))
        _matrices(self.targets)

    @property
    def low_rank(self) -> tuple[int, tuple[str, ...]]:
        """Rank of the combination, and matrices."""
        rank = self.rank * self.count if self.kind == "concatenation" else self.rank
        return rank, _matrices(self.targets)


@dataclass(frozen=True)
class HalfFineTuning(Method):
    """Half of the matrices of each layer are trained, drawn with a seed."""

    seed: int = 0

    name: ClassVar[str] = "half"


@dataclass(frozen=True)
class Dpo(Method):
    """Direct preference optimisation.

    Parameters
    ----------
    reference : ``model``, a second, frozen model; ``stored``, log-probabilities computed before; ``adapters``, the
        policy with its LoRA switched off.
    rank, targets : of the policy's LoRA; rank None trains everything.
    """

    reference: str | None = None
    rank: int | None = None
    targets: str | None = None

    name: ClassVar[str] = "dpo"

    def __post_init__(self) -> None:
        if self.reference is not None:
            _check_choice(self.name, "reference", self.reference, ("model", "stored", "adapters"))
        if self.reference == "adapters" and self.rank is None:
            raise InputError("dpo: a reference without adapters needs a policy with them", remedy="name a rank")
        if self.rank is not None:
            _check_positive(self.name, "rank", self.rank)
            _matrices(self.targets or "q+v")

    @property
    def low_rank(self) -> tuple[int, tuple[str, ...]] | None:
        """Of the policy."""
        return None if self.rank is None else (self.rank, _matrices(self.targets or "q+v"))

    @property
    def answers(self) -> int:
        """Chosen and rejected."""
        return 2

    @property
    def where(self) -> str:
        """Where reference log-probabilities come from."""
        return self.reference or ("model" if self.rank is None else "adapters")


@dataclass(frozen=True)
class Orpo(Method):
    """Odds-ratio preference optimisation; rank and targets as of `Dpo`."""

    rank: int | None = None
    targets: str | None = None

    name: ClassVar[str] = "orpo"

    def __post_init__(self) -> None:
        if self.rank is not None:
            _check_positive(self.name, "rank", self.rank)
            _matrices(self.targets or "q+v")

    @property
    def low_rank(self) -> tuple[int, tuple[str, ...]] | None:
        """Of the policy."""
        return None if self.rank is None else (self.rank, _matrices(self.targets or "q+v"))

    @property
    def answers(self) -> int:
        """Chosen and rejected."""
        return 2


METHODS: dict[str, type[Method]] = {
    each.name: each for each in (FullFineTuning, Lora, QLora, Dora, Adapters, Merged, HalfFineTuning, Dpo, Orpo)
}


def parse_method(spec: str | Spec) -> Method:
    """A method from ``NAME:key=value,...``.

    Raises
    ------
    InputError
        For an unknown name or option.

    >>> parse_method("lora:rank=8,targets=q+v+o").low_rank
    (8, ('q', 'v', 'o'))
    """
    spec = parse_spec(spec, "method") if isinstance(spec, str) else spec
    if spec.name not in METHODS:
        raise InputError("unknown method", got=repr(spec.name), expected="one of " + ", ".join(METHODS))
    kind = METHODS[spec.name]
    spec.only(tuple(field.name for field in fields(kind)))
    hints = get_type_hints(kind)
    return kind(**{key: _parse(text, hints[key], f"{spec.name}: {key}") for key, text in spec.options.items()})


def _parse(text: str, hint: object, what: str) -> object:
    if hint in (int, int | None):
        return parse_count(text, what)
    return parse_bool(text, what) if hint is bool else text


def _matrices(text: str) -> tuple[str, ...]:
    names = MATRICES if text == "all" else tuple(text.split("+"))
    unknown = [name for name in names if name not in MATRICES]
    if unknown or len(set(names)) < len(names):
        raise InputError("targets are not matrices of a layer", got=repr(text), expected="all, or some of "
                         + "+".join(MATRICES))  # fmt: skip
    return names


def _check_positive(method: str, what: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{method}: {what} is not a positive whole number", got=repr(value))


def _check_choice(method: str, what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{method}: unknown {what}", got=repr(value), expected="one of " + ", ".join(choices))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
