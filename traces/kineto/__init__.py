"""Kineto traces (Chrome trace JSON as PyTorch's profiler writes it) of all ranks, read into one timeline.

    files --stream--> events --rank--> RankTrace, one per file --clocks--> aligned --recording--> Recording

Real traces are large and foreign: they are read event by event, and what is not understood is counted, not guessed.
"""

from traces.kineto.recording import Recording, read_recording

__all__ = ["Recording", "read_recording"]
