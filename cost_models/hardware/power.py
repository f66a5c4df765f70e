"""What a GPU's control of power does to its clock."""

from __future__ import annotations

from cost_models.hardware.terms import Ratio, Seconds, Share, Terms


class PowerTerms(Terms):
    """What a GPU's control of power does to the clock, beyond what each kernel loses (`cost_models.kernels.power`).

    Parameters
    ----------
    overshoot, overshoot_s : the loss at first, over that in the end, and how long it lasts.
    deep_from_s, deep_for_s, deep_loss : duration of work after which a slower control takes a share of every kernel's
        rate, for how long, and which.
    later_loss : the share that it takes from then on, on average.
    """

    overshoot: Ratio = 1.0
    overshoot_s: Seconds = 0.0
    deep_from_s: Seconds = 1.0
    deep_for_s: Seconds = 0.0
    deep_loss: Share = 0.0
    later_loss: Share = 0.0

    def after_work(self, worked_s: float) -> PowerTerms:
        """The same for a GPU that has worked for so long without a rest."""
        acted_s = max(0.0, worked_s - self.deep_from_s)
        return self.model_copy(update={
            "overshoot_s": max(0.0, self.overshoot_s - worked_s),
            "deep_from_s": max(0.0, self.deep_from_s - worked_s),
            "deep_for_s": max(0.0, self.deep_for_s - acted_s),
        })  # fmt: skip
