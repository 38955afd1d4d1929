"""An oracle of two quantities in closed form, which fails where there is much chromium."""

import numpy as np

from campaign.types import Evaluation, Failure, FailureKind, Observation, Quantity


class TwoQuantities:
    quantities = (Quantity("first", "1"), Quantity("second", "1"))

    def evaluate(self, crystal):
        nickel, chromium = (float(np.mean(crystal.numbers == number)) for number in (28, 24))
        if chromium >= 0.6:
            return Evaluation(failure=Failure(FailureKind.CRASH, "much chromium", retryable=False))
        return Evaluation(
            observations=(
                Observation("first", nickel - chromium, "1"),
                Observation("second", nickel**2, "1"),
            )
        )
