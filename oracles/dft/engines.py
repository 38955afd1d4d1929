"""ASE calculators of the engines from the one settings model; and where an engine is missing, how
to install it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ase.units import Ry

from campaign.types import Crystal
from oracles.dft.settings import DftConfig, kpoints

GPAW_HINT = "run `make dft` in a checkout (a C++ compiler is needed)"
ESPRESSO_HINT = (
    "install it (Debian: quantum-espresso, quantum-espresso-data), or set command: "
    "and pseudopotentials:"
)
_PSEUDOPOTENTIALS = ("/usr/share/espresso/pseudo", "/usr/local/share/espresso/pseudo")
_CUTOFFS = re.compile(
    r"Suggested minimum cutoff for (wavefunctions|charge density):\s*([\d.]+)\s*Ry"
)
_HEADER_CUTOFFS = {
    "wavefunctions": re.compile(r'wfc_cutoff="\s*([\d.Ee+-]+)"'),
    "charge density": re.compile(r'rho_cutoff="\s*([\d.Ee+-]+)"'),
}


def missing_gpaw() -> str:
    """Why GPAW cannot run here, with the remedy; empty where it can."""
    return "" if find_spec("gpaw") is not None else f"GPAW is not installed: {GPAW_HINT}"


def missing_espresso(command: str = "pw.x", pseudopotentials: str = "") -> str:
    """Why Quantum ESPRESSO cannot run here, with the remedy; empty where it can."""
    if shutil.which(command) is None:
        return f"Quantum ESPRESSO's {command} is not found: {ESPRESSO_HINT}"
    if pseudopotential_folder(pseudopotentials) is None:
        return (
            "no pseudopotentials are found in "
            f"{pseudopotentials or ' or '.join(_PSEUDOPOTENTIALS)}: {ESPRESSO_HINT}"
        )
    return ""


def pseudopotential_folder(given: str) -> Path | None:
    return next(
        (
            Path(folder)
            for folder in ([given] if given else _PSEUDOPOTENTIALS)
            if Path(folder).is_dir()
        ),
        None,
    )


def pseudopotentials(folder: Path, symbols: set[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """File name by element: as chosen, or the folder's first PBE one. Raises ValueError where there
    is none.
    """
    found = dict(chosen)
    for symbol in symbols - found.keys():
        files = sorted(
            path.name
            for path in folder.glob("*.[uU][pP][fF]")
            if path.name.split(".")[0].split("_")[0].lower() == symbol.lower()
        )
        preferred = [name for name in files if "pbe" in name.lower()]
        if not preferred:
            raise ValueError(f"no PBE pseudopotential of {symbol} in {folder}")
        found[symbol] = preferred[0]
    return found


def suggested_cutoffs(path: Path) -> tuple[float, float]:
    """Wavefunction and density cutoff (eV) that a UPF file asks for; 0 where it says nothing."""
    text = path.read_text(errors="replace")[:20000]
    found = {name: float(value) for name, value in _CUTOFFS.findall(text)}
    for name, pattern in _HEADER_CUTOFFS.items():
        match = pattern.search(text)
        if match and not found.get(name):
            found[name] = float(match[1])
    return found.get("wavefunctions", 0.0) * Ry, found.get("charge density", 0.0) * Ry


def make(
    engine: str, settings: Mapping[str, Any], config: DftConfig, crystal: Crystal, folder: Path
) -> Any:
    """The calculator of an engine for a crystal; its files go to ``folder``."""
    return {"gpaw": _gpaw, "espresso": _espresso}[engine](settings, config, crystal, folder)


def _gpaw(settings: Mapping[str, Any], config: DftConfig, crystal: Crystal, folder: Path) -> Any:
    from gpaw import GPAW, PW, FermiDirac, Mixer, MixerSum

    is_polarised = bool(config.moments)
    mixer = MixerSum(config.mixing, 5, 50) if is_polarised else Mixer(config.mixing, 5, 50)
    return GPAW(
        mode=PW(config.cutoff),
        xc=config.functional,
        kpts={"size": kpoints(crystal, config.kpoint_density), "gamma": True},
        occupations=FermiDirac(config.smearing),
        spinpol=is_polarised,
        mixer=mixer,
        maxiter=config.max_iterations,
        convergence={"energy": config.energy_convergence},
        setups=dict(config.setups),
        txt=str(folder / "gpaw.txt"),
    )


def _espresso(
    settings: Mapping[str, Any], config: DftConfig, crystal: Crystal, folder: Path
) -> Any:
    from ase.calculators.espresso import Espresso, EspressoProfile

    library = pseudopotential_folder(settings["pseudopotentials"])
    assert library is not None
    files = pseudopotentials(library, set(crystal.symbols), config.setups)
    suggested = [suggested_cutoffs(library / name) for name in files.values()]
    wave = max(config.cutoff, *(cutoff for cutoff, _ in suggested))
    density = max(4 * wave, *(cutoff for _, cutoff in suggested))
    if config.functional != "PBE":
        raise ValueError(f"the pseudopotentials are for PBE, not {config.functional}")
    return Espresso(
        profile=EspressoProfile(command=settings["command"], pseudo_dir=str(library)),
        directory=str(folder / "espresso"),
        pseudopotentials=files,
        kpts=kpoints(crystal, config.kpoint_density),
        input_data={
            "control": {"tprnfor": True, "tstress": True},
            "system": {
                "ecutwfc": wave / Ry,
                "ecutrho": density / Ry,
                "occupations": "smearing",
                "smearing": "fermi-dirac",
                "degauss": config.smearing / Ry,
                "nspin": 2 if config.moments else 1,
            },
            "electrons": {
                "conv_thr": config.energy_convergence * len(crystal) / Ry,
                "mixing_beta": config.mixing,
            },
        },
    )


def espresso_moment(folder: Path) -> float:
    """Total magnetisation (Bohr magnetons) that pw.x printed last; 0 where it printed none. ASE
    does not read it.
    """
    found = re.findall(
        r"total magnetization\s*=\s*([-\d.]+)",
        (folder / "espresso" / "espresso.pwo").read_text(errors="replace"),
    )
    return float(found[-1]) if found else 0.0
