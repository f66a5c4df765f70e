r"""How long one point-to-point transfer takes on a link, by its size.

    t(n) = latency + n / rate + ramp m / (m + m_ramp),     m = n / c,     rate = ((e B)^-8 + (c r)^-8)^(-1/8)

``ramp`` is the time in which the pipeline of chunks fills, of which small messages see only a part. NCCL moves a
message over c channels (thread blocks), as many as the communicator gives a peer (`cost_models.network.communicator`),
and one channel reaches r only: what its warps have in flight over the time of a round trip, which grows as the link B
fills. So what channels carry and what the link carries do not meet in a corner: between two H100 (NV18, both ways at
once) 1, 2, 4, 16 and 32 channels move 22.2, 44, 88, 302 to 320 and 361 GB/s, and on A100 8 and 16 channels 111 and 195.
A channel that only sends, to one that only receives, has all its warps for that: 34 GB/s instead of 22.

Where channels do not limit (r is not known), m is the message and rate the link's share e B.
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
MEETING = 8.0
"""Exponent by which the rates of channels and link meet, found between two H100 and confirmed by 8 A100."""
LINK_KINDS = ("nvlink", "c2c", "pcie", "shm", "net", "socket")


class LinkCurve(Terms):
    """Time of a transfer on one kind of link.

    Parameters
    ----------
    latency_s : of the smallest message.
    ramp_s, ramp_bytes : time in which the pipeline fills, and the bytes of a channel (of the message, where channels
        do not limit) that see half of it.
    efficiency : share of the link's bandwidth that large messages reach.
    channel_bytes_per_s : what one channel moves each way; None where channels do not limit.
    one_way_bytes_per_s : what one moves that only sends or only receives; None where that is not known to be more.
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
    one_way_bytes_per_s: Positive | None = None
    start_s: Seconds | None = None
    step_s: Seconds | None = None
    collective_efficiency: Fraction | None = None
    call_error: Share | None = None

    def rate_bytes_per_s(
        self, link_bytes_per_s: ArrayLike, channels: ArrayLike | None = None, *, one_way: ArrayLike = False
    ) -> NDArray[np.float64]:
        """Rate at which a message moves once it does, on a link alone; over enough channels unless told how many.

        Parameters
        ----------
        one_way : whether neither end does the other's work at the same time.

        >>> from cost_models.hardware import load_hardware
        >>> nvlink = load_hardware("h100-sxm").links["nvlink"]
        >>> (nvlink.rate_bytes_per_s(370.8e9, [1, 4, 16, 32]) / 1e9).round(1).tolist()
        [22.1, 88.4, 321.3, 347.3]
        """
        rate = self.efficiency * np.asarray(link_bytes_per_s, dtype=np.float64)
        if self.channel_bytes_per_s is None or channels is None:
            return rate
        one = np.where(one_way, self.one_way_bytes_per_s or self.channel_bytes_per_s, self.channel_bytes_per_s)
        return np.asarray(rate * (1 + (rate / (np.asarray(channels) * one)) ** MEETING) ** (-1 / MEETING))

    def overhead_s(self, n_bytes: ArrayLike, channels: ArrayLike | None = None) -> NDArray[np.float64]:
        """Time besides that of moving the bytes: latency, and the pipeline's filling."""
        size = np.asarray(n_bytes, dtype=np.float64)
        if self.channel_bytes_per_s is not None and channels is not None:
            size = size / np.asarray(channels, np.float64)
        return np.asarray(self.latency_s + self.ramp_s * size / (size + self.ramp_bytes))

    def transfer_s(
        self, n_bytes: ArrayLike, link_bytes_per_s: ArrayLike, channels: ArrayLike | None = None, *,
        one_way: ArrayLike = False,
    ) -> Any:  # fmt: skip
        """Time of a transfer on a link alone.

        Parameters
        ----------
        n_bytes : size of the message, number or array.
        link_bytes_per_s : physical bandwidth in one direction.
        channels : over which it goes; by default enough for the link.
        one_way : as for :meth:`rate_bytes_per_s`.

        Returns
        -------
        seconds, of the shape of the arguments.
        """
        size = np.asarray(n_bytes, dtype=np.float64)
        rate = self.rate_bytes_per_s(link_bytes_per_s, channels, one_way=one_way)
        seconds = self.overhead_s(size, channels) + size / rate
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
