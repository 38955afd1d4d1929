"""The labels that a round sees, in the one order that everything downstream relies on: by candidate id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from campaign.ledger import CampaignState, LedgerReader
from campaign.ledger.state import LabelRecord
from campaign.seeds import content_hash
from campaign.types import Candidate, FloatArray, LabelledCandidate


@dataclass(frozen=True)
class Dataset:
    """Labelled candidates sorted by id."""

    labelled: tuple[LabelledCandidate, ...]

    def of(self, quantity: str) -> tuple[list[Candidate], FloatArray]:
        """The candidates that have a label of this quantity, and their values (n,)."""
        known = [item for item in self.labelled if quantity in item.values]
        return [item.candidate for item in known], np.array([item.values[quantity] for item in known], dtype=float)

    @property
    def key(self) -> str:
        """Hash of candidates and values."""
        return content_hash([[item.candidate.id, dict(item.values)] for item in self.labelled])


def dataset_before(ledger: LedgerReader, state: CampaignState, sequence: int, oracle: str) -> Dataset:
    """All labels of one oracle that stand in the ledger before an event, with their crystals. Labels of others are never mixed in."""
    labels = sorted(
        (label for label in state.labels.values() if label.oracle == oracle and label.sequence < sequence),
        key=lambda label: label.candidate,
    )
    crystals = ledger.crystals([label.candidate for label in labels])
    relaxed_ids = [label.crystal for label in labels if label.crystal is not None]
    relaxed = dict(zip(relaxed_ids, ledger.crystals(relaxed_ids), strict=True))
    return Dataset(
        tuple(
            LabelledCandidate(
                candidate=Candidate(crystal), values=label.values, arrays=_arrays(label), relaxed=relaxed.get(label.crystal or "")
            )
            for label, crystal in zip(labels, crystals, strict=True)
        )
    )


def _arrays(label: LabelRecord) -> dict[str, FloatArray]:
    return {row.quantity: np.array(row.value, dtype=float) for row in label.observations if isinstance(row.value, list)}
