r"""How long one point-to-point transfer takes on a link, by its size.

    t(n) = latency + n / rate + ramp n / (n + n_ramp),        rate = min(efficiency bandwidth, c r_channel)

``ramp`` is the time in which the pipeline of chunks fills, of which small messages see only a part. NCCL moves a
message over c channels (thread blocks), as many as the communicator gives a peer (`cost_models.network.communicator`),
and one channel reaches r_channel only: what the warps of one block have in flight over the time of a round trip. On
NVLink one channel carries about 20 GB/s on Hopper and Blackwell, 14 to 15 on A100, whose receiver reads; sends to one
peer reach 0.81 of what NCCL takes a GPU's links for, on both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BeforeValidator, Field, model_validator

from cost_models.hardware.terms import Fraction, Positive, Seconds, Share, Terms

TWO_RANKS = ("exchange", "one-way", "all_to_all", "all_gather", "reduce_scatter", "all_reduce")
"""Operations of two ranks that are measured by link type."""
LINK_KINDS = ("nvlink", "c2c", "pcie", "shm", "net", "socket")


class LinkCurve(Terms):
    """Time of a transfer on one kind of link.

    Parameters
    ----------
    latency_s : of the smallest message.
    ramp_s, ramp_bytes : time in which the pipeline fills, and the size of message that sees half of it.
    efficiency : share of the link's bandwidth that large messages reach.
    channel_bytes_per_s : what one channel moves; None where channels do not limit.
    start_s, step_s, collective_efficiency : of collectives over such links, where they were measured
        (`cost_models.network.terms`).
    call_error : half-width of the 90 % band of whole calls that use such links, beyond the errors of their terms; None
        where it is that of the profile.
    """

    latency_s: Seconds
    ramp_s: Seconds
    ramp_bytes: Positive
    efficiency: Fraction
    channel_bytes_per_s: Positive | None = None
    start_s: Seconds | None = None
    step_s: Seconds | None = None
    collective_efficiency: Fraction | None = None
    call_error: Share | None = None

    def rate_bytes_per_s(self, link_bytes_per_s: ArrayLike, channels: ArrayLike | None = None) -> NDArray[np.float64]:
        """Rate at which a message moves once it does, on a link alone; over enough channels unless told how many.

        >>> from cost_models.hardware import load_hardware
        >>> (load_hardware("h100-sxm").links["nvlink"].rate_bytes_per_s(370.8e9, [1, 4, 16]) / 1e9).round(1).tolist()
        [20.2, 80.8, 300.3]
        """
        rate = self.efficiency * np.asarray(link_bytes_per_s, dtype=np.float64)
        if self.channel_bytes_per_s is None or channels is None:
            return rate
        return np.minimum(rate, np.asarray(channels) * self.channel_bytes_per_s)

    def overhead_s(self, n_bytes: ArrayLike) -> NDArray[np.float64]:
        """Time besides that of moving the bytes: latency, and the pipeline's filling."""
        size = np.asarray(n_bytes, dtype=np.float64)
        return np.asarray(self.latency_s + self.ramp_s * size / (size + self.ramp_bytes))

    def transfer_s(self, n_bytes: ArrayLike, link_bytes_per_s: ArrayLike, channels: ArrayLike | None = None) -> Any:
        """Time of a transfer on a link alone.

        Parameters
        ----------
        n_bytes : size of the message, number or array.
        link_bytes_per_s : physical bandwidth in one direction.
        channels : over which it goes; by default enough for the link.

        Returns
        -------
        seconds, of the shape of the arguments.
        """
        size = np.asarray(n_bytes, dtype=np.float64)
        seconds = self.overhead_s(size) + size / self.rate_bytes_per_s(link_bytes_per_s, channels)
        return float(seconds) if np.ndim(seconds) == 0 else seconds


def _floats(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, list) else value


_Sizes = Annotated[tuple[Annotated[float, Field(ge=0, le=1e15)], ...], BeforeValidator(_floats), Field(min_length=1)]
_Times = Annotated[tuple[Seconds, ...], BeforeValidator(_floats), Field(min_length=1)]
_Rates = Annotated[tuple[Positive, ...], BeforeValidator(_floats), Field(min_length=1)]


class Regimes(Terms):
    """Time of an operation of two ranks by its size: a latency and a rate from each size on.

        t(n) = latency_i + n / rate_i,        from_i < n <= from_(i + 1)

    NCCL goes over to other protocols, or more channels, at some sizes, and pipelines of chunks fill at others.

    Parameters
    ----------
    from_bytes : largest sizes to which the regime before applies, in order, the first 0.
    latency_s, bytes_per_s : of each.
    """

    from_bytes: _Sizes
    latency_s: _Times
    bytes_per_s: _Rates

    @model_validator(mode="after")
    def _is_ordered(self) -> Regimes:
        if not len(self.from_bytes) == len(self.latency_s) == len(self.bytes_per_s):
            raise ValueError("regimes do not have as many sizes, latencies and rates")
        if self.from_bytes[0] != 0 or any(a >= b for a, b in pairwise(self.from_bytes)):
            raise ValueError("regimes do not begin at 0 and ascend")
        return self

    def at(self, n_bytes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Latency and rate of messages of these sizes.

        >>> regimes = Regimes(from_bytes=(0.0, 1e6), latency_s=(1e-5, 3e-5), bytes_per_s=(1e9, 2e9))
        >>> regimes.at([10, 2e6])
        (array([1.e-05, 3.e-05]), array([1.e+09, 2.e+09]))
        """
        number = np.maximum(np.searchsorted(self.from_bytes, np.asarray(n_bytes, np.float64)) - 1, 0)
        return np.asarray(self.latency_s)[number], np.asarray(self.bytes_per_s)[number]

    def seconds(self, n_bytes: float) -> float:
        """Time of one message.

        >>> Regimes(from_bytes=(0.0,), latency_s=(1e-5,), bytes_per_s=(1e9,)).seconds(1e6)
        0.00101
        """
        latency_s, bytes_per_s = self.at(n_bytes)
        return float(latency_s + n_bytes / bytes_per_s)

    def faster(self, factor: float) -> Regimes:
        """With rates so many times as high."""
        return self.model_copy(update={"bytes_per_s": tuple(rate * factor for rate in self.bytes_per_s)})
