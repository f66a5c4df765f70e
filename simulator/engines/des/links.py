"""Links between GPUs in a discrete-event run: the network of flows, driven by SimPy's clock."""

from __future__ import annotations

from collections.abc import Callable

import simpy

from simulator.engines.des.events import Due, Late
from simulator.engines.devices import Devices
from simulator.engines.flows import Ask, Flow
from simulator.engines.fluid import Network


class Links:
    """The network of flows, driven by the clock: settled at the end of an instant, woken when data arrive.

    Attributes
    ----------
    devices : GPUs that may slow flows, settled before them.
    """

    def __init__(self, env: simpy.Environment, capacities: list[float]) -> None:
        self._env, self.network = env, Network(capacities)
        self.devices: Devices | None = None
        self._will_settle = False
        self._wakes: set[int] = set()

    def send(self, ask: Ask, left: Callable[[Flow], object] | None = None) -> tuple[Flow, simpy.Event]:
        """A flow begins; with an event for its arrival."""
        arrived = simpy.Event(self._env)
        flow = self.network.start(ask, int(self._env.now), arrived.succeed, left)
        self.settle_later()
        return flow, arrived

    @property
    def now_ns(self) -> int:
        """The time."""
        return int(self._env.now)

    def at(self, time_ns: int) -> Due:
        """An event then."""
        return Due(self._env, time_ns)

    def settle_later(self) -> None:
        """Rates and speeds are to be found anew at the end of this instant."""
        if not self._will_settle:
            self._will_settle = True
            Late(self._env).callbacks.append(self._settle)

    def _settle(self, _: simpy.Event) -> None:
        if self.devices is not None:
            self.devices.settle()
        self._will_settle = False
        if not self.network.is_idle:
            self.network.settle(int(self._env.now))
            self._set_alarm()

    def _set_alarm(self) -> None:
        next_ns = self.network.next_ns
        if next_ns is not None and next_ns not in self._wakes:
            self._wakes.add(next_ns)
            self._env.timeout(next_ns - int(self._env.now)).callbacks.append(self._wake)

    def _wake(self, _: simpy.Event) -> None:
        now = int(self._env.now)
        self._wakes.discard(now)
        if self.network.finish(now):
            self.settle_later()
        else:
            self._set_alarm()
