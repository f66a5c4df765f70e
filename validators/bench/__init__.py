"""Microbenchmarks: what a fit of a hardware profile needs, and no more.

A plan (`plan`) lists cases in order of worth; the runner (`runner`) skips those already recorded, checks each result
against a reference in higher precision, and appends one `traces.records.CalibrationRecord` per case, so that a run can
be stopped at any moment and goes on where it was. Nothing here needs more than PyTorch, NumPy and Triton, which is what
a bare GPU node has.

| kind | module | measures |
|---|---|---|
| attention | `attention` | one call of an attention kernel, alone on an idle GPU |
| sustained | `attention` | the same call without a pause for a second: what the power limit leaves of the clock |
| gemm | `gemm` | a dense product |
| elementwise | `elementwise` | a memory-bound operation of a recorded Program, as the executors do it |
| host | `host` | what the host needs to issue one |
| network, interference | `network`, `network_calls` | NCCL or gloo, under torchrun |
"""
