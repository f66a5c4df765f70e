r"""How long one point-to-point transfer takes on a link, by its size.

    t(n) = latency + n / rate(n) + ramp n / (n + n_ramp),        rate(n) = min(efficiency bandwidth, c(n) r_channel)

``ramp`` is the time in which the pipeline of chunks fills, of which small messages see only a part. NCCL moves a
message over c channels (thread blocks), and one channel reaches r_channel only. Send and receive start with c =
c_max / group size (all ranks of the communicator may send at once), no more than the message has parts of 64 KiB, and
double it while a channel has more than 16 MiB; so a neighbour in a large group gets fewer channels, and a message just
above a doubling can take less time than one just below.

Source: NVIDIA/nccl 2.30.7 src/enqueue.cc and src/graph/paths.cc (chunk 512 KiB on NVLink, minPart = chunk / 8, maxPart
= 32 chunks).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.hardware.terms import Count, Fraction, Positive, Seconds, Terms

LINK_KINDS = ("nvlink", "c2c", "pcie", "shm", "net", "socket")

MIN_PART_BYTES = 64 * 2**10
MAX_PART_BYTES = 16 * 2**20


class LinkCurve(Terms):
    """Time of a transfer on one kind of link.

    Parameters
    ----------
    latency_s : of the smallest message.
    ramp_s, ramp_bytes : time in which the pipeline fills, and the size of message that sees half of it.
    efficiency : share of the link's bandwidth that large messages reach.
    channel_bytes_per_s : what one channel moves; None where channels do not limit.
    max_channels : channels of a send in a group of one peer.
    """

    latency_s: Seconds
    ramp_s: Seconds
    ramp_bytes: Positive
    efficiency: Fraction
    channel_bytes_per_s: Positive | None = None
    max_channels: Count = 32

    def channels(self, n_bytes: ArrayLike, group_size: int = 2) -> NDArray[np.float64]:
        """Channels that NCCL uses for a message in a communicator of ``group_size`` ranks.

        >>> from cost_models.hardware import load_hardware
        >>> load_hardware("h100-sxm").links["nvlink"].channels([2**20, 2**28, 2**29]).tolist()
        [16.0, 16.0, 32.0]
        """
        size = np.maximum(np.asarray(n_bytes, dtype=np.float64), 1.0)
        first = 2.0 ** np.floor(np.log2(max(self.max_channels / max(group_size, 1), 1.0)))
        channels = np.minimum(first, np.ceil(size / MIN_PART_BYTES))
        doublings = np.ceil(np.log2(np.maximum(size / (channels * MAX_PART_BYTES), 1.0)))
        doubled = channels * np.exp2(doublings)
        return np.asarray(np.minimum(doubled, np.maximum(channels, self.max_channels)))

    def rate_bytes_per_s(
        self, n_bytes: ArrayLike, link_bytes_per_s: ArrayLike, group_size: int = 2
    ) -> NDArray[np.float64]:
        """Rate at which a message moves once it does, on a link alone."""
        rate = self.efficiency * np.asarray(link_bytes_per_s, dtype=np.float64)
        if self.channel_bytes_per_s is None:
            return np.broadcast_to(rate, np.broadcast(rate, n_bytes).shape)
        return np.minimum(rate, self.channels(n_bytes, group_size) * self.channel_bytes_per_s)

    def overhead_s(self, n_bytes: ArrayLike) -> NDArray[np.float64]:
        """Time besides that of moving the bytes: latency, and the pipeline's filling."""
        size = np.asarray(n_bytes, dtype=np.float64)
        return np.asarray(self.latency_s + self.ramp_s * size / (size + self.ramp_bytes))

    def transfer_s(self, n_bytes: ArrayLike, link_bytes_per_s: ArrayLike, group_size: int = 2) -> Any:
        """Time of a transfer on a link alone.

        Parameters
        ----------
        n_bytes : size of the message, number or array.
        link_bytes_per_s : physical bandwidth in one direction.
        group_size : ranks of the communicator.

        Returns
        -------
        seconds, of the shape of the arguments.
        """
        size = np.asarray(n_bytes, dtype=np.float64)
        seconds = self.overhead_s(size) + size / self.rate_bytes_per_s(size, link_bytes_per_s, group_size)
        return float(seconds) if np.ndim(seconds) == 0 else seconds
