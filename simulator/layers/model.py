"""A decoder-only transformer: embedding, layers, last norm, head.

Weights come in units, which are gathered, reduced and freed together: the embedding, each layer, the end. A pipeline
stage holds consecutive layers; the first has the embedding, the last the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cost_models.finetuning import FullFineTuning, Method
from simulator.layers.adapters import adapt, freeze_ends
from simulator.layers.build import layer_weights
from simulator.layers.cache import KvCache
from simulator.layers.core import Kept
from simulator.layers.ends import Rows, full_loss, fused_loss
from simulator.layers.layer import Context, layer_in_steps, transformer_layer
from simulator.layers.linear import embed, linear
from simulator.layers.net import Net, Var
from simulator.layers.pointwise import rms_norm
from simulator.layers.turns import Steps
from simulator.layers.weights import WeightMaker, Weights
from simulator.program.tape import Tensor
from traces.errors import InputError


@dataclass
class Model:
    """A model's parts for the ranks of a grid.

    Parameters
    ----------
    context : shape, schedule and parallel ranks.
    loss_chunks : chunks of the sequence over which head and loss are fused; None for whole logits.
    method : of fine-tuning.
    experts_over : data parallel ranks over which experts are spread.
    """

    context: Context
    maker: WeightMaker
    loss_chunks: int | None = None
    method: Method = FullFineTuning()
    experts_over: int = 1
    layers: list[Weights] = field(default_factory=list)
    ends: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.maker.check()
        layers = range(self.context.shape.layers)
        made = [layer_weights(self.maker, index, self.experts_over) for index in layers]
        self.layers = [adapt(self.method, self.maker, index, weights) for index, weights in enumerate(made)]
        self.ends = freeze_ends(self.method, self.maker.ends())

    def stage_layers(self, stage: int, stages: int) -> range:
        """Layers of a pipeline stage."""
        count = len(self.layers)
        if count % stages:
            raise InputError("layers are not divisible by the pipeline stages", got=f"{count} / {stages}")
        return range(count // stages * stage, count // stages * (stage + 1))

    def embed(self, net: Net, ids: Tensor) -> Var:
        """Hidden states of token ids."""
        context, table = self.context, self.ends["embed_tokens"]
        offset = context.parallel.grid.coordinate("tp") * table.rows
        return context.parallel.leave(net, embed(net, ids, table, context.shape.hidden, offset))

    def layer(self, net: Net, index: int, x: Var, kept: Kept | None = None, cache: KvCache | None = None) -> Var:
        """Hidden states after a layer."""
        return transformer_layer(net, self.context, self.layers[index], x, kept, cache)

    def layer_in_steps(self, net: Net, index: int, x: Var, cache: KvCache) -> Steps:
        """The same, with pauses where communication has been issued."""
        return layer_in_steps(net, self.context, self.layers[index], x, None, cache)

    def entered(self, net: Net, x: Var) -> Var:
        """The head's input, on all tensor parallel ranks."""
        return self.context.parallel.enter(net, rms_norm(net, x, self.ends["norm"]), self.context.home)

    def last_logits(self, net: Net, x: Var) -> Tensor:
        """Logits after the last token that each rank has."""
        last = _last_token(net, x.tensor)
        if self.context.parallel.splits_tokens:
            last = _last_token(net, self.context.parallel.all_gather(net, last, None))
        normed = rms_norm(net, Var(last, None), self.ends["norm"])
        return linear(net, normed, self.ends["lm_head"], "logits").tensor

    def loss(self, net: Net, x: Var, labels: Tensor, scale: float) -> list[Rows]:
        """Loss of the hidden states after the last layer."""
        x = self.entered(net, x)
        head, parallel = self.ends["lm_head"], self.context.parallel
        if self.loss_chunks:
            return fused_loss(net, parallel, x, head, labels, scale, self.loss_chunks)
        return [full_loss(net, parallel, x, head, labels, scale)]


def _last_token(net: Net, x: Tensor) -> Tensor:
    b = x.buffer
    last = net.r.tensor(b.name, None, 1, b.dim, b.dtype, tokens=1, batch=b.batch)
    return net.r.copy("take_tokens", (x,), last, "copy", rows=(-1, 0))
