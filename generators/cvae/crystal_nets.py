"""Names of nets by CrystalNets.jl (L. Zoubritzky and F.-X. Coudert, SciPost Chem. 1 (2022) 005),
where a Julia with it is found.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from campaign.types import Crystal

log = logging.getLogger(__name__)

SCRIPT = """
using CrystalNets
CrystalNets.toggle_warning(false)
CrystalNets.toggle_export(false)
options = CrystalNets.Options(structure=CrystalNets.StructureType.Auto)
for path in ARGS
    name = try
        join([string(part[1][CrystalNets.Clustering.Auto]) for part in determine_topology(path, options)], " + ")
    catch
        ""
    end
    println(basename(path), '\\t', name)
end
"""  # noqa: E501
_START, _EACH = 120.0, 20.0
"""Wall limits (s): to load and compile the package, and of each crystal."""


def names(crystals: Sequence[Crystal]) -> list[str]:
    """What CrystalNets.jl calls each net, bonds as it finds them; empty where it has no answer, all
    empty without Julia or the package.

    One Julia for all crystals: its start takes most of the time.
    """
    julia = shutil.which("julia")
    if julia is None or not crystals:
        return [""] * len(crystals)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{row}.cif" for row in range(len(crystals))]
        for path, crystal in zip(paths, crystals, strict=True):
            crystal.atoms.write(path, format="cif")
        command = [julia, "--startup-file=no", "-e", SCRIPT, *map(str, paths)]
        try:
            answer = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=_START + _EACH * len(paths),
            )
        except subprocess.TimeoutExpired:
            log.warning(
                "CrystalNets.jl took more than %.0f s, and names no nets",
                _START + _EACH * len(paths),
            )
            return [""] * len(crystals)
    if answer.returncode:
        told = (answer.stderr.strip() or "no message").splitlines()[0]
        log.warning("Julia is here, but CrystalNets.jl names no nets: %s", told)
        return [""] * len(crystals)
    found = dict(line.split("\t", 1) for line in answer.stdout.splitlines() if "\t" in line)
    return [found.get(path.name, "").strip() for path in paths]
