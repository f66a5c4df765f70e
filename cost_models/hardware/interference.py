"""What communication takes from kernels on its GPU."""

from __future__ import annotations

from pydantic import model_validator

from cost_models.hardware.links import LINK_KINDS
from cost_models.hardware.terms import Count, Fraction, Positive, Terms


class InterferenceTerms(Terms):
    """What communication takes from kernels beside it (`simulator.engines.interference`).

    The defaults follow from what NCCL's kernels do (NVIDIA/nccl 2.30.7, src/device/prims_simple.h, src/transport/): a
    channel is a thread block on a multiprocessor of its own. Where GPUs reach each other, a sender reads its tensor and
    writes into the receiver's buffer, which the receiver reads and writes to its tensor: one byte of the sender's
    memory traffic and three of the receiver's. A NIC reads and writes a buffer on its own GPU, three and three; buffers
    in host memory cost the GPUs one and one.

    A multiprocessor that becomes free goes to the kernel that was there first, so that communication starts when a
    kernel that fills the GPU has handed out its blocks. That is so with PyTorch's default (ProcessGroupNCCL's
    ``is_high_priority_stream`` is false) and in the executors here. It is not so with streams of high priority, with
    one launch queue (CUDA_DEVICE_MAX_CONNECTIONS=1: kernels start in the order in which the host launches them), or
    where kernels leave multiprocessors free. Source: MagiAttention docs/source/blog/kernel_overlap.md ("SM
    starvation"); NVIDIA/Megatron-LM issues 533 and 827; CUDA C++ programming guide, stream priorities.

    Parameters
    ----------
    sms_per_channel : multiprocessors that a channel keeps from kernels.
    communication_first : whether communication gets them before blocks of kernels that run already.
    communication_share : of the rate alone that communication over NVLink keeps beside an attention kernel, by
        KERNEL_DIRECTION; all of it beside others. A channel has so much under way, and memory that a kernel loads
        answers later. Measured as 0.68 beside cuDNN's backward, whatever the channels.
    send_traffic, receive_traffic : bytes of memory traffic per byte sent and received, by kind of link.
    """

    sms_per_channel: Count = 1
    communication_first: bool = False
    communication_share: dict[str, Fraction] = {}
    send_traffic: dict[str, Positive] = {
        "nvlink": 1.0, "c2c": 1.0, "pcie": 1.0, "shm": 1.0, "net": 3.0, "socket": 1.0
    }  # fmt: skip
    receive_traffic: dict[str, Positive] = {
        "nvlink": 3.0, "c2c": 3.0, "pcie": 3.0, "shm": 1.0, "net": 3.0, "socket": 1.0
    }  # fmt: skip

    @model_validator(mode="after")
    def _has_all_kinds(self) -> InterferenceTerms:
        if set(self.send_traffic) != set(LINK_KINDS) or set(self.receive_traffic) != set(LINK_KINDS):
            raise ValueError("traffic is not given for exactly " + ", ".join(LINK_KINDS))
        return self
