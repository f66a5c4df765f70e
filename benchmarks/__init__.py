"""Speed and memory of attnsim itself: one core, a fresh process for every measurement."""
