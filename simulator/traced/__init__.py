"""Measured traces as Programs: what ran, why it ran when it did, and what would be if something were different.

    Recording --issues--> each rank's rows in an order the engines' rules allow, with what each waits for
              --merge---> Operations of all ranks, communication shared between its ranks
              --timing--> the measured time of each, split into what it waited, its own gap, and its work
    Program + TracedCosts --maxplus--> Timeline

By construction the Program, simulated with the costs it was measured with, reproduces the trace; with other costs, or
other dependencies, it answers what-if questions.
"""
