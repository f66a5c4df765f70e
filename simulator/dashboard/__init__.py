"""The dashboard: a form, and the figures of `traces.figures` that follow it, in a browser on this machine.

state      what the form holds; as a request and a link
reproduce  a state as a command line and as Python
fields     what each field is called, and how it is filled in
checks     which fields are wrong, and why
answers    a state simulated: the ranking, and one schedule with its timeline (max-plus)
crossings  the crossover map, in the background
measured   a measured timeline, a validation run or a calibration beside them
views      answers as figures and tables
layout, form, panels    the page, its form as a state, and what each view shows
app, exports    callbacks, and files to take away
"""
