"""Parts of a layer that pause where communication has been issued, so that another microbatch is recorded meanwhile.

    A  attention | -> experts | products | -> back | sum, next attention | ...
    B            attention | -> experts | products | -> back | ...

A part is a generator: it yields behind an all-to-all, or a sum over tensor parallel ranks, and returns what it
computes. Alone it is run to its end; two in turn hide each other's messages, as kernels of one are issued between a
message of the other and what waits for it. Source: DeepSeek-V3 technical report (arXiv 2412.19437), section 3.4: two
microbatches of inference, one's attention beside the other's dispatch and combine; TokenWeave (arXiv 2505.11329) for
sums over tensor parallel ranks.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from simulator.layers.net import Var

Steps = Generator[None, None, Var]
"""Of a part: what it returns is what it computes."""


def finish(steps: Steps) -> Var:
    """What a part computes, recorded without a pause."""
    (found,) = in_turn([steps])
    return found


def in_turn(parts: Sequence[Steps]) -> list[Var]:
    """What parts compute that are recorded in turn, from pause to pause."""
    found: dict[int, Var] = {}
    while len(found) < len(parts):
        for number, steps in enumerate(parts):
            if number in found:
                continue
            try:
                next(steps)
            except StopIteration as done:
                found[number] = done.value
    return [found[number] for number in range(len(parts))]
