"""An oracle in closed form whose labels of much chromium are worthless, and say so."""

import numpy as np

from campaign.types import Evaluation, Observation, Quantity

SHIFT, NOISE = 40.0, 400.0
"""What worthless labels are wrong by, and their stated standard deviation (1)."""


class NoisyOracle:
    """The share of nickel less that of chromium, squared."""

    quantities = (Quantity("value", "1"),)

    def evaluate(self, crystal):
        nickel, chromium = (float(np.mean(crystal.numbers == number)) for number in (28, 24))
        is_worthless = chromium >= 0.5
        value = (nickel - chromium) ** 2 + (SHIFT if is_worthless else 0.0)
        noise = NOISE if is_worthless else None
        return Evaluation(observations=(Observation("value", value, "1", noise),))
