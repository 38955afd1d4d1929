"""What a backtest's runs say: curves, regret, factors against the baseline. Pure functions of the
runs.

Acceleration and enhancement factors: Q. Liang et al., npj Comput. Mater. 7 (2021) 188. A call is
one attempt of an oracle, failed or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from campaign.types import FloatArray, Objective


@dataclass(frozen=True)
class Run:
    """One strategy with one seed: the oracle calls in the order in which they ended.

    ``values``: labels, NaN for a failure or another oracle's; ``ends``: virtual s; ``costs``:
    worker s; ``further``: labels of more quantities by name; ``broken``: which calls gave a label
    that breaks a constraint, which is never the best; none where empty.
    """

    strategy: str
    seed: int
    values: FloatArray
    ends: FloatArray
    costs: FloatArray
    further: Mapping[str, FloatArray] = field(default_factory=dict)
    broken: tuple[int, ...] = ()

    @property
    def wanted(self) -> FloatArray:
        """(n,) the labels that hold the constraints; NaN elsewhere."""
        found = self.values.copy()
        found[list(self.broken)] = np.nan
        return found


@dataclass(frozen=True)
class Summary:
    """Of a strategy over its seeds.

    ``calls_to_target``, ``time_to_target``, ``cost_to_target``: medians, infinite where most runs
    miss it; ``acceleration``: the baseline's calls over its own (a run that misses counts as its
    last call), with the quartiles over pairs of seeds; ``enhancement``: share of the best rows
    found, over the baseline's; ``discovery``: mean share of the best rows found over all calls
    (area under the discovery curve); ``regret``: median distance of the best label from the best
    there is, at the end.
    """

    strategy: str
    seeds: int
    best: float
    regret: float
    calls_to_target: float
    time_to_target: float
    cost_to_target: float
    acceleration: float
    acceleration_quartiles: tuple[float, float]
    enhancement: float
    discovery: float
    failures: float


def best_so_far(run: Run, objective: Objective) -> FloatArray:
    """(n,) the best gain after each call; minus infinity before the first label."""
    gains = np.where(np.isnan(run.wanted), -np.inf, objective.gain(run.wanted))
    found: FloatArray = np.maximum.accumulate(gains)
    return found


def calls_to(run: Run, objective: Objective, target: float) -> float:
    """Calls until a value is reached; infinite where it is not."""
    reached = np.flatnonzero(best_so_far(run, objective) >= objective.gain(target))
    return float(reached[0] + 1) if len(reached) else math.inf


def cost_to(run: Run, objective: Objective, target: float) -> float:
    """Worker seconds spent until a value is reached; infinite where it is not."""
    calls = calls_to(run, objective, target)
    return float(run.costs[: int(calls)].sum()) if math.isfinite(calls) else math.inf


def discovered(run: Run, objective: Objective, target: float, n_best: int) -> FloatArray:
    """(n,) the share of the best rows that were found after each call."""
    hits = np.where(
        np.isnan(run.wanted), False, objective.gain(run.wanted) >= objective.gain(target)
    )
    return np.cumsum(hits) / max(1, n_best)


def curve(runs: Sequence[Run], objective: Objective) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Median, 10 % and 90 % quantile over the seeds of the best value after each call, in the
    objective's unit.
    """
    n = min(len(run.values) for run in runs)
    gains = np.array([best_so_far(run, objective)[:n] for run in runs])
    low, middle, high = np.quantile(gains, [0.1, 0.5, 0.9], axis=0, method="nearest")
    sign = objective.sign if objective.direction != "match" else 1
    return sign * middle, sign * low, sign * high


def summarise(
    runs: Sequence[Run],
    baseline: Sequence[Run],
    objective: Objective,
    target: float,
    best: float,
    n_best: int,
) -> Summary:
    """``target`` is the value to reach, ``best`` the best there is, ``n_best`` how many rows reach
    the target.
    """

    calls = np.array([calls_to(run, objective, target) for run in runs])
    reached = [
        (run, int(n)) if math.isfinite(n) else None for run, n in zip(runs, calls, strict=True)
    ]
    capped = np.minimum(calls, [len(run.values) for run in runs])
    theirs = np.array([min(calls_to(run, objective, target), len(run.values)) for run in baseline])
    ratios = theirs[:, None] / capped[None]
    last = [best_so_far(run, objective)[-1] for run in runs]
    share = float(np.mean([discovered(run, objective, target, n_best)[-1] for run in runs]))
    their_share = float(
        np.mean([discovered(run, objective, target, n_best)[-1] for run in baseline])
    )
    return Summary(
        strategy=runs[0].strategy,
        seeds=len(runs),
        best=float(np.median(last)) * (objective.sign if objective.direction != "match" else 1),
        regret=float(np.median(objective.gain(best) - np.array(last))),
        calls_to_target=float(np.median(calls)),
        time_to_target=float(
            np.median([item[0].ends[item[1] - 1] if item else math.inf for item in reached])
        ),
        cost_to_target=float(np.median([cost_to(run, objective, target) for run in runs])),
        acceleration=float(np.median(theirs) / np.median(capped)),
        acceleration_quartiles=(float(np.quantile(ratios, 0.25)), float(np.quantile(ratios, 0.75))),
        enhancement=share / their_share if their_share > 0 else math.inf,
        discovery=float(
            np.mean([discovered(run, objective, target, n_best).mean() for run in runs])
        ),
        failures=float(np.mean([np.isnan(run.values).mean() for run in runs])),
    )
