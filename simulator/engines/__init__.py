"""Engines: from a costed Program to when everything happens."""
