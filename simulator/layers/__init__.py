"""Layers of models as recorded Programs: forward, and with it backward."""
