"""The oracle ``ask_tell``: labels made elsewhere, by an experiment or a cluster without Ray.

It writes each question into a folder, as ``<candidate id>.cif`` with a row in ``questions.csv``, and reads ``answers.csv`` with
columns ``id`` and one for each quantity (or ``failure`` with a reason); a row with blanks is not an answer yet. A question is asked
once, also after a restart. ``workers`` of the oracle says how many questions are open at a time, its ``wall_limit`` how long it waits (s).
"""

from __future__ import annotations

import csv
import fcntl
import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from campaign.errors import InputError
from campaign.types import Crystal, Evaluation, FailureKind, Fidelity, Observation, Quantity


class AskTellConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(description="Folder for questions and answers, seen by the workers.")
    quantities: dict[str, str] = Field(min_length=1, description="Name of each quantity and its unit.")
    level: str = Field("experiment", description="Name of the level of theory or of the experiment.")
    poll_seconds: float = Field(1.0, gt=0, description="Time between two looks at the answers (s).")


class AskTell:
    Config = AskTellConfig

    def __init__(self, config: AskTellConfig) -> None:
        self.config = config
        self.quantities = tuple(Quantity(name, unit) for name, unit in config.quantities.items())

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(self.config.level, {"quantities": self.config.quantities})

    def evaluate(self, crystal: Crystal) -> Evaluation:
        self._ask(crystal)
        while (answer := self._answer(crystal.id)) is None:
            time.sleep(self.config.poll_seconds)
        if answer.get("failure"):
            return Evaluation.failed(FailureKind.NOT_CONVERGED, answer["failure"], retryable=False)
        try:
            values = {quantity: float(answer[quantity.name]) for quantity in self.quantities}
        except (KeyError, ValueError) as error:
            raise InputError(
                f"answers.csv, id {crystal.id}: no number for {error}", hint=f"columns: id, {', '.join(self.config.quantities)}, failure"
            ) from error
        return Evaluation(observations=tuple(Observation(q.name, value, q.unit) for q, value in values.items()))

    def _ask(self, crystal: Crystal) -> None:
        folder = self.config.folder
        folder.mkdir(parents=True, exist_ok=True)
        cif = folder / f"{crystal.id}.cif"
        with (folder / "questions.csv").open("a", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if cif.exists():
                return
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["id", "formula", "file", *(f"{q.name} ({q.unit})" for q in self.quantities)])
            writer.writerow([crystal.id, crystal.formula, cif.name, *("" for _ in self.quantities)])
            file.flush()
            part = cif.with_suffix(".part")
            crystal.structure.to(filename=str(part), fmt="cif")
            os.replace(part, cif)

    def _answer(self, identity: str) -> dict[str, str] | None:
        path = self.config.folder / "answers.csv"
        if not path.exists():
            return None
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("id") == identity]
        is_given = [row for row in rows if row.get("failure") or all(row.get(quantity.name) for quantity in self.quantities)]
        return is_given[-1] if is_given else None
