"""A whole model on a grid of ranks: what is asked of a step, checked before anything is recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from cost_models.finetuning import Method, parse_method
from cost_models.finetuning.methods import MATRICES
from cost_models.masks import Mask
from cost_models.models import ModelShape
from cost_models.workload import AttentionWorkload
from simulator.asked import StepFields
from simulator.grid import Grid
from simulator.layers.checkpoint import CHECKPOINTS
from simulator.layers.fp8 import MULTIPLE
from simulator.layers.routing import Routing, build_routing
from simulator.program.operations import Column
from simulator.program.setup import Setup
from simulator.schedules.base import Schedule
from simulator.schedules.chunk import Chunk, cut_prompt
from simulator.steps.parameters import OFFLOADS, OPTIMIZERS
from simulator.steps.serving import check_options, check_pass, tokens_of
from traces.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StepOptions(StepFields):
    """How a step is parallelised and what it keeps, checked.

    Raises
    ------
    InputError
        For an option that no model could have.
    """

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("checkpoint", self.checkpoint, CHECKPOINTS), ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
            ("offload", self.offload, OFFLOADS),
            ("tp version", self.tp_version, (1, 3)), ("zero", self.zero, (0, 1, 2, 3)),
        ):  # fmt: skip
            if value not in choices:
                raise InputError(f"unknown {name}", got=repr(value), expected="one of " + ", ".join(map(str, choices)))
        parse_method(self.method)
        if self.weight_bits is not None and not 1 <= self.weight_bits <= 16:
            raise InputError("weight_bits is out of range", got=self.weight_bits, expected="1 to 16")
        if self.capacity is not None and not 0 < self.capacity <= 1000:
            raise InputError("capacity is out of range", got=self.capacity, expected="above 0, at most 1000")
        check_options(self)
        for name in ("tp", "dp", "pp", "ep", "microbatches", "loss_chunks", "virtual_stages"):
            value = getattr(self, name)
            if name == "loss_chunks" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is not a positive whole number", got=repr(value))

    @cached_property
    def parsed_method(self) -> Method:
        """The method of fine-tuning."""
        return parse_method(self.method)

    def offloads(self, what: str) -> bool:
        """Whether it lies in memory of the host."""
        return self.offload in (what, "all")

    def grid(self, ranks: int) -> Grid:
        """The ranks as a grid.

        Raises
        ------
        InputError
            Where tp, dp and pp do not divide them.
        """
        others = self.tp * self.dp * self.pp
        if ranks % others:
            raise InputError(
                "ranks are not divisible by tp x dp x pp", got=f"{ranks} / ({self.tp} x {self.dp} x {self.pp})"
            )
        return Grid(self.tp, ranks // others, self.dp, self.pp, self.placement)


@dataclass(frozen=True)
class Plan:
    """A step of a model on ranks.

    Parameters
    ----------
    shape : the model.
    schedule : of the attention, among the context parallel ranks.
    batch, seq_len, dtype, mask : all sequences (or prompts, with two answers each) of a step, over all ranks.
    ranks, ranks_per_node : of the machine.
    options : of the step.
    """

    shape: ModelShape
    schedule: Schedule
    batch: int
    seq_len: int
    dtype: str
    mask: Mask
    ranks: int
    ranks_per_node: int
    options: StepOptions = StepOptions()

    @cached_property
    def grid(self) -> Grid:
        """The ranks as a grid."""
        return self.options.grid(self.ranks)

    @cached_property
    def micro_batch(self) -> int:
        """Sequences of one microbatch on one data parallel rank."""
        parts = self.grid.dp * self.options.microbatches
        if self.batch % parts:
            raise InputError(
                "batch is not divisible by data parallel ranks x microbatches",
                got=f"{self.batch} / ({self.grid.dp} x {self.options.microbatches})",
            )
        return self.batch // parts

    @property
    def parts(self) -> int:
        """Into how many parts a pipeline cuts the layers: part p is on stage p mod pp."""
        return self.grid.pp * self.options.virtual_stages

    @property
    def sequences(self) -> int:
        """Sequences of one microbatch: two answers to each prompt where a method compares them."""
        return self.micro_batch * self.options.parsed_method.answers

    @cached_property
    def setup(self) -> Setup:
        """What one context parallel group attends to, on the heads of one tensor parallel rank."""
        shape, tp = self.shape, self.grid.tp
        if shape.heads % tp or shape.kv_heads % tp:
            raise InputError(
                f"heads of {shape.name} are not divisible by the tensor parallel ranks",
                got=f"{shape.heads} heads and {shape.kv_heads} kv heads / {tp}",
            )
        dims = shape.kv_heads // tp, shape.head_dim, shape.v_head_dim
        if shape.mla and self.options.mla == "absorbed":
            dims = 1, shape.mla.kv_lora + shape.mla.rope, shape.mla.kv_lora
        workload = AttentionWorkload(self.sequences, self.seq_len, shape.heads // tp, *dims, self.dtype, self.mask)
        return Setup(workload, self.grid.cp, self.grid.context_per_node(self.ranks_per_node))

    @cached_property
    def world(self) -> Setup:
        """The same workload, on all ranks."""
        return Setup(self.setup.workload, self.ranks, self.ranks_per_node)

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The prompt's chunks, of which the first is cached where a prefix is."""
        size, cached = (tokens_of(self.options, name) for name in ("prefill_chunk", "cached_prefix"))
        return cut_prompt(self.setup, size or None, cached)

    def check(self, *, training: bool) -> None:
        """Refuse what cannot run, with the reason."""
        if training and not self.schedule.has_backward:
            raise InputError(f"{self.schedule.name} is for inference only: it has no backward pass",
                             remedy="ask for the forward pass of a layer, or for a model's prefill")  # fmt: skip
        if self.schedule.name == "tp":
            raise InputError(
                "tp as a schedule is for attention alone", remedy="give layers and models --tp, and another"
            )
        self.schedule.check(self.setup)
        if self.grid.pp > 1 and self.shape.tied_embeddings:
            raise InputError(f"{self.shape.name} ties embedding and head, which lie on different pipeline stages",
                             got=f"pp {self.grid.pp}", remedy="use pp 1")  # fmt: skip
        if self.grid.pp > 1 and training and self.options.microbatches < self.grid.pp:
            raise InputError("fewer microbatches than pipeline stages", got=f"{self.options.microbatches} microbatches",
                             expected=f"at least {self.grid.pp}")  # fmt: skip
        if self.options.virtual_stages > 1 and training:
            self._check_interleaved()
        if self.options.fp8:
            self._check_fp8(training=training)
        self._check_targets()
        self._check_experts()
        if self.options.offloads("activations") and self.options.checkpoint == "none":
            raise InputError("offload of activations needs checkpointing: it moves what checkpointing keeps",
                             got="checkpoint none", remedy="use checkpoint full, attention or sequence")  # fmt: skip
        if self.options.offload != "none" and not training:
            raise InputError("offload is for training steps", got=self.options.offload)
        if self.options.checkpoint == "sequence" and training:
            self._check_halves()
        method = self.options.parsed_method
        if method.answers > 1 and training:
            for name, value in (("pp", self.grid.pp > 1), ("loss_chunks", self.options.loss_chunks)):
                if value:
                    raise InputError(f"{name} does not go with {method.name}: its gradient needs all logits of a pair",
                                     remedy=f"leave {name} out")  # fmt: skip
        if training:
            check_pass(self, "step")
        if method.name == "merged" and training:
            raise InputError("merged adapters are served, not trained", remedy="ask for prefill or decode")
        local = self.setup.workload.seq_len // self.grid.cp
        if self.options.tp_version == 3 and local % self.grid.tp:
            raise InputError(
                "tokens of a rank are not divisible by the tensor parallel ranks", got=f"{local} / {self.grid.tp}"
            )

    def routing(self, tokens: Column, *, replicated: bool = False) -> Routing:
        """Of so many tokens on each rank; ``replicated``: the same on all ranks of a context parallel group."""
        assert self.shape.moe is not None
        options = self.options
        return build_routing(self.shape.moe, self.grid, tokens, options.ep, options.routing, options.capacity,
                             replicated=replicated)  # fmt: skip

    def _check_targets(self) -> None:
        """Refuse methods on matrices that a layer does not have."""
        shape, method = self.shape, self.options.parsed_method
        low_rank = method.low_rank
        if shape.mla and (method.name == "half" or (low_rank and {"q", "k", "v"} & set(low_rank[1]))):
            raise InputError(f"{method} changes Q, K and V projections, and latent attention has others",
                             got=shape.name, remedy="use full, adapters, or low rank with targets=o")  # fmt: skip
        if not shape.gated and method.name == "half":
            raise InputError(f"{method} draws among three matrices of a feed-forward, and {shape.name} has no gate",
                             remedy="use full, adapters or a low-rank method")  # fmt: skip
        if not shape.gated and low_rank and "gate" in low_rank[1] and set(low_rank[1]) != set(MATRICES):
            raise InputError(f"{method} changes a gate, and {shape.name} has none", remedy="leave gate out")

    def _check_interleaved(self) -> None:
        """Refuse what the interleaved schedule cannot order."""
        stages, options = self.grid.pp, self.options
        if stages == 1:
            raise InputError("virtual stages need pipeline stages", got="pp 1", remedy="use pp 2 or more")
        if options.microbatches % stages:
            raise InputError("microbatches of interleaved stages are not a multiple of the pipeline stages",
                             got=f"{options.microbatches} / {stages}")  # fmt: skip
        if self.shape.layers % self.parts:
            raise InputError("layers are not divisible by pipeline stages x virtual stages",
                             got=f"{self.shape.layers} / ({stages} x {options.virtual_stages})")  # fmt: skip

    def _check_fp8(self, *, training: bool) -> None:
        """Refuse what FP8 products do not go with."""
        options, local = self.options, self.seq_len // self.grid.cp * self.sequences
        if options.parsed_method.name != "full":
            raise InputError(f"{options.parsed_method} has no FP8 products", remedy="use method full, or no fp8")
        if self.dtype not in ("bf16", "fp16"):
            raise InputError("FP8 products are of models in 16 bits", got=self.dtype, expected="bf16 or fp16")
        if options.weight_bits is not None:
            raise InputError("weight_bits does not go with fp8, whose weights have 8", got=options.weight_bits)
        if training and local % MULTIPLE:
            raise InputError(f"FP8 products sum over a multiple of {MULTIPLE} tokens of a rank", got=local)

    def _check_halves(self) -> None:
        """Refuse to keep half of the sequence where the halves do not come apart."""
        striped = self.schedule.input_partition(self.setup).name == "striped"
        if self.schedule.name not in ("ring", "burst") or not striped or str(self.mask) != "causal":
            raise InputError("checkpoint sequence needs a causal ring or burst with striped tokens",
                             got=f"{self.schedule} with mask {self.mask}")  # fmt: skip
        if self.seq_len % (2 * self.grid.cp):
            raise InputError("tokens of a rank have no halves", got=f"{self.seq_len} / {self.grid.cp}")

    def _check_experts(self) -> None:
        """Refuse options of experts for models without, and experts that cannot be spread."""
        options, moe = self.options, self.shape.moe
        if moe is None:
            for name, value, default in (("ep", options.ep, 1), ("routing", options.routing, "uniform"),
                                         ("capacity", options.capacity, None)):  # fmt: skip
                if value != default:
                    raise InputError(f"{name} is about experts, and {self.shape.name} has none", got=value)
            return
        low_rank, name = options.parsed_method.low_rank, options.parsed_method.name
        if name in ("half", "qlora") or (low_rank and {"gate", "up", "down"} & set(low_rank[1])):
            raise InputError(f"{options.parsed_method} changes matrices of which experts have many",
                             remedy="use a method for attention's matrices, as lora")  # fmt: skip

    def check_routing(self, pass_: str) -> None:
        """Refuse experts that cannot be spread as the pass needs them."""
        if self.shape.moe is None:
            return
        if pass_ != "decode":
            self.routing(self.seq_len // self.grid.cp * self.sequences)
        if pass_ == "decode" or (pass_ == "prefill" and self.schedule.asks_again):
            self.routing(self.sequences, replicated=True)

    def resolved(self) -> Plan:
        """With the schedule's defaults filled in."""
        return replace(self, schedule=self.schedule.resolve(self.setup))
