"""Whole steps of models: training, prefill, decode; recorded like a schedule."""
