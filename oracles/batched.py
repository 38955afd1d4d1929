"""Static labels of one crystal or of many together, by networks that are asked of all of them at
once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from campaign.types import Crystal, Evaluation
from oracles.mechanics import Mechanics
from oracles.static import StaticOracle
from oracles.together import Ask, AskingMechanics, Request, alone, side_by_side

if TYPE_CHECKING:
    from oracles.many import Relaxations, Relaxed


class BatchedOracle(StaticOracle):
    """Base of the oracles on networks: relaxations by L-BFGS, of all crystals of a batch side by
    side.
    """

    config: Any

    @property
    @abstractmethod
    def networks(self) -> Any:
        """The ``PairModel``, made once."""

    def _relaxations(self) -> Relaxations:
        """None under way. What they call converged is what a label needs."""
        from oracles.many import Criterion, Relaxations

        config = self.config
        criterion = Criterion(
            config.force_tolerance, config.residual_force, config.residual_pressure
        )
        return Relaxations(self.networks, criterion, config.max_steps, config.device)

    def _alone(self, request: Request) -> Relaxed:
        return alone(self._relaxations(), request)

    def make_mechanics(self) -> Mechanics:
        return AskingMechanics(self._alone, self.networks.check)

    def evaluate(self, crystal: Crystal) -> Evaluation:
        return self.evaluate_by(self._alone, crystal)

    def evaluate_many(self, crystals: Sequence[Crystal]) -> Iterator[tuple[int, Evaluation]]:
        """Each crystal's index with its evaluation, as they are ready; relaxations and strained
        cells of all are computed together.
        """
        return side_by_side(
            self._relaxations(),
            [partial(self.evaluate_by, crystal=crystal) for crystal in crystals],
        )

    def evaluate_by(self, ask: Ask, crystal: Crystal) -> Evaluation:
        """By an engine of its own that asks for all that is computed."""
        one = copy(self)
        one._mechanics = AskingMechanics(ask, self.networks.check)
        return StaticOracle.evaluate(one, crystal)
