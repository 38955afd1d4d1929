"""The loop: train, fit, propose, screen, select, label, record; round after round, each step
durable before the next acts on it.

``run`` and ``resume`` are one: fold the ledger, go on with the first step that it does not hold. A
round's decisions see only labels that stand in the ledger before the round began, so they can be
replayed. In mode ``rounds`` the next round begins when the last one is labelled; in mode
``streaming`` as soon as workers could run out of selected candidates while it decides (never fewer
than two a worker), and they go on meanwhile.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from campaign import plugins
from campaign.config.loaded import LoadedConfig
from campaign.config.roles import objective_oracle, reference_oracles, waiting_for_committee
from campaign.config.schema import Component, GeneratorConfig
from campaign.crystals.matching import KeyIndex
from campaign.decide import budget, fit, ladder, shares
from campaign.decide.question import answer, committee_of, crystals, modelled_oracles, question
from campaign.decide.question import event as decision
from campaign.errors import StoppedByFailuresError
from campaign.ledger import Ledger
from campaign.ledger import events as ev
from campaign.ledger.artifacts import ArtifactStore
from campaign.ledger.controls import told
from campaign.ledger.dataset import CurrentDataset, Dataset, datasets_before
from campaign.ledger.state import COMMITTEE, RoundRecord
from campaign.protocols import Executor, Handle, Kept, NeedsLabels, PluginSpec, Trainable
from campaign.rounds import controlling, propose, screen, train
from campaign.rounds.dispatch import Dispatcher
from campaign.seeds import content_hash, stream_key
from campaign.types import Candidate

log = logging.getLogger(__name__)

_WAITING_PER_WORKER = 2
_REST_SECONDS = 0.2
_HEADROOM, _FIRST_CYCLE_SECONDS = 1.3, 1.5
_LARGEST_BATCH, _LARGEST_PER_WORKER = 4, 8

Step = Generator[Handle, None, None]


@dataclass(frozen=True)
class Learner:
    """Something that is trained in the loop."""

    name: str
    group: str
    component: Component
    part: Any


@dataclass(frozen=True)
class Batch:
    """A computation that a round records, and the event that it becomes but for what it finds; none
    for a fit.
    """

    event: ev.Proposed | None
    handle: Handle


class Loop:
    """Drives one campaign. ``on_change`` is called after whatever is recorded; ``should_stop`` is
    asked before each step.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        ledger: Ledger,
        executor: Executor,
        *,
        on_change: Callable[[], None] = lambda: None,
        should_stop: Callable[[], str] = lambda: "",
    ) -> None:
        self.loaded, self.config, self.ledger, self.executor = (
            loaded,
            loaded.config,
            ledger,
            executor,
        )
        self.state = ledger.state
        self.parts = loaded.parts
        self.space, self.objective = self.config.search_space, self.config.objective.objective
        self.oracle_configs = {oracle.label: oracle for oracle in self.config.oracles}
        self.objective_oracle = objective_oracle(loaded)
        self.search_oracle = ladder.search_level(self.config, self.objective_oracle)
        self.artifacts = ArtifactStore(ledger.folder)
        self.dispatcher = Dispatcher(loaded, ledger, executor, on_change)
        self._accepted = KeyIndex(
            screen.matcher_of(
                self.config.screens,
                screen.sameness(self.config.screens, self.parts.oracles.values()),
            )
        )
        self._on_change, self._should_stop = on_change, should_stop
        self._datasets = {
            oracle: CurrentDataset(ledger, self.state, oracle)
            for oracle in modelled_oracles(loaded)
        }
        self._cycle: Step | None = None
        self._handle: Handle | None = None
        self._cycle_began, self._cycle_seconds = 0.0, _FIRST_CYCLE_SECONDS

    def warm_up(self) -> None:
        """Let the compute worker import what the components need while the oracles' workers
        start.
        """
        specs = [self.loaded.spec("generators", generator) for generator in self.config.generators]
        if self.config.surrogate is not None:
            specs.append(self.loaded.spec("surrogates", self.config.surrogate))
        self.executor.compute(_import, specs)

    def is_over(self) -> bool:
        """Whether there is nothing left to do, so that no worker need be started."""
        return bool(budget.stop_reason(self.state, self.config, self.objective_oracle))

    def run(self) -> tuple[str, bool]:
        """Go on until there is a reason to stop; returns it, and whether the campaign is over. Work
        under way is waited for.

        Raises StoppedByFailuresError where every oracle that has work is paused.
        """
        work = self.dispatcher
        labelled, failed = len(self.state.own), len(self.state.failures)
        work.give_up_removed_oracles()
        if not self.is_over():
            work.schedule_sentinels(f"session {len(self.state.sessions)}")
            work.retry_references()
            self._request_references()
        work.take_up(is_over=self.is_over())
        if self.state.controls.paused is not None:
            log.warning("this campaign is paused %s", self.state.controls.pause)
        while True:
            interrupted = self._should_stop()
            over = budget.stop_reason(self.state, self.config, self.objective_oracle)
            if interrupted or over:
                work.let_go(is_wanted=not over)
                if work.is_working:
                    self._take_up_controls()
                    work.collect(None)
                    continue
                if not over:
                    return interrupted, False
                self._refuse_without_labels(over, labelled, failed)
                return over, True
            self._take_up_controls()
            if self.state.controls.paused is not None:
                self._rest()
                continue
            work.dispatch()
            work.check_paused(self.search_oracle)
            work.check_references()
            if self._cycle is None and self._may_begin_round():
                self._cycle = self._round(self._batch())
            self._advance_cycle()
            if not (
                work.is_working
                or work.is_due
                or self._cycle
                or self.is_over()
                or self._may_begin_round()
            ):
                work.refuse_to_wait()
            work.collect(self._handle)

    def _take_up_controls(self) -> None:
        """What people ask of a running campaign."""
        taken = controlling.take_up(self.loaded, self.ledger, self.dispatcher.begun)
        for event in taken:
            log.info("%s", told(event))
        if taken:
            self.dispatcher.drop_withdrawn()
            self._on_change()

    def _rest(self) -> None:
        """While people have it paused: what is under way ends and is recorded, a decision too, and
        no label begins.
        """
        self._advance_cycle()
        if self.dispatcher.is_working or self._cycle is not None:
            self.dispatcher.collect(self._handle)
        else:
            time.sleep(_REST_SECONDS)

    def ask(self, n: int) -> tuple[str, bool]:
        """Decide on ``n`` candidates more while nobody labels, whatever is under way.

        Returns why not, where there is a reason, and whether the campaign is over. A round that was
        begun and not decided is decided in place of a new one.
        """
        over = budget.stop_reason(self.state, self.config, self.objective_oracle)
        if over:
            return over, True
        if self.state.controls.paused is not None:
            return f"paused {self.state.controls.pause}", False
        self.dispatcher.give_up_removed_oracles()
        self.dispatcher.retry_references()
        self._request_references()
        for handle in self._round(n):
            while not handle.is_done():
                self.executor.wait(0.2, handle)
        return "", False

    def _refuse_without_labels(self, over: str, labelled: int, failed: int) -> None:
        """Raises StoppedByFailuresError where this session, which began with so many labels and
        failures, only failed.
        """
        failures = [event for _, _, event in self.state.failures]
        if (
            len(self.state.own) > labelled
            or not failures
            or (self.state.own and len(failures) == failed)
        ):
            return
        counted = failures[failed:] or failures
        (oracle, kind, message), count = Counter(
            (event.oracle, event.kind, event.message) for event in counted
        ).most_common(1)[0]
        raise StoppedByFailuresError(
            f"{over}, but nothing was labelled: all {len(counted)} attempts failed, {count} of "
            f"them with {oracle}: {kind}: {message}",
            hint=f"mend the cause, then `oreloop retry {self.ledger.folder}` and run again",
        )

    def _request_references(self) -> None:
        waiting = waiting_for_committee(self.loaded, self.state)
        self.dispatcher.request_references(
            [name for name in reference_oracles(self.loaded) if name not in waiting]
        )

    # --- rounds
    # ------------------------------------------------------------

    def _may_begin_round(self) -> bool:
        if self.state.rounds and self.state.rounds[-1].decided is None:
            return True
        rounds = self.config.budget.rounds
        if rounds is not None and len(self.state.rounds) >= rounds:
            return False
        left = budget.labels_left(self.state, self.config)
        if left is not None and left < budget.labels_per_candidate(self.config):
            return False
        if self.dispatcher.sentinels_due and not self.state.rounds:
            return False
        if self.config.mode == "rounds" or not self.state.rounds:
            return not self.dispatcher.is_round_open
        low_water = self._low_water()
        few_labels = 2 * len(self.state.own) < self.config.acquisition.initial_labels
        return self.dispatcher.n_waiting < low_water and not (
            few_labels and self.dispatcher.is_round_open
        )

    def _low_water(self) -> float:
        """Waiting candidates below which a round begins: two a worker, or what the workers label
        while a round decides.
        """
        return max(
            _WAITING_PER_WORKER * self._n_workers,
            min(self._labels_meanwhile(), self._largest_batch),
        )

    @property
    def _n_workers(self) -> int:
        return self.oracle_configs[self.search_oracle].at_once

    @property
    def _largest_batch(self) -> int:
        """What a round that is outrun by the workers may choose: while models learn fast, not more
        than half of what is labelled.
        """
        acquisition, n_labels = self.config.acquisition, len(self.state.own)
        largest = max(
            _LARGEST_BATCH * acquisition.batch_size, _LARGEST_PER_WORKER * self._n_workers
        )
        return max(
            acquisition.batch_size,
            min(largest, n_labels // 2 if n_labels >= acquisition.initial_labels else 0),
        )

    def _labels_meanwhile(self) -> float:
        """How many candidates the workers label while a round decides."""
        n_labels = self.state.n_labels[self.search_oracle]
        per_label = (
            self.state.busy_seconds[self.search_oracle] / n_labels if n_labels else float("inf")
        )
        return _HEADROOM * self._cycle_seconds * self._n_workers / max(per_label, 1e-3)

    def _batch(self) -> int | None:
        """Candidates that the next round chooses, where the workers label more than a batch while
        it decides; None for a batch.
        """
        acquisition = self.config.acquisition
        if self.config.mode == "rounds" or len(self.state.own) < acquisition.initial_labels:
            return None
        wanted = min(math.ceil(self._labels_meanwhile()), self._largest_batch)
        return wanted if wanted > acquisition.batch_size else None

    def _advance_cycle(self) -> None:
        """Run the round's steps as far as their computations are done."""
        if self._cycle is not None and self._handle is None:
            self._cycle_began = time.monotonic()
        while self._cycle is not None and (self._handle is None or self._handle.is_done()):
            try:
                self._handle = next(self._cycle)
            except StopIteration:
                self._cycle = self._handle = None
                self._cycle_seconds = time.monotonic() - self._cycle_began
                self._on_change()

    def _round(self, asked: int | None = None) -> Step:
        """The steps of the round that the ledger has begun and not decided, or of the next one.
        Yields what must be waited for.
        """
        state = self.state
        if not state.rounds or state.rounds[-1].decided is not None:
            self.ledger.append(
                [
                    ev.RoundStarted(
                        round=len(state.rounds),
                        key=f"round/{len(state.rounds)}/started",
                        asked=asked,
                    )
                ]
            )
            if (
                self.config.sentinels is not None
                and state.rounds[-1].index % self.config.sentinels.every == 0
                and len(state.rounds) > 1
            ):
                self.dispatcher.schedule_sentinels(f"round {state.rounds[-1].index}")
        record = state.rounds[-1]
        known = (
            state if state.sequence == record.sequence else self.ledger.fold(until=record.sequence)
        )
        if known is state:
            datasets = {oracle: current() for oracle, current in self._datasets.items()}
        else:
            datasets = datasets_before(
                self.ledger, known, record.sequence, modelled_oracles(self.loaded)
            )
        dataset = datasets[self.search_oracle]
        data = self.executor.compute(Kept, datasets)
        searched = self.executor.compute(_of, data, self.search_oracle)
        pending = tuple(
            Candidate(crystal)
            for crystal in self.ledger.crystals(
                sorted({candidate for candidate, _ in known.pending})
            )
        )

        for learner in self._learners():
            yield from self._train(record, learner, dataset, searched)
        self._request_references()

        has_model = fit.is_due(self.config, datasets)
        fitted = (
            self.executor.compute(fit.fit, fit.request(self.loaded, state, record), data)
            if has_model
            else None
        )
        counts = shares.counts(known, self.config, self.search_oracle, record.sequence)
        asking = [(generator, counts[generator.label]) for generator in self.config.generators]
        batches = [
            self._propose(record, generator, n, searched, fitted, pending)
            for generator, n in asking
        ]
        yield from self._record(record, fitted, batches)
        yield from self._screen(record, [batch.handle for batch in batches])
        yield from self._decide(record, datasets, data, fitted)
        self.dispatcher.end_rounds()

    def _learners(self) -> list[Learner]:
        """What is trained in the loop: generators that learn, and the committee."""
        found = [
            Learner(g.label, "generators", g, self.parts.generators[g.label])
            for g in self.config.generators
        ]
        if self.config.committee is not None and self.parts.committee is not None:
            found.append(
                Learner(COMMITTEE, "committees", self.config.committee, self.parts.committee)
            )
        return [learner for learner in found if isinstance(learner.part, Trainable)]

    def _train(self, record: RoundRecord, learner: Learner, dataset: Dataset, data: Handle) -> Step:
        """Keyed work: the checkpoint is an artifact on disk before the event that names it."""
        name, labels = learner.name, len(dataset.labelled)
        is_due = labels > 0 and record.index > 0 and record.index % self.config.train_every == 0
        is_ready = not isinstance(learner.part, NeedsLabels) or learner.part.is_ready(
            dataset.labelled
        )
        if not (is_due and is_ready):
            return
        parent = self.state.published(name)
        if any(event.generator == name for event in record.trained):
            return
        key = f"train/{content_hash([name, record.index, dataset.key, parent.checkpoint if parent else None])[:32]}"  # noqa: E501
        stream = stream_key(self.config.seed, f"train:{name}", record.index)
        old = self.artifacts.read(parent.checkpoint) if parent else None
        spec = self.loaded.spec(learner.group, learner.component)
        handle = self.executor.compute(
            train.train, spec, stream, self.space, self.objective, old, data
        )
        yield handle
        training: train.Training = handle.result()
        event = ev.Trained(
            key=key,
            round=record.index,
            generator=name,
            checkpoint=self.artifacts.write(training.checkpoint),
            parent=parent.checkpoint if parent else None,
            is_published=training.is_published,
            metrics=dict(training.metrics),
            seconds=training.seconds,
            labels=labels,
        )
        self.ledger.append([event])
        self.artifacts.discard(train.checkpoints_to_drop(self.state))

    def _propose(
        self,
        record: RoundRecord,
        generator: GeneratorConfig,
        n: int,
        data: Handle,
        fitted: Handle | None,
        pending: tuple[Candidate, ...],
    ) -> Batch:
        name = generator.label
        known = next((event for event in record.proposed if event.generator == name), None)
        if known is not None:
            blobs = self.ledger.blobs([row.candidate for row in known.proposals])
            return Batch(
                known, self.executor.compute(Kept, propose.Proposals(known.proposals, blobs))
            )
        published = self.state.published(name)
        checkpoint = self.artifacts.read(published.checkpoint) if published else None
        stream = stream_key(self.config.seed, f"generate:{name}", record.index)
        spec = self.loaded.spec("generators", generator)
        banned = tuple(self.state.controls.banned)
        handle = self.executor.compute(
            propose.propose,
            spec,
            n,
            stream,
            self.config,
            checkpoint,
            pending,
            data,
            fitted,
            banned,
            self.state.asked(name),
        )
        event = ev.Proposed(
            key=f"round/{record.index}/proposed/{name}",
            round=record.index,
            generator=name,
            checkpoint=published.checkpoint if published else None,
            stream=stream,
            seconds=0.0,
            proposals=(),
            asked=n,
        )
        return Batch(event, handle)

    def _record(self, record: RoundRecord, fitted: Handle | None, batches: Sequence[Batch]) -> Step:
        """The fit and the proposals, as they come; what comes together in one transaction. A
        resumed round repeats its fit.
        """
        events: list[ev.Event] = []
        blobs: dict[str, bytes] = {}
        for batch in ([] if fitted is None else [Batch(None, fitted)]) + list(batches):
            if not batch.handle.is_done():
                self.ledger.append(events, blobs)
                events, blobs = [], {}
                yield batch.handle
            if batch.event is None:
                events.append(_fitted(record, batch.handle.result()))
            elif batch.event not in record.proposed:
                proposals: propose.Proposals = batch.handle.result()
                events.append(
                    msgspec.structs.replace(
                        batch.event, seconds=proposals.seconds, proposals=proposals.rows
                    )
                )
                blobs.update(proposals.blobs)
        self.ledger.append(events, blobs)

    def _screen(self, record: RoundRecord, batches: Sequence[Handle]) -> Step:
        if record.judged is not None:
            return
        rows = {row.candidate: row for event in record.proposed for row in event.proposals}
        keys = {identity: row.equivalence for identity, row in rows.items()}
        known = frozenset(identity for identity in keys if self.state.is_judged(identity))
        oracles = self.parts.oracles.values()
        rivals = screen.rivals_of(
            self.config.screens,
            oracles,
            self.state,
            self.ledger,
            keys,
            known=known,
            index=self._accepted,
        )
        extra = [self.loaded.spec("screens", component) for component in self.config.screens.extra]
        space = self.space.without(self.state.controls.banned)
        handle = self.executor.compute(
            screen.judge, self.config.screens, extra, space, rivals, *batches
        )
        yield handle
        self.ledger.append(
            [
                ev.Judged(
                    key=f"round/{record.index}/judged", round=record.index, verdicts=handle.result()
                )
            ]
        )

    def _decide(
        self,
        record: RoundRecord,
        datasets: Mapping[str, Dataset],
        data: Handle,
        fitted: Handle | None,
    ) -> Step:
        """Ask who is labelled next, and record the answer before anybody acts on it."""
        asked = question(self.loaded, self.state, record, datasets)
        committee = committee_of(asked, self.loaded, self.artifacts)
        handle = self.executor.compute(
            answer, asked, self.config, *crystals(asked, self.ledger), data, fitted, committee
        )
        yield handle
        decided, table = decision(asked, handle.result(), self.state)
        self.ledger.append([decided], table)
        self.dispatcher.add((choice.candidate, choice.oracle) for choice in decided.choices)


def _of(datasets: Mapping[str, Dataset], oracle: str) -> Kept:
    return Kept(datasets[oracle])


def _fitted(record: RoundRecord, summary: fit.FitSummary) -> ev.Fitted:
    return ev.Fitted(
        key=f"round/{record.index}/fitted",
        round=record.index,
        model=summary.model,
        labels=summary.labels,
        hyperparameters=dict(summary.hyperparameters),
        seconds=summary.seconds,
        cpu_seconds=summary.cpu_seconds,
    )


def _import(specs: Sequence[PluginSpec]) -> None:
    for spec in specs:
        plugins.load(spec)
