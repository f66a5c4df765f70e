"""Predictions against reality: are results right, and how far is each predicted time from the measured one."""
