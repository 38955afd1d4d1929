"""The labels that a round sees, in the one order that everything downstream relies on: by candidate
id.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.events import Failed
from campaign.ledger.state import LabelRecord
from campaign.seeds import content_hash
from campaign.types import Candidate, FailureKind, FloatArray, LabelledCandidate


@dataclass(frozen=True)
class Dataset:
    """Labelled candidates sorted by id."""

    labelled: Sequence[LabelledCandidate]
    failed: tuple[Candidate, ...] = ()
    """Candidates that the oracle gave up on, by id; not where the surroundings were to blame."""

    def of(self, quantity: str) -> tuple[list[Candidate], FloatArray]:
        """The candidates that have a label of this quantity, and their values (n,)."""
        known = [item for item in self.labelled if quantity in item.values]
        return [item.candidate for item in known], np.array(
            [item.values[quantity] for item in known], dtype=float
        )

    def noise_of(self, quantity: str) -> FloatArray | None:
        """(n,) the stated standard deviations of the labels that ``of`` gives, 0 where a label
        states none; None where no label does.
        """
        return self.noises_of(self.of(quantity)[0], quantity)

    def noises_of(self, candidates: Sequence[Candidate], quantity: str) -> FloatArray | None:
        """(n,) the same of given candidates, 0 for those without a label too."""
        known = {item.candidate.id: item.noise.get(quantity, 0.0) for item in self.labelled}
        found = np.array([known.get(candidate.id, 0.0) for candidate in candidates], dtype=float)
        return found if found.any() else None

    def values_of(self, candidates: Sequence[Candidate], quantity: str) -> FloatArray:
        """(n,) the labels of candidates in a quantity; NaN where there is none."""
        known = {item.candidate.id: item.values.get(quantity, np.nan) for item in self.labelled}
        return np.array([known.get(candidate.id, np.nan) for candidate in candidates], dtype=float)

    @property
    def key(self) -> str:
        """Hash of candidates, values and stated noise."""
        labels = [
            [item.candidate.id, dict(item.values), *([dict(item.noise)] if item.noise else [])]
            for item in self.labelled
        ]
        return content_hash(
            [labels, [candidate.id for candidate in self.failed]] if self.failed else labels
        )


def datasets_before(
    ledger: LedgerReader, state: CampaignState, sequence: int, oracles: Sequence[str]
) -> dict[str, Dataset]:
    """``dataset_before`` by oracle, in their order."""
    return {oracle: dataset_before(ledger, state, sequence, oracle) for oracle in oracles}


def dataset_before(
    ledger: LedgerReader, state: CampaignState, sequence: int, oracle: str
) -> Dataset:
    """All labels of one oracle that stand in the ledger before an event, with their crystals.
    Labels of others are never mixed in.
    """
    labels = sorted(
        (
            label
            for label in state.labels.values()
            if label.oracle == oracle and label.sequence < sequence
        ),
        key=lambda label: label.candidate,
    )
    failures = (event for number, _, event in state.failures if number < sequence)
    return Dataset(
        tuple(_labelled(ledger, labels)),
        tuple(Candidate(crystal) for crystal in ledger.crystals(sorted(_gone(failures, oracle)))),
    )


class CurrentDataset:
    """``dataset_before`` of a state that moves on: what came in since the last one is put in its
    place, and no label is looked at again unless labels that were there changed. Crystals are read
    when somebody looks at the labels: a campaign that learns nothing keeps none.
    """

    def __init__(self, ledger: LedgerReader, state: CampaignState, oracle: str) -> None:
        self._ledger, self._state, self._oracle = ledger, state, oracle
        self._labelled: list[_Label] = []
        self._failed: dict[str, Candidate] = {}
        self._seen = self._failures = 0
        self._changes: int | None = None

    def __call__(self) -> Dataset:
        """All labels of the oracle as they stand."""
        state = self._state
        state.settle()
        if self._changes != state.n_changes:
            standing = [label for label in state.labels.values() if label.oracle == self._oracle]
            self._labelled = sorted(self._kept(standing), key=_name)
            self._seen, self._changes = len(state.arrivals), state.n_changes
        fresh = [label for label in state.arrivals[self._seen :] if label.oracle == self._oracle]
        self._seen = len(state.arrivals)
        for item in self._kept(fresh):
            bisect.insort(self._labelled, item, key=_name)
        gone = (
            _gone((event for _, _, event in state.failures[self._failures :]), self._oracle)
            - self._failed.keys()
        )
        self._failures = len(state.failures)
        if gone:
            self._failed |= zip(
                gone, map(Candidate, self._ledger.crystals(list(gone))), strict=True
            )
        return Dataset(
            _Labelled(self._ledger, self._labelled),
            tuple(self._failed[candidate] for candidate in sorted(self._failed)),
        )

    def _kept(self, labels: Sequence[LabelRecord]) -> list[_Label]:
        """Labels from which something follows are made as they stand now: it may change."""
        kept = [_Label(label) for label in labels]
        derived = [item for item in kept if not item.label.is_as_observed]
        made = _labelled(self._ledger, [item.label for item in derived])
        for item, labelled in zip(derived, made, strict=True):
            item.made = labelled
        return kept


@dataclass(slots=True)
class _Label:
    label: LabelRecord
    made: LabelledCandidate | None = None


def _name(item: _Label) -> str:
    return item.label.candidate


class _Labelled(Sequence[LabelledCandidate]):
    """Labels that are made, as observed, when somebody looks."""

    def __init__(self, ledger: LedgerReader, labels: Iterable[_Label]) -> None:
        self._ledger, self._labels = ledger, tuple(labels)

    @cached_property
    def _all(self) -> tuple[LabelledCandidate, ...]:
        missing = [item for item in self._labels if item.made is None]
        made = _labelled(self._ledger, [item.label for item in missing], as_observed=True)
        for item, labelled in zip(missing, made, strict=True):
            item.made = labelled
        return tuple(item.made for item in self._labels if item.made is not None)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, which: int) -> LabelledCandidate: ...
    @overload
    def __getitem__(self, which: slice) -> Sequence[LabelledCandidate]: ...
    def __getitem__(self, which: int | slice) -> LabelledCandidate | Sequence[LabelledCandidate]:
        return self._all[which]

    def __iter__(self) -> Iterator[LabelledCandidate]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._all,)


def _labelled(
    ledger: LedgerReader, labels: Sequence[LabelRecord], *, as_observed: bool = False
) -> Iterator[LabelledCandidate]:
    crystals = ledger.crystals([label.candidate for label in labels])
    relaxed_ids = [label.crystal for label in labels if label.crystal is not None]
    relaxed = dict(zip(relaxed_ids, ledger.crystals(relaxed_ids), strict=True))
    for label, crystal in zip(labels, crystals, strict=True):
        yield LabelledCandidate(
            candidate=Candidate(crystal),
            values=label.scalars if as_observed else label.values,
            arrays=_arrays(label),
            relaxed=relaxed.get(label.crystal or ""),
            noise={} if as_observed else label.noise,
        )


def _gone(failures: Iterable[Failed], oracle: str) -> set[str]:
    """Whom an oracle gave up, but for what the surroundings did."""
    return {
        event.candidate
        for event in failures
        if event.oracle == oracle
        and event.is_quarantined
        and event.kind != FailureKind.INFRASTRUCTURE
    }


def _arrays(label: LabelRecord) -> dict[str, FloatArray]:
    return {
        row.quantity: np.array(row.value, dtype=float)
        for row in label.observations
        if isinstance(row.value, list)
    }
