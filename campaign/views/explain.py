"""The whole story of one candidate, from its proposal to the models that learned from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from campaign.clock import utc
from campaign.decide.select import decode_table
from campaign.errors import InputError
from campaign.ledger import CampaignState
from campaign.ledger.controls import named_in, told
from campaign.ledger.events import ObservationRow
from campaign.ledger.state import LabelRecord
from campaign.types import DERIVED
from campaign.views.view import OpenView


def resolve(state: CampaignState, prefix: str) -> str:
    """The full id of a candidate from its first digits. Raises InputError where none or several
    fit.
    """
    found = [identity for identity in state.candidates if identity.startswith(prefix)]
    if len(found) != 1:
        what = f"{len(found)} candidates' ids begin" if found else "no candidate's id begins"
        raise InputError(
            f"{what} with {prefix!r}", hint="`oreloop export` and the report list all ids"
        )
    return found[0]


def story(view: OpenView, identity: str) -> Iterator[tuple[str, str]]:
    """(heading, line) in the order in which things happened."""
    labels = [label for (candidate, _), label in view.state.labels.items() if candidate == identity]
    yield from _origin(view, identity)
    yield from _decisions(view, identity)
    yield from _controls(view.state, identity)
    yield from _waiting(view.state, identity)
    yield from _failures(view.state, identity)
    for label in labels:
        yield from _label(label)
    for label in labels:
        yield from _lessons(view.state, label)


def _origin(view: OpenView, identity: str) -> Iterator[tuple[str, str]]:
    record = view.state.candidates[identity]
    crystal = view.reader.crystal(identity)
    yield (
        "candidate",
        f"{identity}  {crystal.formula}, {len(crystal)} atoms, "
        f"{crystal.volume / len(crystal):.2f} angstrom^3 per atom",
    )
    if record.source:
        yield "came from", ", ".join(text for text in (record.source, record.name) if text)
    for key, value in record.facts.items():
        yield "", f"{key}: {value}"
    for event, row in record.proposals:
        parents = f" from {', '.join(row.parents)}" if row.parents else ""
        condition = (
            f", {', '.join(f'{key} {value}' for key, value in row.condition.items())}"
            if row.condition
            else ""
        )
        checkpoint = f", checkpoint {event.checkpoint[:12]}" if event.checkpoint else ""
        yield (
            "proposed",
            f"round {event.round} by {event.generator}{parents}{condition}{checkpoint}, random "
            f"stream {event.stream}",
        )
    if record.verdict is not None:
        verdict = record.verdict
        yield (
            "screened",
            "accepted" if verdict.is_accepted else f"refused by {verdict.screen}: {verdict.reason}",
        )


def _controls(state: CampaignState, identity: str) -> Iterator[tuple[str, str]]:
    for time, control in state.controls.history:
        if identity in named_in(control):
            yield "controlled", f"{utc(time)} {told(control)}"
    for (candidate, oracle), held in state.controls.held.items():
        if candidate == identity and candidate not in state.controls.approved:
            yield (
                "held",
                f"would climb to {oracle} ({held.reason or 'chosen by the model'}) once people "
                "approve it",
            )


def _waiting(state: CampaignState, identity: str) -> Iterator[tuple[str, str]]:
    for (candidate, oracle), round_index in state.pending.items():
        if candidate == identity:
            purpose = state.requested.get((identity, oracle))
            wanted = (
                f"wanted as {purpose}"
                if purpose
                else f"selected for {oracle} in round {round_index}"
            )
            yield "waiting", f"{wanted}, not labelled yet"


def _failures(state: CampaignState, identity: str) -> Iterator[tuple[str, str]]:
    for _, time, failed in state.failures:
        if failed.candidate == identity:
            where = f" on {failed.worker}" if failed.worker else ""
            end = "; not tried again" if failed.is_quarantined else ""
            yield (
                "failed",
                f"{utc(time)} attempt {failed.attempt + 1} at {failed.oracle}{where}: "
                f"{failed.kind}: {failed.message}{end}",
            )


def _label(label: LabelRecord) -> Iterator[tuple[str, str]]:
    where = (
        f" on {label.worker}, attempt {label.attempt + 1}, {label.wall_seconds:.3g} s"
        if label.worker
        else ""
    )
    yield "labelled", f"{utc(label.finished)} by {label.oracle} ({label.fidelity}){where}"
    for observation in label.observations:
        yield "", f"{observation.quantity} = {_value(observation)} {observation.unit}"
    for quantity in DERIVED:
        if quantity.name in label.values:
            value = f"{label.values[quantity.name]:.6g} {quantity.unit}"
            yield "", f"{quantity.name} = {value}, as the labels stand now"
    if label.crystal is not None:
        yield "", f"relaxed crystal {label.crystal}"


def _lessons(state: CampaignState, label: LabelRecord) -> Iterator[tuple[str, str]]:
    """The models and generators that learned from a label."""
    after = [record for record in state.rounds if record.sequence > label.sequence]
    fits = [record.fitted for record in after if record.fitted is not None]
    if fits:
        first = f"the first in round {fits[0].round} ({fits[0].model[:12]})"
        yield "taught", f"{len(fits)} models, {first}"
    for training in (event for events in state.checkpoints.values() for event in events):
        if state.rounds[training.round].sequence > label.sequence:
            used = "used" if training.is_published else "not used: the gate kept the old one"
            yield (
                "taught",
                f"{training.generator} in round {training.round}, checkpoint "
                f"{training.checkpoint[:12]} ({used})",
            )


def _value(observation: ObservationRow) -> str:
    if isinstance(observation.value, list):
        shape = np.shape(observation.value)
        return f"array {shape} of at most {np.abs(np.array(observation.value)).max():.4g}"
    return f"{observation.value:.6g}" + (
        f" +- {observation.noise:.2g}" if observation.noise else ""
    )


def _decisions(view: OpenView, identity: str) -> Iterator[tuple[str, str]]:
    for record in view.state.rounds:
        decided = record.decided
        if decided is None:
            continue
        chosen = [choice for choice in decided.choices if choice.candidate == identity]
        figures = (
            decode_table(view.reader.blob(decided.table)).get(identity)
            if decided.table is not None
            else None
        )
        if not chosen and figures is None:
            continue
        text = f"round {record.index}, {decided.acquisition}, pool of {decided.pool_size}"
        if figures is not None:
            score, mean, deviation = figures
            predicted = f", predicted {mean:.5g} +- {deviation:.2g}" if np.isfinite(mean) else ""
            text += f": score {score:.4g}{predicted} by model {(decided.model or '')[:12]}"
        for choice in chosen:
            text += f", for {choice.oracle}" + (f" ({choice.reason})" if choice.reason else "")
            text += (
                f", stable with probability {choice.stable:.2g}"
                if choice.stable is not None
                else ""
            )
        yield ("chosen" if chosen else "not chosen"), text
