"""Machines: schedules recorded as Programs, costed and run by two engines. Imports ``cost_models`` and ``traces``."""
