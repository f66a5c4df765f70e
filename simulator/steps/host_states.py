"""Optimizer states in memory of the host: brought to the GPU for the update of their weights, and taken back after it.

Source: the streaming of states by Rajbhandari et al. 2021 (ZeRO-Infinity, arXiv 2104.07857, section 5.2.2), updated on
the GPU; ZeRO-Offload (arXiv 2101.06840) updates on the CPU, which is not modelled.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.recorder import Recorder
from simulator.program.tape import Tensor

States = tuple[Tensor, ...]


class HostStates:
    """Copies of optimizer states.

    Parameters
    ----------
    r : the recorder.
    on_host : whether the states are in memory of the host; if not, they are used where they lie.
    """

    def __init__(self, r: Recorder, *, on_host: bool) -> None:
        self._r, self.on_host = r, on_host
        self._leaving: States = ()

    def bring(self, states: Sequence[States]) -> list[States]:
        """Each weight's states, on the GPU."""
        if not self.on_host or not states:
            return list(states)
        tensors = self._r.fetch([tensor for each in states for tensor in each])
        count = len(states[0])
        return [tensors[number * count : (number + 1) * count] for number in range(len(states))]

    def take_back(self, states: Sequence[States], here: Sequence[States]) -> None:
        """Copy updated states to where they came from; what left before has left."""
        if not self.on_host or not states:
            return
        self.settle()
        self._leaving = tuple([tensor for each in states for tensor in each])
        self._r.copy_between("offload", [tensor for each in here for tensor in each], self._leaving)

    def settle(self) -> None:
        """Wait for what is on its way out."""
        if self._leaving:
            self._r.wait_for(self._leaving)
        self._leaving = ()
