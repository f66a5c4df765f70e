"""Planning: many simulations of one question, and what they say together.

space     candidates: what could be run, and why the others cannot
points    one candidate simulated, cached by the digest of its inputs
runners   many points on all cores, or on a Dask cluster
bounds    when a candidate is so slow that its simulation may stop
objective, pareto, sensitivity     which is best, what else is worth a look, and what would help most
sweep     every combination of given values, as a table
"""
