"""Axes of the grid by what their ranks share."""

DATA = ("cp", "dp")
"""Ranks that differ in these only hold the same weights and see different tokens."""
