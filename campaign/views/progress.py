"""What a person sees while a campaign runs: a live display at a terminal, a log line a minute
elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Protocol

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from campaign.config.loaded import LoadedConfig
from campaign.config.schema import CampaignConfig
from campaign.decide import budget, ladder, ranking
from campaign.ledger import CampaignState
from campaign.ledger.debts import debts
from campaign.types import ENERGY_ABOVE_HULL
from campaign.views.terminal import PlainConsole
from campaign.views.view import View

log = logging.getLogger(__name__)

_LINE_SECONDS = 60.0
_REDRAW_SECONDS = 0.25
_SHOWN_DEBTS = 5


class Display(Protocol):
    def __call__(self, state: CampaignState) -> None: ...


def share_done(view: View) -> float | None:
    """The largest share of any limit that is used up; None where nothing limits the campaign."""
    state, config = view.state, view.config
    shares = [
        state.busy_seconds[name] / seconds for name, seconds in config.budget.oracle_seconds.items()
    ]
    shares += [
        cost / config.budget.cost[name]
        for name, cost in budget.spent(state, config).items()
        if name in config.budget.cost
    ]
    if (labels := budget.labels_limit(state, config)) is not None:
        shares.append(len(state.own_labels) / max(1, labels))
    if config.budget.rounds is not None:
        shares.append(
            sum(record.ended is not None for record in state.rounds) / config.budget.rounds
        )
    if config.budget.wall_time is not None:
        shares.append(state.active_seconds / config.budget.wall_time)
    return min(1.0, max(shares)) if shares else None


def seconds_left(view: View) -> float | None:
    """Expected running time left, from the time so far; None where that cannot be told."""
    share = share_done(view)
    return view.state.active_seconds * (1 - share) / share if share else None


def duration(seconds: float | None) -> str:
    """A time for people: 45 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def facts(view: View) -> dict[str, str]:
    """The lines of a status: what stands where."""
    state, config, oracle = view.state, view.config, view.oracle
    objective, wanted = view.objective, view.wanted
    leaders = state.leaders(wanted)
    best = leaders.best
    labels = budget.labels_limit(state, config)
    limit = f" of {labels}" if labels is not None else ""
    rounds = f" of {config.budget.rounds}" if config.budget.rounds is not None else ""
    kinds: dict[str, int] = {}
    for _, _, event in state.failures:
        kinds[event.kind] = kinds.get(event.kind, 0) + 1
    found = {
        "rounds": f"{sum(record.ended is not None for record in state.rounds)} ended{rounds}",
        "labels": f"{len(state.own_labels)}{limit}, {len(state.pending)} selected and not labelled",
        "best": "none yet",
        "failures": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none",
        "running time": f"{duration(state.active_seconds)}, {duration(seconds_left(view))} left",
    }
    if cost := cost_so_far(view):
        found["cost"] = cost
    if best is not None:
        value = f"{objective.quantity} {ranking.value_of(state, wanted, best)} {view.unit}"
        found["best"] = f"{value}  {state.formula(best.candidate)}  ({best.candidate})"
    elif leaders.n_known:
        found["best"] = f"none yet: none of {leaders.n_known} labels holds the constraints"
    if wanted.bounds:
        found["constraints"] = (
            f"{leaders.n_holding} of {leaders.n_known} labels hold {constraints(config)}"
        )
    if len(wanted.objectives) > 1:
        found["Pareto front"] = (
            f"{len(leaders.front)} labels, best is the one with the best {objective.quantity}"
        )
    hull = state.hull(oracle) if objective.quantity == ENERGY_ABOVE_HULL.name else None
    if hull is not None:
        found["hull"] = (
            f"{len(hull.stable)} of {len(hull.labels)} labels of {oracle} lie on it, version "
            f"{hull.version}"
        )
    for name, lacking in groupby(
        sorted(debts(state), key=lambda debt: debt.oracle), key=lambda debt: debt.oracle
    ):
        told = [f"{debt.formula} {debt.name}" for debt in lacking]
        more = f" and {len(told) - _SHOWN_DEBTS} more" if len(told) > _SHOWN_DEBTS else ""
        found[f"hull debt at {name}"] = (
            f"{len(told)} phases have no label: {', '.join(told[:_SHOWN_DEBTS])}{more}"
        )
    refused = Counter(
        r.verdict.screen
        for r in state.candidates.values()
        if r.verdict is not None and not r.verdict.is_accepted
    )
    if refused:
        found["refused"] = ", ".join(
            f"{count} by {screen}" for screen, count in refused.most_common()
        )
    found |= _controls(state)
    waiting = [
        f"{state.formula(row.candidate)} {row.candidate[:8]} for {row.oracle}"
        for row in ladder.waits_for_approval(state, config)
    ]
    if waiting:
        more = f" and {len(waiting) - _SHOWN_DEBTS} more" if len(waiting) > _SHOWN_DEBTS else ""
        found["waiting for approval"] = f"{', '.join(waiting[:_SHOWN_DEBTS])}{more}"
    for name, reason in state.paused.items():
        found[f"oracle {name}"] = f"paused: {reason}"
    return found


def cost_so_far(view: View) -> str:
    """What labels cost by currency, with the budget; empty where no oracle has a price."""
    limits = {currency: f" of {limit:g}" for currency, limit in view.config.budget.cost.items()}
    return ", ".join(
        f"{cost:.4g}{limits.get(currency, '')} {currency}"
        for currency, cost in budget.spent(view.state, view.config).items()
    )


def _controls(state: CampaignState) -> dict[str, str]:
    """What people changed."""
    controls, found = state.controls, {}
    if controls.paused is not None:
        found["paused"] = controls.pause
    if controls.labels:
        found["budget"] = f"changed by {controls.labels:+d} labels"
    if controls.banned:
        found["banned"] = ", ".join(
            f"{element} by {event.by}" for element, event in controls.banned.items()
        )
    if state.pinned:
        found["pinned"] = f"{len(state.pinned)} candidates are labelled next"
    if controls.approved:
        found["approved"] = f"{len(controls.approved)} candidates"
    if controls.vetoed:
        found["vetoed"] = f"{len(controls.vetoed)} candidates"
    return found


def constraints(config: CampaignConfig) -> str:
    """The bounds in words."""
    return ", ".join(
        f"{item.quantity} {'at least' if item.bound[0] > 0 else 'at most'} {item.bound[1]:g}"
        for item in config.constraints
    )


class _LiveDisplay:
    def __init__(self, live: Live, console: PlainConsole, loaded: LoadedConfig) -> None:
        self._live, self._console, self._loaded = live, console, loaded
        self._drawn = 0.0

    def __call__(self, state: CampaignState) -> None:
        if time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        view = View(self._loaded, state)
        table = Table.grid(padding=(0, 2))
        for name, text in facts(view).items():
            table.add_row(self._console.styled(name, "bold"), text)
        share = share_done(view)
        if share is not None:
            table.add_row(
                self._console.styled("done", "bold"),
                ProgressBar(total=1.0, completed=share, width=50),
            )
        self._live.update(table, refresh=True)


class _LogDisplay:
    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self._logged = time.monotonic()

    def __call__(self, state: CampaignState) -> None:
        if time.monotonic() - self._logged < _LINE_SECONDS:
            return
        self._logged = time.monotonic()
        log.info(
            "; ".join(f"{name}: {text}" for name, text in facts(View(self._loaded, state)).items())
        )


@contextmanager
def display(console: PlainConsole, loaded: LoadedConfig) -> Iterator[Display]:
    """The display that suits the console, for the time of a block."""
    if not console.is_terminal:
        yield _LogDisplay(loaded)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _LiveDisplay(live, console, loaded)
