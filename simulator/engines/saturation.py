"""Which links were full while flows wanted more, for how long, and whom that slowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Saturation:
    """A record that a network writes.

    Attributes
    ----------
    full : links that are full now, and since when.
    full_ns : time for which each link was full.
    slowed_ns : for each link, how long the transfers that crossed it while it was full got less than they could use.
    """

    full: dict[int, int] = field(default_factory=dict)
    full_ns: dict[int, int] = field(default_factory=dict)
    slowed_ns: dict[int, dict[str, int]] = field(default_factory=dict)

    def note(self, link: int, *, is_full: bool, now_ns: int) -> None:
        """A link is, or is not, full from now on."""
        if is_full:
            self.full.setdefault(link, now_ns)
        elif link in self.full:
            self.full_ns[link] = self.full_ns.get(link, 0) + now_ns - self.full.pop(link)

    def slowed(self, links: Iterable[tuple[int, float]], who: str, since_ns: int, now_ns: int) -> None:
        """A transfer got less than it could use since then: noted at each link that it crosses and that is full."""
        full = self.full
        for link, _ in links:
            if link in full:
                time_ns = now_ns - max(since_ns, full[link])
                if time_ns > 0:
                    by = self.slowed_ns.setdefault(link, {})
                    by[who] = by.get(who, 0) + time_ns
