"""Other people's implementations, run as they are: independent evidence beside our own schedules.

The packages are optional. Those that insist on flash-attn get a stand-in of that name (`stand_in`) over the kernels
that our executors use, so that what differs is the schedule.
"""
