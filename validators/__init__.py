"""Reality: executes Programs on tensors and compares what was measured with what was predicted. Needs torch."""
