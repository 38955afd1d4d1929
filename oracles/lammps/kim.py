"""Potentials of the OpenKIM repository by their id, through ASE and kimpy where these are
installed.

An id with its version, such as MEAM_LAMMPS_WuLeeSu_2017_NiCrFe__MO_912636107108_000, names one
model for good. Such models run through ASE's calculator, not through LAMMPS as a library: slower by
a factor of about a hundred, so for comparisons rather than campaigns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from campaign.errors import InputError

_ID = re.compile(r"[A-Za-z0-9_]+__(MO|SM)_\d{12}_\d{3}")
_HINT = (
    "install the KIM API with its models and kimpy (Debian: openkim-models; conda-forge: "
    "kim-api, openkim-models, kimpy)"
)


def is_id(name: str) -> bool:
    """Whether a name is a full OpenKIM id."""
    return _ID.fullmatch(name) is not None


@dataclass(frozen=True)
class KimPotential:
    """A model of OpenKIM."""

    name: str
    elements: tuple[str, ...]
    style: str = "kim"

    @property
    def reference(self) -> str:
        return f"OpenKIM {self.name}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def commands(self, folder: Path, elements: Sequence[str]) -> list[str]:
        raise InputError(
            f"{self.name} runs through ASE, which this oracle cannot use",
            hint="take a potential from `oreloop potentials`",
        )

    def calculator(self) -> Any:
        from ase.calculators.kim import KIM

        return KIM(self.name)


def load(name: str) -> KimPotential:
    """Raises InputError where kimpy or the model is not installed."""
    if find_spec("kimpy") is None:
        raise InputError(
            f"the OpenKIM model {name} needs kimpy, which is not installed", hint=_HINT
        )
    from ase.calculators.kim import get_model_supported_species

    try:
        return KimPotential(name, tuple(get_model_supported_species(name)))
    except Exception as error:
        raise InputError(
            f"the OpenKIM model {name} cannot be opened: {error}", hint=_HINT
        ) from error
