"""How a process of any interpreter comes to our packages: this file is its program, and it must
import nothing that is not Python's own.

It makes exactly our packages importable, from the installation that this file is part of, so that
no other package of that installation is seen and the two are of one version. Its purpose is its
argument: ``work``, ``describe``, or ``job`` with the folder of a queue's job.

Standard output becomes the way to whoever started it, but for a job; what is printed goes to
standard error, and standard input is empty.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = ("campaign", "surrogates", "generators", "oracles")
GREETING = b"\n<oreloop>\n"
"""What comes before the first message; whatever an interpreter's wrapper prints before it is passed
over.
"""


class OurPackages:
    """Finds our packages below ``HOME`` and nothing else there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [HOME]) if name in PACKAGES else None


def enter() -> None:
    """Open the way to our packages."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    sys.meta_path.insert(0, OurPackages)


def greet() -> tuple[int, int]:
    """The descriptors to read from and write to."""
    reader, writer = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    os.write(writer, GREETING)
    return reader, writer


def main(purpose: str, *folders: str) -> None:
    """Do what the process was started for. Where whoever started it is gone, nobody hears of what
    comes of that.
    """
    starter = os.getppid()
    try:
        _do(purpose, *folders)
    except Exception:
        if os.getppid() == starter:
            raise


def _do(purpose: str, *folders: str) -> None:
    enter()
    if purpose == "job":
        from campaign.executors.queued import perform

        perform(folders[0])
        return
    reader, writer = greet()
    if purpose == "describe":
        from campaign.executors.describing import describe

        describe(reader, writer)
    else:
        from campaign.executors.child import serve

        serve(reader, writer)


if __name__ == "__main__":
    main(*sys.argv[1:])
