"""What a kernel or an operator does, by its name: the category and kind that timelines use.

The first pattern that matches decides. Names are those of FlashAttention 2 and 3, cuDNN, cuBLAS (nvjet), CUTLASS,
Triton, PyTorch 2.x and NCCL up to 2.28, as found in traces. NCCL runs point-to-point exchanges and all-to-all in one
kernel, ``SendRecv``; which of the two it is says the collective's name, or the annotation around it.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Kind(NamedTuple):
    """Category and kind, as in :class:`traces.timeline.OperationInfo`."""

    category: str
    kind: str


_BACKWARD = r"bwd|bprop|backward|dot_do_o|convert_dq|attn_bw|fmha_cutlassB"
_ATTENTION = r"flash|fmha|sdpa|scaled_dot_product|attention|attn_|mha_|compute_dot_do_o|convert_dq_to"

KERNELS = (
    (rf"(?=.*({_ATTENTION}))(?=.*({_BACKWARD}))", "attention_backward"),
    (_ATTENTION, "attention_forward"),
    (r"nvjet|gemm|gemv|cutlass|cublas|xmma|splitKreduce|wgrad|dgrad|matmul", "gemm"),
    (r"softmax|layer_?norm|rms_?norm|batch_?norm|reduce|triton_(red|per)_|scan|sort|topk", "reduction"),
    (r"elementwise|CatArray|copy|fill|index|gather|scatter|triton_poi|foreach|multi_tensor|permute", "elementwise"),
)  # fmt: skip
OPERATORS = (
    (rf"(?=.*({_ATTENTION}))(?=.*(backward))", "attention_backward"),
    (_ATTENTION, "attention_forward"),
    (r"::(mm|bmm|addmm|addbmm|baddbmm|matmul|linear|mv|einsum|dot)$|(Mm|Bmm|Addmm|Linear|Matmul)Backward", "gemm"),
    (r"softmax|norm|::(sum|mean|max|min|topk|sort|cumsum)$", "reduction"),
    (r"^(aten|autograd|torch)::", "elementwise"),
)
COLLECTIVES = (
    (r"all_?to_?all", "all_to_all"),
    (r"reduce_?scatter", "reduce_scatter"),
    (r"all_?gather", "all_gather"),
    (r"all_?reduce", "all_reduce"),
    (r"broadcast", "broadcast"),
    (r"barrier", "barrier"),
    (r"(?<!all)(?<!all_)reduce", "reduce"),
    (r"gather", "gather"),
    (r"scatter", "scatter"),
    (r"send|recv|p2p|coalesced", "exchange"),
)

_COMMUNICATION = re.compile(r"^(nccl|gloo:|mpi:|rccl|hccl|oneccl)|ncclKernel|ncclDevKernel", re.IGNORECASE)


def classify_kernel(name: str, collective: str = "") -> Kind:
    """Category and kind of a device kernel.

    Parameters
    ----------
    collective : ``Collective name`` of its arguments, or the name of the annotation around it.

    >>> classify_kernel("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "all_to_allv")
    Kind(category='communication', kind='all_to_all')
    >>> classify_kernel("nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NTT").kind
    'gemm'
    """
    if is_communication(name):
        return classify_collective(name, collective)
    return Kind("compute", _first(KERNELS, name, "other"))


def classify_operator(name: str) -> Kind:
    """Category and kind of a CPU operator that does the work itself.

    >>> classify_operator("aten::mm").kind, classify_operator("c10d::allreduce_")
    ('gemm', Kind(category='host', kind='launch'))
    """
    if name.startswith("c10d::") or name == "record_param_comms":
        return Kind("host", "launch")
    return Kind("compute", _first(OPERATORS, name, "other"))


def classify_collective(name: str, collective: str = "") -> Kind:
    """Kind of communication; the collective's name says more than the kernel's."""
    found = _first(COLLECTIVES, collective, "") or _first(COLLECTIVES, name, "communication")
    return Kind("communication", found)


def is_communication(name: str) -> bool:
    """Whether a kernel or an annotation moves data between ranks."""
    return _COMMUNICATION.search(name) is not None


def _first(table: tuple[tuple[str, str], ...], name: str, otherwise: str) -> str:
    return next((kind for pattern, kind in table if re.search(pattern, name, re.IGNORECASE)), otherwise)
