"""The discrete-event engine, the only part of the project that knows SimPy.

Interface: :class:`DiscreteEvents`, a run of a Program, and :class:`Links`, flows on links by themselves.
"""

from simulator.engines.des.engine import DiscreteEvents
from simulator.engines.des.links import Links

__all__ = ["DiscreteEvents", "Links"]
