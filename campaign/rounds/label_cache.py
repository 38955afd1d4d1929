"""Labels of competing phases, kept for other campaigns: by the fidelity that they are of, and the
crystal's own content.

One file a label, below ``$XDG_CACHE_HOME/oreloop/labels`` (by default ``~/.cache``). Whatever
cannot be read there is as if it were absent.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from campaign.errors import InputError, SurroundingsError
from campaign.files import write_whole
from campaign.ledger import events as ev
from campaign.types import Crystal, Evaluation, Observation

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    fidelity: str
    candidate: str
    observations: tuple[ev.ObservationRow, ...]
    crystal: bytes | None = None


@dataclass(frozen=True)
class LabelCache:
    folder: Path

    def find(self, candidate: str, fidelity: str) -> Evaluation | None:
        """The label of a crystal at a level; None where there is none."""
        try:
            kept = msgspec.json.decode(self._path(candidate, fidelity).read_bytes(), type=_Kept)
            if (kept.candidate, kept.fidelity) != (candidate, fidelity) or not kept.observations:
                return None
            observations = tuple(
                Observation(row.quantity, row.value, row.unit, row.noise)
                for row in kept.observations
            )
            crystal = Crystal.from_bytes(kept.crystal) if kept.crystal is not None else None
        except (OSError, msgspec.MsgspecError, InputError):
            return None
        return Evaluation(observations=observations, crystal=crystal, fidelity=fidelity)

    def keep(self, label: ev.Labelled, crystal: bytes | None) -> None:
        """What cannot be written is not kept."""
        kept = _Kept(label.fidelity, label.candidate, label.observations, crystal)
        try:
            write_whole(self._path(label.candidate, label.fidelity), msgspec.json.encode(kept))
        except SurroundingsError as error:
            log.warning("a label is not kept for other campaigns: %s", error.message)

    def _path(self, candidate: str, fidelity: str) -> Path:
        return self.folder / fidelity / f"{candidate}.json"
