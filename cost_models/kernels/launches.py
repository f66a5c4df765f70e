"""How many kernels the host launches for one attention call.

| kernel | forward | backward | source |
|---|---|---|---|
| flash2 | 1 | 3: delta and clearing, main, dQ conversion | Dao-AILab/flash-attention, csrc/flash_attn/src/flash_bwd_launch_template.h |
| flash3 | 1 | 3: as flash2 | hopper/flash_bwd_launch_template.h |
| cudnn | 1 | 1: one graph, which holds its own kernels | PyTorch aten/src/ATen/native/cudnn/MHA.cpp |
| flex | 1 | 2: delta, main | PyTorch torch/_inductor/kernel/flex_attention.py |
| triton | 1 | 2: preprocess, main | Triton tutorial 06-fused-attention |
"""  # noqa: E501

from __future__ import annotations

_LAUNCHES = {"flash2": (1, 3), "flash3": (1, 3), "cudnn": (1, 1), "flex": (1, 2), "triton": (1, 2)}
_UNKNOWN = (1, 3)


def attention_launches(kernel: str, direction: str) -> int:
    """Launches of one call; a kernel of the user's own counts as flash-attention 2.

    >>> attention_launches("flash2", "forward"), attention_launches("flash2", "backward")
    (1, 3)
    """
    return _LAUNCHES.get(kernel, _UNKNOWN)[direction == "backward"]
