"""The report as a page: words, numbers and figures from the ledger, in one file without links to
the network.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, select_autoescape
from plotly.offline import get_plotlyjs
from ruamel.yaml import YAML

from campaign import __version__
from campaign.code import installed
from campaign.config.loaded import LoadedConfig
from campaign.decide import calibration, ladder, ranking, shares
from campaign.files import write_whole
from campaign.ledger import CampaignState
from campaign.report import decisions, figures, finds, stability, structures
from campaign.report.pictures import cif
from campaign.report.plotted import html
from campaign.text import file_name, shown
from campaign.types import ENERGY_ABOVE_HULL
from campaign.views import methods, metrics
from campaign.views.progress import constraints, cost_so_far, duration
from campaign.views.view import OpenView, View

_BEST = 20


def write_report(view: OpenView, folder: Path) -> Path:
    """Write ``report.html`` and the CIF files of the best structures below a folder; returns the
    page.
    """
    loaded, state, axis = view.loaded, view.state, view.axis
    objective, oracle, wanted = view.objective, view.oracle, view.wanted
    leaders = state.leaders(wanted)
    best = ranking.ranked(state, wanted, _BEST)
    relaxed = view.reader.crystals([item.label.crystal or item.label.candidate for item in best])
    before = set((folder / "best").glob("[0-9][0-9]-*.cif"))
    chances = calibration.chances(state)
    rows: list[dict[str, Any]] = []
    shown = []
    for item, crystal in zip(best, relaxed, strict=True):
        label = item.label
        path = (
            folder
            / "best"
            / file_name(f"{item.rank:02d}-{crystal.formula}-{label.candidate[:8]}.cif")
        )
        write_whole(path, cif(crystal).encode())
        before.discard(path)
        shown.append((f"{item.rank}. {crystal.formula}", crystal))
        others = {
            f"{row.quantity} ({row.unit})": row.value
            for row in label.observations
            if row.quantity != objective.quantity
        }
        belief = leaders.belief(label)
        if belief is not None:
            others[f"{objective.quantity} believed ({view.unit})"] = belief.mean
            others[f"{objective.quantity} standard error ({view.unit})"] = belief.deviation
        if label.candidate in chances:
            others["chance to be stable when chosen"] = chances[label.candidate]
        rows.append(
            {
                "rank": item.rank,
                "standing": ranking.standing(item, wanted),
                "candidate": label.candidate,
                "formula": crystal.structure.composition.reduced_formula,
                "atoms": len(crystal),
                "value": label.values[objective.quantity],
                "others": others,
                "source": ": ".join(
                    text
                    for text in (state.source_of(label.candidate), state.called(label.candidate))
                    if text
                ),
                "round": label.round,
                "file": f"best/{path.name}",
            }
        )
    for outdated in before:
        outdated.unlink()
    found = [
        label
        for label in state.labels.values()
        if label.oracle == oracle and objective.quantity in label.values
    ]
    compositions = []
    for label in found:
        compositions.append(
            (
                state.composition(label.candidate),
                label.values[objective.quantity],
                figures.named(state, label.candidate),
            )
        )
    brought = metrics.contributions(state, wanted)
    pictures: list[tuple[str, str]] = []

    def add(title: str, figure: go.Figure | None) -> None:
        if figure is not None:
            pictures.append((title, html(figure)))

    if found:
        add("Best so far", figures.best_so_far(view))
        add("Predicted before labelling, against found", figures.parity(view))
        add("Pareto front", decisions.front(view))
        add("Labels inside the predicted intervals", decisions.coverage(view))
        if objective.quantity == ENERGY_ABOVE_HULL.name:
            add("How the hull moved", stability.moves(view))
            add("Chances to be stable, and what came true", stability.reliability(view))
        add("Composition", figures.composition(compositions, loaded.config.space.elements, axis))
    for entry in sorted(entry_points(group="oreloop.figures"), key=lambda entry: entry.name):
        for title, figure in entry.load()(state):
            add(title, figure)
    add("Which generator was asked, and what was labelled of it", decisions.shares(state))
    add("Labels by oracle and generator", figures.labels_by_oracle(brought))
    add("From proposed to labelled", figures.funnel(_funnel(state)))
    if state.own_labels or state.failures:
        add("Workers", figures.timeline(state))
    others_shown = list(
        dict.fromkeys(
            name
            for row in rows
            for name, value in row["others"].items()
            if isinstance(value, int | float)
        )
    )
    page = render(
        "report.html.j2",
        name=loaded.config.name,
        facts=summary(view),
        axis=axis,
        unit=view.unit,
        best=rows,
        others=others_shown,
        pictures=pictures,
        generators=_generators(view),
        contributions=brought,
        stable=finds.section(view)
        if objective.quantity == ENERGY_ABOVE_HULL.name and found
        else None,
        view=html(structures.view(shown)),
        losses=_losses(state),
        failures=Counter((event.oracle, event.kind) for _, _, event in state.failures),
        levels=ladder.agreement(state, loaded.config),
        settings=_settings(loaded),
        fidelities=loaded.fidelity_keys,
        methods=methods.paragraph(view, installed()),
        citations=methods.citations(loaded),
    )
    path = folder / "report.html"
    write_whole(path, page.encode())
    return path


def render(template: str, **values: Any) -> str:
    """A template with the plots' library in the page itself."""
    environment = Environment(
        loader=PackageLoader("campaign.report"),
        autoescape=select_autoescape(default=True),
        finalize=_plain,
    )
    return environment.get_template(template).render(
        version=__version__, plotly=get_plotlyjs(), **values
    )


def _plain(value: Any) -> Any:
    return shown(value) if type(value) is str else value


def summary(view: View) -> dict[str, str]:
    """The campaign in words and numbers, by heading."""
    from pymatgen.core import Composition

    state, config, unit = view.state, view.config, view.unit
    objective, wanted = view.objective, view.wanted
    leaders = state.leaders(wanted)
    best = leaders.best
    first = [
        label
        for label in state.labels.values()
        if label.oracle == view.oracle and (label.source or label.round == 0)
    ]
    found: dict[str, str] = {"objective": f"{objective.direction} {objective.quantity} ({unit})"}
    for further in config.objectives[1:]:
        found["objective"] += (
            f", {further.direction} {further.quantity} ({view.units[further.quantity]})"
        )
    if spent := cost_so_far(view):
        found["cost"] = spent
    if wanted.bounds:
        found["constraints"] = (
            f"{constraints(config)}: {leaders.n_holding} of {leaders.n_known} labels hold"
        )
    if best is None and leaders.n_known:
        found["best"] = f"none of {leaders.n_known} labels holds the constraints"
    hull = state.hull(view.oracle) if objective.quantity == ENERGY_ABOVE_HULL.name else None
    if hull is not None:
        compounds = {
            Composition(counts).reduced_formula
            for label in hull.stable
            if len(counts := state.counts(label.candidate)) > 1
        }
        found["on the hull"] = ", ".join(sorted(compounds)) or "the elements alone"
    elif best is not None:
        value = leaders.believed(best)[objective.quantity]
        found["best"] = (
            f"{ranking.value_of(state, wanted, best)} {unit}, "
            f"{state.formula(best.candidate)}, candidate {best.candidate}"
        )
        starts = [
            leaders.believed(label)[objective.quantity]
            for label in first
            if wanted.gains(label.values) is not None
            and wanted.holds(label.values, state.counts(label.candidate))
        ]
        if starts:
            start = max(starts, key=objective.gain)
            held = " that hold the constraints" if wanted.bounds else ""
            found["gain over the start"] = (
                f"{value - start:+.4g} {unit} (best of the first {len(starts)} labels{held}: "
                f"{start:.6g})"
            )
    cost = sum(label.wall_seconds for label in state.own_labels)
    taken_over = sum(bool(label.source) for label in state.labels.values())
    references = len(state.labels) - len(state.own_labels) - taken_over
    found["labels"] = (
        f"{len(state.own_labels)} paid for in {duration(cost)} of worker time, {references} "
        f"references, {taken_over} taken over"
    )
    found["failures"] = (
        f"attempts that failed: {len(state.failures)}; candidates given up: "
        f"{len(state.quarantined)}"
    )
    found["rounds"] = str(len(state.rounds))
    found["running time"] = f"{duration(state.active_seconds)} in {len(state.sessions)} session(s)"
    found["state"] = (
        state.session_ended.reason
        if state.session_ended is not None
        else "running, or ended without notice"
    )
    return found


def _settings(loaded: LoadedConfig) -> str:
    """What the config sets beside the defaults, as YAML; not where ledger and tracking are."""
    text = io.StringIO()
    YAML().dump(
        loaded.config.model_dump(
            mode="json", exclude_defaults=True, exclude={"ledger": True, "tracking": {"uri"}}
        ),
        text,
    )
    return text.getvalue()


def _funnel(state: CampaignState) -> dict[str, int]:
    records = state.candidates.values()
    selected = {
        choice.candidate
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
    }
    return {
        "proposed": sum(bool(record.proposals) for record in records),
        "accepted": sum(
            record.verdict is not None and record.verdict.is_accepted for record in records
        ),
        "selected": len(selected),
        "labelled": len({label.candidate for label in state.own_labels}),
    }


def _losses(state: CampaignState) -> list[tuple[str, str, int]]:
    """Where candidates were lost between proposal and label: the step, the reason, and how many."""
    verdicts = [
        record.verdict for record in state.candidates.values() if record.verdict is not None
    ]
    refusals = Counter(verdict.screen for verdict in verdicts if not verdict.is_accepted)
    found = [("screened", reason, count) for reason, count in refusals.most_common()]
    chosen = {
        choice.candidate
        for record in state.rounds
        if record.decided
        for choice in record.decided.choices
    }
    waiting = sum(
        r.verdict is not None and r.verdict.is_accepted and name not in chosen
        for name, r in state.candidates.items()
    )
    found.append(("accepted", "not selected", waiting))
    kinds = Counter(f"{event.oracle}: {event.kind}" for event in state.quarantined.values())
    found += [("selected", f"given up, {kind}", count) for kind, count in kinds.most_common()]
    found.append(("selected", "not labelled yet", len(state.selected_pending)))
    return [row for row in found if row[2]]


def _generators(view: View) -> list[dict[str, Any]]:
    """What each generator brought: proposals, labels, seconds spent proposing, and the gain per
    second that the bandit goes by.
    """
    state = view.state
    proposed: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    for record in state.rounds:
        for event in record.proposed:
            proposed[event.generator] += len(event.proposals)
            seconds[event.generator] += event.seconds
    labelled = Counter(state.source_of(label.candidate) for label in state.own_labels)
    found = shares.yields(state, view.config, view.oracle, state.sequence + 1)
    return [
        {
            "name": name,
            "proposed": proposed[name],
            "labelled": labelled[name],
            "seconds": seconds[name],
            "rate": found[name].rate if name in found else 0.0,
        }
        for name in sorted(proposed)
    ]
