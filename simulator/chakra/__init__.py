"""Programs as Chakra execution traces and back: what other simulators (ASTRA-sim) read, and what they record."""
