"""What the stand-ins of the batch queues share. Not a test by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def install(folder: Path, script: str, names: Iterable[str]) -> Path:
    """A folder of programs of these names, each of which runs the script under its own name."""
    programs = folder / "programs"
    programs.mkdir(parents=True)
    for name in names:
        program = programs / name
        call = (
            f"import runpy, sys; sys.argv[1:1] = [{name!r}]; "
            f"sys.path.insert(0, {str(Path(script).parent)!r}); "
            f"runpy.run_path({script!r}, run_name='__main__')"
        )
        program.write_text(f"#!{sys.executable}\n{call}\n")
        program.chmod(0o755)
    return programs


def write(path: Path, job: dict[str, Any]) -> None:
    begun = path.with_suffix(".begun")
    begun.write_text(json.dumps(job))
    begun.replace(path)
