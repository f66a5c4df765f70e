"""Data: timelines, calibration records, their formats, metrics and figures. Imports nothing of ours."""
