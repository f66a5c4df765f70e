"""The sources of published measurements, a module each."""
