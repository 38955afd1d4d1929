"""The oracle ``mace``: labels at zero temperature from MACE models, one or a committee; of one
crystal, or of many together.

A committee's label is its members' mean; the spread of the energies is recorded as the label's
noise. On one core a 54-atom cell takes about 10 ms an evaluation with a small network; memory grows
with its edges.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from campaign.errors import InputError
from campaign.parameters import ConfigPath, may_download
from campaign.types import ENERGY_PER_ATOM, Checkpoint, Crystal, Evaluation, Fidelity
from oracles.batched import BatchedOracle
from oracles.mace.files import sha256_of
from oracles.static import StaticConfig
from oracles.together import Ask, Request

if TYPE_CHECKING:
    from oracles.mace.many import Networks

log = logging.getLogger(__name__)


class MaceConfig(StaticConfig):
    model: ConfigPath | tuple[ConfigPath, ...] | None = Field(
        None,
        description="A MACE file, a committee from `oreloop train mace`, or several MACE files "
        "as a committee.",
    )
    foundation: str | None = Field(
        None,
        description="Instead of model: name of a foundation model, such as medium-mpa-0 or small.",
    )
    committee: bool = Field(
        False,
        description="Instead of model: the committee that this campaign trains, the first that "
        "is published, kept to the end.",
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the network runs.")
    precision: Literal["float32", "float64"] = Field(
        "float64", description="float64 for relaxations and strains, float32 for speed."
    )
    force_tolerance: float = Field(
        1e-3,
        gt=0,
        description="Maximum force on an atom (eV/angstrom) at which a relaxation stops.",
    )
    max_steps: int = Field(500, gt=0, description="Maximum number of steps of one relaxation.")
    strain: float = Field(
        5e-3,
        gt=0,
        le=0.02,
        description="Linear strain (1) of the cells whose pressures or stresses are taken.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> MaceConfig:
        if (self.model is not None) + (self.foundation is not None) + self.committee != 1:
            raise ValueError(
                "give one of model: (a file), foundation: (a name) and committee: true"
            )
        return self


def foundation_path(name: str) -> Path | None:
    """The file of a foundation model: from MACE's cache, downloaded where it is not there; None
    where nothing may be downloaded.

    Raises InputError where it cannot be had.
    """
    import mace  # noqa: F401
    from mace.calculators.foundations_models import (
        download_mace_mp_checkpoint,
        local_model_path,
        mace_mp_names,
        mace_mp_urls,
    )
    from mace.tools.utils import get_cache_dir

    known = [known for known in mace_mp_names if known]
    if name not in known:
        raise InputError(
            f"there is no foundation model {name!r}",
            hint=f"known are {', '.join(known)}; or give a file with model:",
        )
    if not may_download():
        kept = "".join(
            character
            for character in os.path.basename(mace_mp_urls[name])
            if character.isalnum() or character == "_"
        )
        places = [
            Path(get_cache_dir(), kept),
            *([Path(local_model_path)] if name == "medium-mpa-0" else []),
        ]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            log.warning(
                "the foundation model %s is not here yet: a run downloads it; its elements "
                "could not be checked",
                name,
            )
        return found
    try:
        return Path(download_mace_mp_checkpoint(name))
    except Exception as error:
        raise InputError(
            f"the foundation model {name} is not in MACE's cache and cannot be downloaded "
            f"({type(error).__name__})",
            hint="on a machine without a network, copy the file and give its path with model:",
        ) from error


def elements_of(path: Path) -> frozenset[str]:
    """The elements that a model knows. MACE's own files are pickles, so they are read in a process
    of their own.
    """
    from ase.data import chemical_symbols

    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        scales = json.loads(json.loads(header["__metadata__"]["facts"])["scales"])
        if scales is not None:
            return frozenset(chemical_symbols[number] for number in scales["numbers"])
    code = (
        "import json, sys; from pathlib import Path; from oracles.mace import store; "
        "print(json.dumps(store.numbers_in(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(
            f"{path} cannot be read as a MACE model: {done.stderr.strip().splitlines()[-1]}",
            hint="give the path of a MACE file",
        )
    return frozenset(
        chemical_symbols[number] for number in json.loads(done.stdout.splitlines()[-1])
    )


class Mace(BatchedOracle):
    """Energy, volume, relaxed crystal and its phase; forces, bulk modulus and elastic tensor where
    asked.
    """

    Config = MaceConfig
    config: MaceConfig

    def __init__(self, config: MaceConfig) -> None:
        self.config = config
        self.paths: tuple[Path, ...] = ()
        if config.model is not None:
            self.paths = config.model if isinstance(config.model, tuple) else (config.model,)
        elif config.foundation is not None:
            path = foundation_path(config.foundation)
            self.paths = (path,) if path is not None else ()
        self._sha256 = [sha256_of(path) for path in self.paths]
        self._committee: Checkpoint | None = None

    @property
    def asks_committee(self) -> bool:
        """Whether the model is the campaign's committee, which ``load`` brings."""
        return self.config.committee

    def load(self, committee: Checkpoint) -> None:
        self._committee, self._mechanics = committee, None
        for made in ("members", "networks"):
            self.__dict__.pop(made, None)

    @cached_property
    def members(self) -> list[Any]:
        from oracles.mace.store import members_of, read_models

        if self.config.committee:
            if self._committee is None:
                raise InputError(
                    "this oracle asks a campaign's committee and has none",
                    hint="use it in a campaign that trains one",
                )
            found = members_of(self._committee)
            return [member.to(self.config.device) for member in self._in_precision(found)]
        found = []
        for path, sha256 in zip(self.paths, self._sha256, strict=True):
            members, now = read_models(path, self.config.device)
            if now != sha256:
                raise InputError(
                    f"{path} changed while the campaign ran",
                    hint="restore the file; another model is another fidelity",
                )
            found += members
        return self._in_precision(found)

    def _in_precision(self, members: Sequence[Any]) -> list[Any]:
        return [
            member.double() if self.config.precision == "float64" else member.float()
            for member in members
        ]

    @cached_property
    def elements(self) -> frozenset[str]:
        if not self.paths:
            from ase.data import chemical_symbols

            return frozenset(chemical_symbols[1:])
        return frozenset.intersection(*(elements_of(path) for path in self.paths))

    @property
    def level(self) -> Fidelity:
        which: Any = (
            "the campaign's first committee"
            if self.config.committee
            else self._sha256 or f"{self.config.foundation}, not here"
        )
        settings = {
            "models_sha256": which,
            "precision": self.config.precision,
            "force_tolerance": self.config.force_tolerance,
        }
        return Fidelity("mace", settings)

    @cached_property
    def networks(self) -> Networks:
        from oracles.mace.many import Networks

        return Networks(self.members, self.config.device)

    def evaluate_by(self, ask: Ask, crystal: Crystal) -> Evaluation:
        evaluation = super().evaluate_by(ask, crystal)
        if evaluation.failure is not None or len(self.members) == 1:
            return evaluation
        energies = ask(Request(evaluation.crystal or crystal)).energies / len(crystal)
        noise = float(np.std(energies, ddof=1))
        observations = tuple(
            replace(found, noise=noise) if found.quantity == ENERGY_PER_ATOM.name else found
            for found in evaluation.observations
        )
        return replace(evaluation, observations=observations)
