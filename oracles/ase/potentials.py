"""Universal potentials: which there are, what they know, where their weights lie. Data alone;
nothing of theirs is imported.

``path`` of a checkpoint starts at the folder of its package's module; without one its weights are
the user's to bring. Potentials marked as run here were checked by the project's tests; the others
are called as their packages of the version named document it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from oracles.ase.calculators import CALL, DEVICE, WEIGHTS

PBE = "PBE and PBE+U, Materials Project"
R2SCAN = "r2SCAN, Materials Project"
OMAT = "PBE and PBE+U, OMat24"
MATERIALS_PROJECT = frozenset(chemical_symbols[1:95]) - {"Po", "At", "Rn", "Fr", "Ra"}
"""The 89 elements of the relaxations of the Materials Project (MPtrj)."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their level of theory; ``arguments`` go to the calculator beside those of the
    potential.
    """

    theory: str
    path: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    elements: frozenset[str] | None = MATERIALS_PROJECT


@dataclass(frozen=True, kw_only=True)
class Potential:
    """A package of universal potentials; the first checkpoint is the one that is meant where none
    is named.
    """

    distribution: str
    module: str
    calculator: str
    arguments: Mapping[str, Any]
    licence: str
    install: str
    checkpoints: Mapping[str, Checkpoint]
    was_run: bool = False

    def file_of(self, checkpoint: str, home: Path | None) -> Path | None:
        """Where weights that come with the package lie, given the folder of its module; None where
        they do not come with it.
        """
        path = self.checkpoints[checkpoint].path
        return home / path if path is not None and home is not None else None


def home_of(module: str) -> Path | None:
    """The folder of a package's module in this interpreter; None where it is not installed."""
    found = importlib.util.find_spec(module)
    places = list(found.submodule_search_locations or []) if found is not None else []
    return Path(places[0]) if places else None


_SEVENNET, _CHGNET = "pretrained_potentials", "pretrained"
_CHGNET_MODEL = {CALL: "chgnet.model.model:CHGNet.from_file", "arguments": {"path": WEIGHTS}}

POTENTIALS: Mapping[str, Potential] = {
    "sevennet": Potential(
        distribution="sevenn",
        module="sevenn",
        calculator="sevenn.calculator:SevenNetCalculator",
        arguments={"model": WEIGHTS, "device": DEVICE},
        licence="MIT",
        install="make potentials (it builds .venv-sevennet; add python: "
        "../.venv-sevennet/bin/python to the oracle)",
        was_run=True,
        checkpoints={
            "7net-l3i5": Checkpoint(PBE, f"{_SEVENNET}/SevenNet_l3i5/checkpoint_l3i5.pth"),
            "7net-0": Checkpoint(
                PBE, f"{_SEVENNET}/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"
            ),
            "7net-0_22may2024": Checkpoint(
                PBE, f"{_SEVENNET}/SevenNet_0__22May2024/checkpoint_sevennet_0.pth"
            ),
            "7net-mf-0-pbe": Checkpoint(
                PBE, f"{_SEVENNET}/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth", {"modal": "PBE"}
            ),
            "7net-mf-0-r2scan": Checkpoint(
                R2SCAN,
                f"{_SEVENNET}/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
                {"modal": "R2SCAN"},
            ),
        },
    ),
    "chgnet": Potential(
        distribution="chgnet",
        module="chgnet",
        calculator="chgnet.model.dynamics:CHGNetCalculator",
        arguments={"use_device": DEVICE},
        licence="modified BSD",
        install='pip install "oreloop[chgnet]"',
        was_run=True,
        checkpoints={
            "0.3.0": Checkpoint(
                PBE, f"{_CHGNET}/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", {"model": _CHGNET_MODEL}
            ),
            "0.2.0": Checkpoint(
                PBE,
                f"{_CHGNET}/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
                {
                    "model": {
                        CALL: _CHGNET_MODEL[CALL],
                        "arguments": {"path": WEIGHTS, "mlp_out_bias": True},
                    }
                },
            ),
            "r2scan": Checkpoint(
                R2SCAN,
                f"{_CHGNET}/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
                {"model": _CHGNET_MODEL},
            ),
        },
    ),
    "mattersim": Potential(
        distribution="mattersim",
        module="mattersim",
        calculator="mattersim.forcefield.potential:MatterSimCalculator.from_checkpoint",
        arguments={"load_path": WEIGHTS, "device": DEVICE},
        licence="MIT",
        install='pip install "mattersim>=1.2,<2" in an environment of its own; weights: '
        "mattersim-v1.0.0-1M.pth from its repository",
        checkpoints={"v1.0.0": Checkpoint("PBE and PBE+U, MatterSim", elements=None)},
    ),
    "orb": Potential(
        distribution="orb-models",
        module="orb_models",
        calculator="orb_models.forcefield.calculator:ORBCalculator",
        arguments={"device": DEVICE},
        licence="Apache-2.0",
        install='pip install "orb-models>=0.5,<0.6" in an environment of its own; weights: the '
        ".ckpt that its pretrained models name",
        checkpoints={
            f"v3-conservative-inf-{data}": Checkpoint(
                theory,
                arguments={
                    "model": {
                        CALL: f"orb_models.forcefield.pretrained:orb_v3_conservative_inf_{data}",
                        "arguments": {"weights_path": WEIGHTS, "device": DEVICE, "compile": False},
                    }
                },
                elements=None,
            )
            for data, theory in (("omat", OMAT), ("mpa", "PBE and PBE+U, MPtrj and Alexandria"))
        },
    ),
    "fairchem": Potential(
        distribution="fairchem-core",
        module="fairchem",
        calculator="fairchem.core:FAIRChemCalculator",
        arguments={
            "predict_unit": {
                CALL: "fairchem.core.units.mlip_unit:load_predict_unit",
                "arguments": {"path": WEIGHTS, "device": DEVICE},
            }
        },
        licence="MIT; the weights have licences of their own",
        install='pip install "fairchem-core>=2,<3" in an environment of its own; weights: UMA '
        "from Hugging Face, on request",
        checkpoints={"uma-omat": Checkpoint(OMAT, arguments={"task_name": "omat"}, elements=None)},
    ),
    "grace": Potential(
        distribution="tensorpotential",
        module="tensorpotential",
        calculator="tensorpotential.calculator:TPCalculator",
        arguments={"model": WEIGHTS},
        licence="Academic Software License: not for commercial use",
        install='pip install "tensorpotential>=0.5,<0.7" in an environment of its own; '
        "weights: the folder that its grace_models fetches",
        checkpoints={"saved-model": Checkpoint("as the model was trained", elements=None)},
    ),
}
