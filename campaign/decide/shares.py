"""Which generator to ask for how many: a bandit on what their labelled candidates brought per
second. A pure function of the state.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from campaign.config.schema import CampaignConfig
from campaign.decide import ranking
from campaign.ledger import CampaignState
from campaign.units import Standard

_GOOD = 0.8
"""Quantile of the labels above which one brings something."""


@dataclass(frozen=True)
class Yield:
    """Of one generator, later rounds counting more: what its labels brought, in standard
    deviations, its labels, and seconds spent.
    """

    gain: float
    labels: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.gain / self.seconds if self.seconds > 0 else 0.0


def yields(
    state: CampaignState, config: CampaignConfig, oracle: str, before: int
) -> dict[str, Yield]:
    """By generator, from the labels of an oracle that stand before an event.

    A label that holds the constraints brings how far it lies above the 80 % quantile of all such
    labels, in their standard deviation; a candidate of several generators counts for the first.
    Seconds are those of proposing and of labelling.
    """
    objective, memory = (
        config.objective.objective,
        config.generator_shares.memory if config.generator_shares else 1.0,
    )
    wanted = ranking.wanted_of(config, oracle)
    known = [
        (label, objective.gain(label.values[objective.quantity]))
        for label in state.own_labels
        if label.oracle == oracle
        and label.sequence < before
        and objective.quantity in label.values
        and wanted.holds(label.values, state.counts(label.candidate))
    ]
    now = len(state.rounds)
    gain, labels, seconds = (
        defaultdict[str, float](float),
        defaultdict[str, float](float),
        defaultdict[str, float](float),
    )
    for record in state.rounds:
        for event in record.proposed if record.sequence < before else ():
            seconds[event.generator] += memory ** (now - record.index) * event.seconds
    if known:
        values = np.array([value for _, value in known])
        bar, spread = float(np.quantile(values, _GOOD)), Standard.of(values).spread
        for label, value in known:
            proposals = state.candidates[label.candidate].proposals
            if proposals:
                weight = memory ** max(0, now - label.round)
                name = proposals[0][0].generator
                gain[name] += weight * max(0.0, value - bar) / spread
                labels[name] += weight
                seconds[name] += weight * label.wall_seconds
    return {
        item.label: Yield(gain[item.label], labels[item.label], seconds[item.label])
        for item in config.generators
    }


def counts(
    state: CampaignState, config: CampaignConfig, oracle: str, before: int
) -> dict[str, int]:
    """How many candidates each generator is asked for in a round that sees the labels before an
    event: its own count without a bandit.

    With one, shares of all counts: the floor for each, the rest in proportion to the rates. A
    generator without labels is taken to be as good as the best, so that it is tried.
    """
    asked = {item.label: item.count for item in config.generators}
    if config.generator_shares is None:
        return asked
    found = yields(state, config, oracle, before)
    rates = {name: item.rate for name, item in found.items() if item.labels > 0}
    if not rates or max(rates.values()) <= 0:
        return asked
    best = max(rates.values())
    all_rates = np.array([rates.get(name, best) for name in asked])
    floor = config.generator_shares.floor
    shares = floor + (1 - floor * len(asked)) * all_rates / all_rates.sum()
    return {
        name: max(1, round(float(share) * sum(asked.values())))
        for name, share in zip(asked, shares, strict=True)
    }
