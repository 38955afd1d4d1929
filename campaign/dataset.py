"""The labels that a round sees, in the one order that everything downstream relies on: by candidate id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.state import LabelRecord
from campaign.seeds import content_hash
from campaign.types import Candidate, FailureKind, FloatArray, LabelledCandidate


@dataclass(frozen=True)
class Dataset:
    """Labelled candidates sorted by id."""

    labelled: tuple[LabelledCandidate, ...]
    failed: tuple[Candidate, ...] = ()
    """Candidates that the oracle gave up on, by id; not where the surroundings were to blame."""

    def of(self, quantity: str) -> tuple[list[Candidate], FloatArray]:
        """The candidates that have a label of this quantity, and their values (n,)."""
        known = [item for item in self.labelled if quantity in item.values]
        return [item.candidate for item in known], np.array([item.values[quantity] for item in known], dtype=float)

    def values_of(self, candidates: Sequence[Candidate], quantity: str) -> FloatArray:
        """(n,) the labels of candidates in a quantity; NaN where there is none."""
        known = {item.candidate.id: item.values.get(quantity, np.nan) for item in self.labelled}
        return np.array([known.get(candidate.id, np.nan) for candidate in candidates], dtype=float)

    @property
    def key(self) -> str:
        """Hash of candidates and values."""
        labels = [[item.candidate.id, dict(item.values)] for item in self.labelled]
        return content_hash([labels, [candidate.id for candidate in self.failed]] if self.failed else labels)


def datasets_before(ledger: LedgerReader, state: CampaignState, sequence: int, oracles: Sequence[str]) -> dict[str, Dataset]:
    """``dataset_before`` by oracle, in their order."""
    return {oracle: dataset_before(ledger, state, sequence, oracle) for oracle in oracles}


def dataset_before(ledger: LedgerReader, state: CampaignState, sequence: int, oracle: str) -> Dataset:
    """All labels of one oracle that stand in the ledger before an event, with their crystals. Labels of others are never mixed in."""
    labels = sorted(
        (label for label in state.labels.values() if label.oracle == oracle and label.sequence < sequence),
        key=lambda label: label.candidate,
    )
    crystals = ledger.crystals([label.candidate for label in labels])
    relaxed_ids = [label.crystal for label in labels if label.crystal is not None]
    relaxed = dict(zip(relaxed_ids, ledger.crystals(relaxed_ids), strict=True))
    gone = sorted(
        {
            event.candidate
            for number, _, event in state.failures
            if number < sequence and event.oracle == oracle and event.is_quarantined and event.kind != FailureKind.INFRASTRUCTURE
        }
    )
    return Dataset(
        tuple(
            LabelledCandidate(
                candidate=Candidate(crystal), values=label.values, arrays=_arrays(label), relaxed=relaxed.get(label.crystal or "")
            )
            for label, crystal in zip(labels, crystals, strict=True)
        ),
        tuple(Candidate(crystal) for crystal in ledger.crystals(gone)),
    )


def _arrays(label: LabelRecord) -> dict[str, FloatArray]:
    return {row.quantity: np.array(row.value, dtype=float) for row in label.observations if isinstance(row.value, list)}
