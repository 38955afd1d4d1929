"""The state of a campaign, folded from its events. Nothing else is state."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, singledispatchmethod
from sys import intern
from typing import Any

from campaign.collecting import no_collection
from campaign.crystals import abundance
from campaign.ledger import events as ev
from campaign.ledger import sharing
from campaign.ledger.beliefs import Belief
from campaign.ledger.controls import Controls
from campaign.ledger.hulls import Hull
from campaign.ledger.leaders import Leaders, Wanted
from campaign.ledger.zeros import Zeros
from campaign.types import (
    ENERGY_ABOVE_HULL,
    FORMATION_ENERGY,
    FailureKind,
    counts_of,
    deciding_energy,
    reduced_formula,
)

_NO_FACTS: Mapping[str, Any] = {}


@dataclass(slots=True)
class CandidateRecord:
    identity: str
    equivalence: str
    verdict: ev.VerdictRow | None = None
    source: str = ""
    name: str = ""
    """What its source calls it."""
    facts: Mapping[str, Any] = field(default_factory=lambda: _NO_FACTS)
    """What else its source says of it."""
    _proposals: tuple[Any, ...] = ()
    """Event and row, one after the other."""

    @property
    def proposals(self) -> list[tuple[ev.Proposed, ev.ProposalRow]]:
        return list(zip(self._proposals[::2], self._proposals[1::2], strict=True))

    def propose(self, event: ev.Proposed, row: ev.ProposalRow) -> None:
        self._proposals = (*self._proposals, event, row)

    @property
    def is_accepted(self) -> bool:
        return self.verdict is not None and self.verdict.is_accepted


@dataclass(slots=True)
class LabelRecord:
    sequence: int
    round: int
    candidate: str
    oracle: str
    fidelity: str
    observations: tuple[ev.ObservationRow, ...]
    crystal: str | None
    derived: Mapping[str, float] | None = None
    """What follows from the observations and the composition so far."""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    worker: str = ""
    attempt: int = 0
    source: str = ""
    purpose: str = ""
    expected: Mapping[str, Belief] = field(default_factory=lambda: _NO_FACTS)
    """By quantity, of a label that states its noise: what the model that chose the candidate
    expected.
    """
    hull: Hull | None = None
    """Of its level, where energies above it are wanted."""

    @property
    def scalars(self) -> dict[str, float]:
        """As observed."""
        return {
            row.quantity: float(row.value)
            for row in self.observations
            if isinstance(row.value, _NUMBER) and math.isfinite(row.value)
        }

    @property
    def observed(self) -> dict[str, float]:
        """Scalars as observed, with what was derived from them so far."""
        return self.scalars if self.derived is None else {**self.scalars, **self.derived}

    @property
    def is_as_observed(self) -> bool:
        """Whether nothing follows from the observations so far, and none states its noise."""
        return self.derived is None and not any(row.noise for row in self.observations)

    def derive(self, quantity: str, value: float) -> None:
        """Whoever holds what was derived before keeps it as it was."""
        self.derived = {**(self.derived or {}), quantity: value}

    @property
    def values(self) -> dict[str, float]:
        """Scalars by quantity: observed ones, and those that follow from all labels of its level as
        they stand now.
        """
        if self.hull is not None:
            self.hull.settle()
        return self.observed

    @property
    def noise(self) -> dict[str, float]:
        """Standard deviations of the scalars whose noise the oracle states. What is derived from a
        label's energy has its noise; that of the references is the same for all labels.
        """
        if not any(row.noise for row in self.observations):
            return {}
        observed = self.observed
        stated = {
            row.quantity: row.noise if row.noise and math.isfinite(row.noise) else 0.0
            for row in self.observations
            if row.quantity in observed
        }
        if not any(stated.values()):
            return {}
        energy = deciding_energy(stated) or 0.0
        for name in (FORMATION_ENERGY.name, ENERGY_ABOVE_HULL.name):
            if name in self.values:
                stated.setdefault(name, energy)
        return {name: noise for name, noise in stated.items() if noise > 0}


@dataclass(slots=True)
class RoundRecord:
    index: int
    sequence: int
    started: float
    ended: float | None = None
    trained: list[ev.Trained] = field(default_factory=list)
    fitted: ev.Fitted | None = None
    proposed: list[ev.Proposed] = field(default_factory=list)
    judged: ev.Judged | None = None
    decided: ev.Decided | None = None
    asked: int | None = None


COMMITTEE = "committee"
"""The committee's name in the ledger."""

Pair = tuple[str, str]
ImportKey = tuple[str, str, str]
"""Purpose, path and oracle of a source."""

_RECENT = 50
_BANNED = "banned"
_OUTSIDE = -1
"""The round of work that no round selected."""
_BESIDES_WORK = (ev.SessionStarted, ev.ConfigRevised)
_NUMBER = (int, float)


class CampaignState:
    """Everything the loop decides from. ``apply`` takes one event at a time; the same events give
    the same state.
    """

    def __init__(self) -> None:
        self.sequence = 0
        self.time = 0.0
        self.created: ev.CampaignCreated | None = None
        self.created_time = 0.0
        self.config: ev.ConfigRevised | None = None
        self.revisions: list[tuple[int, float, ev.ConfigRevised]] = []
        self.sessions: list[tuple[float, ev.SessionStarted]] = []
        self.session_ended: ev.SessionEnded | None = None
        self.tracking: ev.TrackingStarted | None = None
        self.imports: list[ev.Imported] = []
        self.imported: dict[ImportKey, dict[str, ev.ImportedRow]] = {}
        """By source: what its last import holds, by candidate."""
        self.fed = 0
        """The last event that brought candidates from outside of the rounds."""
        self.candidates: dict[str, CandidateRecord] = {}
        self.by_formula: dict[str, list[str]] = {}
        self.labels: dict[Pair, LabelRecord] = {}
        self.failures: list[tuple[int, float, ev.Failed]] = []
        self._leaders: dict[Wanted, Leaders] = {}
        self.arrivals: list[LabelRecord] = []
        """Labels in the order in which they came, those that others replaced too."""
        self.n_changes = 0
        """How often labels that were there already changed: replaced, withdrawn, or with other
        derived values.
        """
        self.last_seconds: dict[str, deque[float]] = defaultdict(_last)
        """What the last labels took, by oracle."""
        self.last_failure: dict[Pair, ev.Failed] = {}
        self.tries: dict[Pair, list[str]] = defaultdict(list)
        """Kinds of the failures that count against a pair's further attempts; the surroundings' for
        one session.
        """
        self.quarantined: dict[Pair, ev.Failed] = {}
        self.own: dict[Pair, LabelRecord] = {}
        self.n_labels: Counter[str] = Counter()
        """Labels that were paid for, by oracle."""
        self.pending: dict[Pair, int] = {}
        self.outstanding: dict[int, int] = defaultdict(int)
        self.unlabelled: dict[str, None] = {}
        self.rounds: list[RoundRecord] = []
        self.open_rounds: dict[int, RoundRecord] = {}
        self.checkpoints: dict[str, list[ev.Trained]] = defaultdict(list)
        self.outcomes: dict[str, list[bool]] = defaultdict(list)
        self.paused: dict[str, str] = {}
        self.busy_seconds: dict[str, float] = defaultdict(float)
        self.active_seconds = 0.0
        self._awake = 0.0
        self.controls = Controls()
        self.keys: set[str] = set()
        self.requested: dict[Pair, str] = {}
        self._expected: dict[Pair, Mapping[str, Belief]] = {}
        """Of pairs that a model chose and that have no label yet."""
        self.sentinels: dict[Pair, list[ev.SentinelScored]] = defaultdict(list)
        self.zeros = Zeros()
        self._of_composition: tuple[str, ...] = ()
        """Quantities that the config names and the composition decides."""
        self.elemental: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
        """By oracle and element: the lowest energy per atom (eV) of a crystal of that element
        alone, and its candidate.
        """
        self._hulls: dict[str, Hull] = {}
        """By oracle, where energies above it are wanted."""
        self._wants_hull = False

    def apply(self, sequence: int, time: float, event: ev.Event) -> None:
        """Fold one event in. ``sequence`` counts from 1 without gaps; ``time`` in seconds since the
        epoch.
        """
        awake = event.awake
        passed = time - self.time if awake is None else awake - self._awake
        is_at_work = self.sessions and self.session_ended is None and self.controls.paused is None
        if is_at_work and passed > 0 and not isinstance(event, _BESIDES_WORK):
            self.active_seconds += passed
        if awake is not None:
            self._awake = awake
        self.sequence, self.time = sequence, time
        if event.key is not None:
            self.keys.add(event.key)
        _rule(type(event))(self, event)

    @singledispatchmethod
    def _apply(self, event: ev.Event) -> None:
        raise TypeError(f"no rule to fold {type(event).__name__}")

    @_apply.register
    def _(self, event: ev.CampaignCreated) -> None:
        self.created, self.created_time = event, self.time

    @_apply.register
    def _(self, event: ev.ConfigRevised) -> None:
        self.config = event
        zeros, of_composition = Zeros.of(event.config), _of_composition(event.config)
        if (zeros, of_composition) != (self.zeros, self._of_composition):
            self.zeros, self._of_composition = zeros, of_composition
            for oracle in dict.fromkeys(label.oracle for label in self.labels.values()):
                self._derive_anew(oracle)
        self.revisions.append((self.sequence, self.time, event))
        wanted = _wants_hull(event.config)
        if wanted != self._wants_hull:
            self._wants_hull = wanted
            for oracle in dict.fromkeys(label.oracle for label in self.labels.values()):
                self._derive_anew(oracle)

    @_apply.register
    def _(self, event: ev.SessionStarted) -> None:
        self.sessions.append((self.time, event))
        self.session_ended = None
        self.paused.clear()
        self.outcomes.clear()
        for kinds in self.tries.values():
            kinds[:] = [kind for kind in kinds if kind != FailureKind.INFRASTRUCTURE]

    @_apply.register
    def _(self, event: ev.SessionEnded) -> None:
        self.session_ended = event

    @_apply.register
    def _(self, event: ev.TrackingStarted) -> None:
        self.tracking = event

    @_apply.register
    def _(self, event: ev.Imported) -> None:
        self.imports.append(event)
        rows = {row.candidate: row for row in event.rows}
        for row in event.rows:
            record = self._candidate(row.candidate, row.equivalence)
            record.source = record.source or event.source
            if row.name or row.facts:
                record.name, record.facts = row.name, row.facts
        before = self.imported.get(import_key(event), {})
        if event.purpose:
            self.imported[import_key(event)] = rows
            self._replace_labels(before, rows, event)
            self._withdraw(before.keys() - rows.keys())
            return
        self.imported[import_key(event)] = before | rows
        for row in event.rows:
            if row.observations:
                self.unlabelled.pop(row.candidate, None)
                self._label(
                    row.candidate,
                    event.oracle,
                    event.fidelity,
                    row.observations,
                    row.candidate,
                    source=event.source,
                )
            else:
                self.candidates[row.candidate].verdict = ev.VerdictRow(row.candidate, True, "")
                self._offer(row.candidate)

    def _replace_labels(
        self,
        before: Mapping[str, ev.ImportedRow],
        after: Mapping[str, ev.ImportedRow],
        event: ev.Imported,
    ) -> None:
        """Labels as the sources give them now; a label that the campaign paid for stands."""
        is_withdrawn = False
        for candidate in [*after, *(candidate for candidate in before if candidate not in after)]:
            old, new = before.get(candidate), after.get(candidate)
            pair = candidate, event.oracle
            label = self.labels.get(pair)
            is_own = label is not None and not label.source
            if is_own or (old.observations if old else ()) == (new.observations if new else ()):
                continue
            source, observations = self._imported_observations(pair)
            if observations:
                self.unlabelled.pop(candidate, None)
                self._label(
                    candidate, event.oracle, event.fidelity, observations, candidate, source=source
                )
            else:
                self.labels.pop(pair, None)
                is_withdrawn = True
        if is_withdrawn:
            self._derive_anew(event.oracle)

    def _imported_observations(self, pair: Pair) -> tuple[str, tuple[ev.ObservationRow, ...]]:
        """The first source that gives a label, and what all of them together observed."""
        found: dict[str, ev.ObservationRow] = {}
        first = ""
        for (_, source, oracle), rows in self.imported.items():
            row = rows.get(pair[0]) if oracle == pair[1] else None
            if row is not None and row.observations:
                first = first or source
                found = {
                    observation.quantity: observation for observation in row.observations
                } | found
        return first, tuple(found.values())

    def _withdraw(self, candidates: Iterable[str]) -> None:
        """What no source and no generator brings any more leaves the pool; what lost its label
        returns to it.
        """
        taken = self._taken()
        for candidate in sorted(candidates):
            is_brought = bool(self.candidates[candidate].proposals) or any(
                candidate in rows for rows in self.imported.values()
            )
            if not is_brought:
                self.unlabelled.pop(candidate, None)
                self.controls.kept_back.pop(candidate, None)
            elif self.candidates[candidate].is_accepted and candidate not in taken:
                self._offer(candidate)

    def _taken(self) -> set[str]:
        """Candidates that are labelled, given up or selected by some oracle: nobody selects them
        again.
        """
        return {
            candidate
            for pairs in (self.labels, self.quarantined, self.pending)
            for candidate, _ in pairs
        }

    @_apply.register
    def _(self, event: ev.Screened) -> None:
        taken = self._taken()
        for verdict in map(self._final, event.verdicts):
            self.candidates[verdict.candidate].verdict = verdict
            if not verdict.is_accepted:
                self.unlabelled.pop(verdict.candidate, None)
            elif verdict.candidate not in taken:
                self._offer(verdict.candidate)
                self.fed = self.sequence

    @_apply.register
    def _(self, event: ev.RoundStarted) -> None:
        self.rounds.append(RoundRecord(event.round, self.sequence, self.time, asked=event.asked))
        self.open_rounds[event.round] = self.rounds[-1]

    @_apply.register
    def _(self, event: ev.Trained) -> None:
        self.rounds[event.round].trained.append(event)
        self.checkpoints[event.generator].append(event)

    @_apply.register
    def _(self, event: ev.Fitted) -> None:
        self.rounds[event.round].fitted = event

    @_apply.register
    def _(self, event: ev.Proposed) -> None:
        event = sharing.proposed(event)
        self.rounds[event.round].proposed.append(event)
        for row in event.proposals:
            self._candidate(row.candidate, row.equivalence).propose(event, row)

    @_apply.register
    def _(self, event: ev.Judged) -> None:
        event = sharing.judged(event, self._name)
        self.rounds[event.round].judged = event
        for verdict in map(self._final, event.verdicts):
            record = self.candidates[verdict.candidate]
            if record.verdict is None or not record.verdict.is_accepted:
                record.verdict = verdict
                if verdict.is_accepted:
                    self._offer(verdict.candidate)

    @_apply.register
    def _(self, event: ev.Decided) -> None:
        event = sharing.decided(event, self._name)
        self.rounds[event.round].decided = event
        self._expected |= expectations(event, self.modelled)
        self.controls.held |= {(row.candidate, row.oracle): row for row in event.held}
        for choice in event.choices:
            self.controls.held.pop((choice.candidate, choice.oracle), None)
            self.unlabelled.pop(choice.candidate, None)
            if self.is_barred(choice.candidate):
                self.controls.kept_back[choice.candidate] = None
            else:
                self.pending[choice.candidate, choice.oracle] = event.round
                self.outstanding[event.round] += 1

    @_apply.register
    def _(self, event: ev.Requested) -> None:
        for row in event.rows:
            record = self._candidate(row.candidate, row.equivalence)
            record.source = record.source or event.purpose
            record.name = record.name or row.name
            pair = row.candidate, row.oracle
            self.requested[pair] = event.purpose
            if pair not in self.labels and pair not in self.pending:
                self.pending[pair] = _OUTSIDE
                self.outstanding[_OUTSIDE] += 1
            self.unlabelled.pop(row.candidate, None)

    @_apply.register
    def _(self, event: ev.SentinelScored) -> None:
        self.sentinels[event.candidate, event.oracle].append(event)
        self.busy_seconds[event.oracle] += event.wall_seconds

    @_apply.register
    def _(self, event: ev.Labelled) -> None:
        pair = event.candidate, event.oracle
        record = self._label(
            event.candidate,
            event.oracle,
            event.fidelity,
            event.observations,
            event.crystal,
            purpose=self.requested.get(pair, ""),
            expected=self._expected.pop(pair, None),
        )
        record.wall_seconds, record.cpu_seconds = event.wall_seconds, event.cpu_seconds
        record.started, record.attempt = event.started, event.attempt
        record.worker = intern(event.worker)
        pair = record.candidate, record.oracle
        record.round = self._settle(pair)
        if event.wall_seconds > 0:
            self.last_seconds[event.oracle].append(event.wall_seconds)
        if not record.purpose:
            self.own[pair] = record
            self.n_labels[event.oracle] += 1
        self.busy_seconds[event.oracle] += event.wall_seconds
        self.outcomes[event.oracle].append(True)

    @_apply.register
    def _(self, event: ev.Failed) -> None:
        pair = event.candidate, event.oracle
        self.failures.append((self.sequence, self.time, event))
        self.last_failure[pair] = event
        self.tries[pair].append(event.kind)
        self.busy_seconds[event.oracle] += event.wall_seconds
        if event.kind != FailureKind.INFRASTRUCTURE:
            self.outcomes[event.oracle].append(False)
        if event.is_quarantined:
            self.quarantined[pair] = event
            self._settle(pair)

    @_apply.register
    def _(self, event: ev.Retried) -> None:
        for row in event.rows:
            pair = row.candidate, row.oracle
            if self.is_barred(row.candidate) and pair not in self.requested:
                continue
            if self.quarantined.pop(pair, None) is not None:
                self.pending[pair] = row.round
                self.outstanding[row.round] += 1
            self.tries.pop(pair, None)

    @_apply.register
    def _(self, event: ev.OraclePaused) -> None:
        self.paused[event.oracle] = event.reason

    @_apply.register
    def _(self, event: ev.CampaignPaused) -> None:
        self.controls.history.append((self.time, event))
        self.controls.paused = self.controls.paused or (self.time, event)

    @_apply.register
    def _(self, event: ev.CampaignResumed) -> None:
        self.controls.history.append((self.time, event))
        self.controls.paused = None

    @_apply.register
    def _(self, event: ev.LabelsChanged) -> None:
        self.controls.history.append((self.time, event))
        self.controls.labels += event.labels

    @_apply.register
    def _(self, event: ev.CandidateVetoed) -> None:
        self.controls.history.append((self.time, event))
        self.controls.vetoed[event.candidate] = event
        self.unlabelled.pop(event.candidate, None)
        self._take_back(event.withdrawn)

    @_apply.register
    def _(self, event: ev.ElementBanned) -> None:
        self.controls.history.append((self.time, event))
        self.controls.banned.setdefault(event.element, event)
        for candidate in [name for name in self.unlabelled if event.element in self.counts(name)]:
            del self.unlabelled[candidate]
            self.candidates[candidate].verdict = self._final(ev.VerdictRow(candidate, True, ""))
        self.controls.kept_back |= dict.fromkeys(row.candidate for row in event.withdrawn)
        self._take_back(event.withdrawn)

    @_apply.register
    def _(self, event: ev.ElementUnbanned) -> None:
        self.controls.history.append((self.time, event))
        self.controls.banned.pop(event.element, None)
        taken = self._taken()
        for candidate in [
            name for name in self.controls.kept_back if event.element in self.counts(name)
        ]:
            del self.controls.kept_back[candidate]
            record = self.candidates[candidate]
            if record.verdict is not None and record.verdict.screen == _BANNED:
                record.verdict = self._final(ev.VerdictRow(candidate, True, ""))
            if candidate not in taken:
                self._offer(candidate)
        self.fed = self.sequence

    def _final(self, verdict: ev.VerdictRow) -> ev.VerdictRow:
        """A screens' verdict, unless people banned what the candidate is made of."""
        if not self.controls.banned or not verdict.is_accepted:
            return verdict
        banned = [
            event
            for element, event in self.controls.banned.items()
            if element in self.counts(verdict.candidate)
        ]
        if not banned:
            return verdict
        self.controls.kept_back[verdict.candidate] = None
        return ev.VerdictRow(
            verdict.candidate,
            False,
            _BANNED,
            f"holds {banned[0].element}, banned by {banned[0].by}",
        )

    @_apply.register
    def _(self, event: ev.CandidateApproved) -> None:
        self.controls.history.append((self.time, event))
        self.controls.approved[event.candidate] = event
        if any(candidate == event.candidate for candidate, _ in self.controls.held):
            self.fed = self.sequence

    @_apply.register
    def _(self, event: ev.CrystalsPinned | ev.CrystalsInjected) -> None:
        self.controls.history.append((self.time, event))
        for row in event.rows:
            is_new = row.candidate not in self.candidates
            record = self._candidate(row.candidate, row.equivalence)
            if is_new:
                record.source, record.name = event.source, row.name
            if is_new or not row.screen:
                record.verdict = self._final(
                    ev.VerdictRow(row.candidate, not row.screen, row.screen, row.reason)
                )
            if record.is_accepted and not row.screen:
                if isinstance(event, ev.CrystalsPinned):
                    self.controls.pinned[row.candidate] = event
                self._offer(row.candidate)
        self.fed = self.sequence

    @property
    def pinned(self) -> list[str]:
        """What people want labelled next and nobody selected yet."""
        return [candidate for candidate in self.controls.pinned if candidate in self.unlabelled]

    def _take_back(self, pairs: Iterable[ev.PairRow]) -> None:
        for row in pairs:
            self._settle((row.candidate, row.oracle))

    def _offer(self, candidate: str) -> None:
        """To whoever selects, unless people said no."""
        if self.is_barred(candidate):
            self.controls.kept_back[candidate] = None
        else:
            self.unlabelled[candidate] = None

    @_apply.register
    def _(self, event: ev.RoundEnded) -> None:
        self.rounds[event.round].ended = self.time
        self.open_rounds.pop(event.round, None)

    @_apply.register
    def _(self, event: ev.Lost) -> None:
        """Nothing is known of it."""

    def _candidate(self, candidate: str, equivalence: str) -> CandidateRecord:
        record = self.candidates.get(candidate)
        if record is None:
            record = self.candidates[candidate] = CandidateRecord(candidate, equivalence)
            self.by_formula.setdefault(reduced_formula(equivalence.partition(":")[0]), []).append(
                candidate
            )
        return record

    def _name(self, candidate: str) -> str:
        """A candidate's id as it was first read, so that one object stands for all mentions."""
        record = self.candidates.get(candidate)
        return candidate if record is None else record.identity

    def _label(
        self,
        candidate: str,
        oracle: str,
        fidelity: str,
        observations: tuple[ev.ObservationRow, ...],
        crystal: str | None,
        *,
        source: str = "",
        purpose: str = "",
        expected: Mapping[str, Belief] | None = None,
    ) -> LabelRecord:
        pair = candidate, oracle = self._name(candidate), intern(oracle)
        if self.own.pop(pair, None) is not None:
            self.n_labels[oracle] -= 1
        record = LabelRecord(
            self.sequence,
            0,
            candidate,
            oracle,
            intern(fidelity),
            sharing.observations(observations),
            candidate if crystal == candidate else crystal,
            self._of_its_composition(candidate),
            source=source,
            purpose=purpose,
            expected=expected if expected and any(row.noise for row in observations) else _NO_FACTS,
            finished=self.time,
        )
        is_replaced = pair in self.labels
        self.labels[pair] = record
        self.arrivals.append(record)
        if is_replaced:
            self._derive_anew(oracle)
            return record
        self._derive(record)
        for leaders in list(self._leaders.values()):
            leaders.add(record, self.counts(candidate))
        return record

    def _derive_anew(self, oracle: str) -> None:
        """References, formation energies and leaders of an oracle from its labels as they stand."""
        self.elemental.pop(oracle, None)
        self._hulls.pop(oracle, None)
        labels = [label for label in self.labels.values() if label.oracle == oracle]
        for label in labels:
            label.derived, label.hull = self._of_its_composition(label.candidate), None
        for label in labels:
            self._derive(label)
        self._changed()

    def _changed(self) -> None:
        """Labels that were there are not what they were."""
        self._leaders.clear()
        self.n_changes += 1

    def settle(self) -> None:
        """Let values that follow from all labels of a level follow from those that came in last."""
        for hull in self._hulls.values():
            hull.settle()

    def _of_its_composition(self, candidate: str) -> dict[str, float] | None:
        """Scalars that the composition decides; None where none is wanted."""
        if not self._of_composition:
            return None
        counts = self.counts(candidate)
        known = {
            quantity: abundance.value(quantity, counts)
            for quantity in self._of_composition
            if counts
        }
        return {quantity: value for quantity, value in known.items() if math.isfinite(value)}

    def _derive(self, record: LabelRecord) -> None:
        """Formation energies are functions of the labels: of this one, and of all where it lowers
        an element's reference.

        A label made with softer settings that change its meaning has none.
        """
        counts = self.counts(record.candidate)
        if len(counts) != 1 and not self._has_zeros(record.oracle):
            return
        energy = deciding_energy(record.observed)
        if energy is None or not self.is_of_its_level(record):
            return
        known = self.elemental[record.oracle]
        affected = [record]
        if len(counts) == 1:
            (element,) = counts
            if element not in known or (energy, record.candidate) < known[element]:
                known[element] = (energy, record.candidate)
                affected = [
                    label for label in self.labels.values() if label.oracle == record.oracle
                ]
                self._changed()
                self._hulls.pop(record.oracle, None)
        zeros = self.zeros_of(record.oracle)
        if not zeros:
            return
        for label in affected:
            value = formation_energy(self.energy(label), self.composition(label.candidate), zeros)
            if value is not None and self.is_of_its_level(label):
                label.derive(FORMATION_ENERGY.name, value)
                if self._wants_hull:
                    self._place(label)

    def _place(self, label: LabelRecord) -> None:
        """Beside the others on its level's diagram."""
        hull = self._hulls.get(label.oracle)
        if hull is None:
            hull = self._hulls[label.oracle] = self._new_hull(label.oracle, (), self._changed)
        if hull.takes(label):
            label.hull = hull
            hull.add(label)

    def _new_hull(
        self, oracle: str, labels: Iterable[LabelRecord], on_move: Callable[[], None]
    ) -> Hull:
        given = frozenset(self.zeros.potentials_of(oracle))
        return Hull(tuple(self.zeros_of(oracle)), self.formula, labels, on_move, given)

    def hull(self, oracle: str) -> Hull | None:
        """The hull of an oracle's labels; None where no element has a reference, or nothing is
        there beside the elements.
        """
        if oracle in self._hulls:
            return self._hulls[oracle]
        labels = [
            label
            for label in self.labels.values()
            if label.oracle == oracle and FORMATION_ENERGY.name in label.observed
        ]
        return self._new_hull(oracle, map(replace, labels), lambda: None) if labels else None

    def energy(self, label: LabelRecord) -> float | None:
        """eV/atom, of an enthalpy where there is one, with the anion corrections that the config
        asks for.
        """
        energy = deciding_energy(label.observed)
        return (
            None
            if energy is None
            else energy + self.zeros.correction(self.formula(label.candidate))
        )

    def zeros_of(self, oracle: str) -> dict[str, float]:
        """By element: the energy (eV/atom) that formation energies refer to; a chemical potential
        comes before a label.
        """
        labelled = {element: energy for element, (energy, _) in self.elemental[oracle].items()}
        return labelled | dict(self.zeros.potentials_of(oracle))

    def _has_zeros(self, oracle: str) -> bool:
        return bool(self.elemental.get(oracle) or self.zeros.potentials_of(oracle))

    def is_of_its_level(self, label: LabelRecord) -> bool:
        """Whether a label was made with its oracle's own settings."""
        known = self.config.fidelities if self.config is not None else {}
        return label.fidelity == known.get(label.oracle, label.fidelity)

    def is_barred(self, candidate: str) -> bool:
        """Whether people said that a candidate is not to be chosen."""
        if candidate in self.controls.vetoed:
            return True
        banned = self.controls.banned
        return bool(banned) and not banned.keys().isdisjoint(self.counts(candidate))

    def is_judged(self, candidate: str) -> bool:
        """Whether a candidate has a verdict or came from a source."""
        record = self.candidates[candidate]
        return record.verdict is not None or bool(record.source)

    def accepted_of(self, keys: Iterable[str]) -> list[str]:
        """Candidates of the reduced formulas of equivalence keys that are accepted, or came with a
        label.
        """
        found = []
        for formula in dict.fromkeys(reduced_formula(key.partition(":")[0]) for key in keys):
            for candidate in self.by_formula.get(formula, ()):
                record = self.candidates[candidate]
                if record.is_accepted or (record.source and record.verdict is None):
                    found.append(candidate)
        return found

    def formula(self, candidate: str) -> str:
        """Elements in alphabetical order with their numbers of atoms in the cell; empty where the
        cell was too broken to be described.
        """
        return self.candidates[candidate].equivalence.partition(":")[0]

    def counts(self, candidate: str) -> Mapping[str, int]:
        """Atoms in the cell by element; empty where the candidate's cell was too broken to be
        described.
        """
        return counts_of(self.formula(candidate))

    def composition(self, candidate: str) -> dict[str, float]:
        """Atomic fraction by element; empty where the candidate's cell was too broken to be
        described.
        """
        counts = self.counts(candidate)
        total = sum(counts.values())
        return {symbol: count / total for symbol, count in counts.items()}

    def _settle(self, pair: Pair) -> int:
        """The round that selected a pair which is pending no more; that of an unselected one where
        none did.
        """
        round_index = self.pending.pop(pair, None)
        if round_index is None:
            return _OUTSIDE
        self.outstanding[round_index] -= 1
        return round_index

    @property
    def own_labels(self) -> list[LabelRecord]:
        """The labels that this campaign selected and paid for, in the order in which they came; not
        the elements' references.
        """
        return list(self.own.values())

    @property
    def n_selected_pending(self) -> int:
        """How many pairs rounds selected that are not labelled yet."""
        return len(self.pending) - self.outstanding[_OUTSIDE]

    @property
    def selected_pending(self) -> list[Pair]:
        """What rounds selected and is not labelled yet."""
        return [pair for pair, index in self.pending.items() if index != _OUTSIDE]

    @property
    def modelled(self) -> str:
        """The quantity that models expect something of: the first objective's, formation energies
        where it counts from a hull; empty before there is a config.
        """
        config = self.config.config if self.config is not None else {}
        named = str((config.get("objective") or {}).get("quantity", ""))
        return FORMATION_ENERGY.name if named == ENERGY_ABOVE_HULL.name else named

    def leaders(self, wanted: Wanted) -> Leaders:
        """The labels that lead; found once from all labels, kept from then on."""
        found = self._leaders.get(wanted)
        if found is None:
            found = self._leaders[wanted] = Leaders(wanted)
            for label in self.labels.values():
                found.add(label, self.counts(label.candidate))
        return found

    def pool(self, size: int) -> list[str]:
        """Accepted candidates that nobody selected yet: all that came from files, and the latest
        ``size`` that generators proposed.
        """
        proposed = [
            candidate for candidate in self.unlabelled if not self.candidates[candidate].source
        ]
        left_out = set(proposed[:-size])
        return [candidate for candidate in self.unlabelled if candidate not in left_out]

    def source_of(self, candidate: str) -> str:
        """The generator that proposed a candidate first, or the file that it came from."""
        record = self.candidates[candidate]
        return record.proposals[0][0].generator if record.proposals else record.source

    def called(self, candidate: str) -> str:
        """What people call a candidate: its name in its source, with the first column there that is
        named like an id.
        """
        record = self.candidates[candidate]
        named = next(
            (
                f"{key} {value}"
                for key, value in record.facts.items()
                if key.lower().endswith(("id", "name"))
            ),
            "",
        )
        return ", ".join(text for text in (record.name, named) if text)

    @property
    def committee_of_oracles(self) -> ev.Trained | None:
        """The committee that oracles ask: the first that was published, so that their labels are of
        one level of theory.
        """
        return next((event for event in self.checkpoints[COMMITTEE] if event.is_published), None)

    def published(self, generator: str) -> ev.Trained | None:
        """The checkpoint that a generator uses now."""
        return next(
            (event for event in reversed(self.checkpoints[generator]) if event.is_published), None
        )

    def asked(self, generator: str) -> int:
        """For how many crystals a generator was asked in the rounds in which it proposed any."""
        return sum(
            event.asked
            for record in self.rounds
            for event in record.proposed
            if event.generator == generator and event.proposals
        )


@cache
def _rule(kind: type[ev.Event]) -> Callable[[CampaignState, ev.Event], None]:
    """What folds an event of a kind, looked up once."""
    found: Callable[[CampaignState, ev.Event], None] = CampaignState.__dict__[
        "_apply"
    ].dispatcher.dispatch(kind)
    return found


def expectations(event: ev.Decided, quantity: str) -> dict[Pair, Mapping[str, Belief]]:
    """By pair that a model chose: what it expected of the quantity that it is of."""
    return {
        (row.candidate, row.oracle): {quantity: Belief(row.mean, row.deviation)}
        for row in event.choices
        if row.mean is not None and row.deviation is not None
    }


def _last() -> deque[float]:
    return deque(maxlen=_RECENT)


def import_key(event: ev.Imported) -> ImportKey:
    """Which source an import is of; in older ledgers its purpose stands in its key alone."""
    purpose = event.purpose or (event.key or "import/").split("/")[1]
    return purpose, event.source, event.oracle


def _of_composition(config: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = [*(config.get("further_objectives") or ()), *(config.get("constraints") or ())]
    return tuple(
        dict.fromkeys(item["quantity"] for item in wanted if item["quantity"] in abundance.KNOWN)
    )


def _wants_hull(config: Mapping[str, Any]) -> bool:
    """Whether a config's objectives, constraints or gates name the energy above the hull."""
    named = [
        config.get("objective"),
        *(config.get("further_objectives") or ()),
        *(config.get("constraints") or ()),
    ]
    levels = (config.get("fidelities") or {}).get("levels") or ()
    named += [level.get("gate") for level in levels]
    return any(item.get("quantity") == ENERGY_ABOVE_HULL.name for item in named if item)


def formation_energy(
    energy: float | None, composition: Mapping[str, float], references: Mapping[str, float]
) -> float | None:
    """E - sum over elements of x E_element, in eV per atom; None where something is not known
    yet.
    """
    if energy is None or not composition or not composition.keys() <= references.keys():
        return None
    return energy - sum(fraction * references[element] for element, fraction in composition.items())


def fold(rows: Iterable[tuple[int, float, ev.Event]]) -> CampaignState:
    """The state after all rows (sequence, time, event)."""
    state = CampaignState()
    with no_collection():
        for sequence, time, event in rows:
            state.apply(sequence, time, event)
    return state
