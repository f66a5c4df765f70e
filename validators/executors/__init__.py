"""Executors of recorded Programs."""
