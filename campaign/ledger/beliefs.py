"""What a noisy label says of its crystal: its value, drawn towards what was expected.

A value y with normal noise of standard deviation s, where m with a standard deviation of d was
expected, leaves a mean and a standard error of

    m + (y - m) d^2 / (d^2 + s^2),    d s / sqrt(d^2 + s^2)

The best of many noisy labels is the luckiest, the best of these means is not. All are in the
quantity's unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Belief:
    """A normal distribution: its mean and its standard deviation, of a label the standard error."""

    mean: float
    deviation: float

    def after(self, value: float, noise: float) -> Belief:
        """With a label of this value and noise, which is above 0."""
        total = math.hypot(self.deviation, noise)
        share = (self.deviation / total) ** 2
        return Belief(self.mean + share * (value - self.mean), self.deviation / total * noise)
