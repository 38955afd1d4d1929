"""Files of a tree that are entered by a decision, a wrong config key, a failure: run in the tree by
`benchmarks.house`, with the packages as arguments.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

HERE = os.getcwd()
PREFIXES = tuple(f"{HERE}/{name}/" for name in sys.argv[1:])


def way(function: Callable[[], Any]) -> set[str]:
    """Files of whose functions any was called, importing aside."""
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        is_ours = code.co_filename.startswith(PREFIXES) and code.co_name != "<module>"
        if event == "call" and is_ours:
            entered.add(code.co_filename)

    sys.setprofile(note)
    try:
        with contextlib.suppress(Exception):
            function()
    finally:
        sys.setprofile(None)
    return entered


def main() -> None:
    sys.path[:0] = [HERE, f"{HERE}/tests"]
    from support import load  # type: ignore

    from campaign.api import Campaign

    try:
        from campaign.decide.replay import replay
    except ImportError:
        from campaign.replay import replay  # type: ignore

    def campaign(name: str, **changes: Any) -> Campaign:
        folder = Path(tempfile.mkdtemp())
        return Campaign(folder / name, load(folder, **changes))

    fine = campaign("fine", budget={"labels": 14})
    failing = campaign(
        "failing",
        oracles=[{"use": "lennard_jones", "sanity": {"energy_per_atom": [-1e-9, 0]}}],
        budget={"rounds": 1},
    )
    run = way(fine.run)
    failed = way(failing.run)
    wrong = Path(tempfile.mkdtemp())
    ways = {
        "campaign": run,
        "decision": way(lambda: replay(fine, 1)),
        "key": way(lambda: load(wrong, budgett={"labels": 1})),
        "failure": failed - run,
    }
    print(json.dumps({name: len(files) for name, files in ways.items()}))


if __name__ == "__main__":
    main()
