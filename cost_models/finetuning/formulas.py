"""Closed forms of what a fine-tuning method costs, per sequence of n tokens under a causal mask.

    Flin = sum over a layer's matrices of 2 n in out,   Fatt = 4 D H n (n+1) / 2,   Fhead = 2 n hidden vocab

| method | forward | backward dX | backward dW | attention | trained Psi_t | stored bytes |
|---|---|---|---|---|---|---|
| full | Flin | Flin | Flin | 3.5 Fatt | Psi | 16 Psi |
| lora, dora | Flin + rho | Flin + rho | rho | 3.5 Fatt | sum r (in + out) | 2 Psi + 16 Psi_t |
| qlora | the same, and dequantisation | | | 3.5 Fatt | sum r (in + out) | 0.516 Psi + 16 Psi_t |
| adapters | Flin + 8 n d m | + 8 n d m | 8 n d m | 3.5 Fatt | 2 (2 d m + m + d) a layer | 2 Psi + 16 Psi_t |
| half | Flin | Flin | about Flin / 2 | 3.5 Fatt | about Psi / 2 | 2 Psi + 14 Psi_t |

with rho = sum over targets of 2 n r (in + out). Full recomputation adds a forward. Two answers per prompt (dpo, orpo)
double everything; a reference model adds two forwards. AdamW in mixed precision keeps 16 bytes per trained weight.
Derived from the algorithms; sources of the methods are named in `cost_models.finetuning.methods`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cost_models.finetuning.methods import Adapters, Dpo, FullFineTuning, HalfFineTuning, Method, QLora
from cost_models.models import ModelShape

TRAINED_BYTES = 16
"""Weight, gradient, fp32 master weight and two moments of a trained weight."""


@dataclass(frozen=True)
class Matrix:
    """A projection: features out and in."""

    out: int
    into: int

    @property
    def size(self) -> int:
        """Weights."""
        return self.out * self.into


def layer_matrices(shape: ModelShape) -> dict[str, Matrix]:
    """The seven projections of a dense layer, six where it has no gate.

    >>> from cost_models.models import load_model
    >>> layer_matrices(load_model("llama-3.1-8b"))["k"]
    Matrix(out=1024, into=4096)
    """
    q, k, v = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.v_head_dim
    h, wide = shape.hidden, shape.intermediate
    gate = {"gate": Matrix(wide, h)} if shape.gated else {}
    return {
        "q": Matrix(q, h), "k": Matrix(k, h), "v": Matrix(v, h), "o": Matrix(h, shape.heads * shape.v_head_dim),
        **gate, "up": Matrix(wide, h), "down": Matrix(h, wide),
    }  # fmt: skip


def matrices_of(targets: tuple[str, ...], shape: ModelShape) -> list[Matrix]:
    """Those of the targets that a layer has (all seven mean all that there are)."""
    matrices = layer_matrices(shape)
    return [matrices[target] for target in targets if target in matrices]


def linear_flop(shape: ModelShape, tokens: int) -> int:
    """Flin: the projections of one layer, forward."""
    return 2 * tokens * sum(matrix.size for matrix in layer_matrices(shape).values())


def attention_flop(shape: ModelShape, tokens: int) -> int:
    """Fatt: the attention core of one layer, forward, causal."""
    return (shape.head_dim + shape.v_head_dim) * shape.heads * tokens * (tokens + 1)


def head_flop(shape: ModelShape, tokens: int) -> int:
    """Fhead: the head, forward."""
    return 2 * tokens * shape.hidden * shape.vocab


def added_weights(method: Method, shape: ModelShape) -> int:
    """Weights that a method adds to each layer.

    >>> from cost_models.finetuning import parse_method
    >>> from cost_models.models import load_model
    >>> shape = load_model("llama-3.1-8b")
    >>> 32 * added_weights(parse_method("lora:rank=16"), shape), 32 * added_weights(parse_method("qlora"), shape)
    (6815744, 41943040)
    """
    if isinstance(method, Adapters):
        return 2 * (2 * shape.hidden * method.size + method.size + shape.hidden)
    if method.low_rank is None:
        return 0
    rank, targets = method.low_rank
    matrices = matrices_of(targets, shape)
    lengths = sum(each.out for each in matrices) if method.name == "dora" else 0
    return lengths + sum(rank * (each.out + each.into) for each in matrices)


def added_flop(method: Method, shape: ModelShape, tokens: int) -> int:
    """Products that a method adds to a layer's forward; backward adds twice as many."""
    if isinstance(method, Adapters):
        return 8 * tokens * shape.hidden * method.size
    if method.low_rank is None:
        return 0
    rank, targets = method.low_rank
    return 2 * tokens * rank * sum(each.out + each.into for each in matrices_of(targets, shape))


def trained_weights(method: Method, shape: ModelShape) -> int:
    """Psi_t; of half fine-tuning about half (its draw decides)."""
    if isinstance(method, HalfFineTuning):
        return (shape.n_parameters + 2 * shape.vocab * shape.hidden) // 2
    added = shape.layers * added_weights(method, shape)
    return added or shape.n_parameters


def is_frozen(method: Method) -> bool:
    """Whether the model's own weights are frozen."""
    return method.low_rank is not None or isinstance(method, Adapters)


def stored_bytes(method: Method, shape: ModelShape) -> float:
    """Weights, gradients and optimizer states of the policy and of a reference model, over all ranks."""
    total, trained = shape.n_parameters, trained_weights(method, shape)
    reference = 2 * total if isinstance(method, Dpo) and method.where == "model" else 0
    if not is_frozen(method):
        return TRAINED_BYTES * trained + 2 * (total - trained) + reference
    matrices = shape.layers * sum(matrix.size for matrix in layer_matrices(shape).values())
    packed = matrices * method.bits / 8 if isinstance(method, QLora) else 2 * matrices
    return packed + 2 * (total - matrices) + TRAINED_BYTES * trained + reference


def step_flop(method: Method, shape: ModelShape, tokens: int, checkpoint: str = "none") -> float:
    """Products of one step on one prompt of n tokens (an answer included), over all ranks.

    Of a frozen model the gradient of the embedding's output is counted though nothing needs it: L layers alike.
    """
    linear, core, head = (each(shape, tokens) for each in (linear_flop, attention_flop, head_flop))
    added, layers = added_flop(method, shape, tokens), shape.layers
    forward = layers * (linear + added + core) + head
    backward = layers * (linear + 2 * added + 2.5 * core) + head
    if not is_frozen(method):
        share = 0.5 if isinstance(method, HalfFineTuning) else 1.0
        backward += layers * linear * share + head
    again = {"none": 0.0, "full": linear + added + core, "attention": linear + added}[checkpoint] * layers
    plain = layers * (linear + core) + head
    reference = plain if isinstance(method, Dpo) and method.where != "stored" else 0
    return method.answers * (forward + backward + again + reference)


def speed_up(method: Method, shape: ModelShape, tokens: int, checkpoint: str = "none") -> float:
    """Products of full fine-tuning's layers over the method's: at most 1.5, and 1 as n grows."""
    head = head_flop(shape, tokens)
    full = step_flop(FullFineTuning(), shape, tokens, checkpoint) - 3 * head
    return full / (step_flop(method, shape, tokens, checkpoint) - 2 * head)


def gradient_bytes(method: Method, shape: ModelShape, ranks: int, grad_bytes: int = 2) -> float:
    """What a rank sends to sum gradients over N ranks: 2 (N-1)/N of them."""
    return 2 * (ranks - 1) / ranks * grad_bytes * trained_weights(method, shape)


def dequantise_equals_products(peak_flop_per_s: float, hbm_bytes_per_s: float) -> float:
    """Tokens per rank at which dequantising a weight (4.5 bytes moved) takes as long as its product (2 n FLOP).

    >>> round(dequantise_equals_products(989e12, 3.35e12))
    667
    """
    return (0.516 + 2 + 2) / 2 * peak_flop_per_s / hbm_bytes_per_s
