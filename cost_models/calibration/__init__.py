"""Fitting a hardware profile to measurements (`traces.records`), and how wrong the fit is.

Interface: :func:`calibrate`, which gives a :class:`Calibration`; ``calibration.overlay()`` is what the profile's file
of calibrated terms holds, ``calibration.summary()`` the figures of its report.

Every fitted number is a physical quantity of the models in `cost_models.kernels` (a time per tile, a share of memory
bandwidth, a duration after which the power limit acts), has a 90 % interval, and is judged on whole sequence lengths
and whole shapes that were left out of the fit.
"""

from __future__ import annotations

from cost_models.calibration.fit import Calibration, FittedPass, calibrate

__all__ = ["Calibration", "FittedPass", "calibrate"]
