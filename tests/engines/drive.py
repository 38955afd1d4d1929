"""Runs a campaign in a process of its own that can be killed at a named point. Not a test by itself."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRELOAD = [
    "torch",
    "botorch.optim",
    "botorch.acquisition",
    "gpytorch",
    "surrogates.gp",
    "generators.random_alloy",
    "generators.local_search",
    "campaign.loop",
    "campaign.api",
    "campaign.acquisition",
    "oracles.analytic",
    "pymatgen.analysis.structure_matcher",
]


def context() -> Any:
    """Processes forked from a server that has imported the heavy libraries, so that a driver starts in no time."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOAD)
    return made


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def install(fault: str) -> None:
    """Arrange to die at ``before:Event:n``, ``after:Event:n`` (of the n-th commit that holds the event), or ``inside:step:n``."""
    if not fault:
        return
    where, what, count = fault.split(":")
    seen: Counter[str] = Counter()
    if where in ("before", "after"):
        from campaign.ledger import Ledger

        append = Ledger.append

        def faulty(self: Ledger, events: Sequence[Any], blobs: Any = None) -> Any:
            hit = any(type(event).__name__ == what for event in events)
            seen[what] += hit
            if hit and where == "before" and seen[what] == int(count):
                die()
            result = append(self, events, blobs)
            if hit and where == "after" and seen[what] == int(count):
                die()
            return result

        Ledger.append = faulty  # type: ignore[method-assign]
        return
    from campaign import executors
    from campaign.executors.serial import SerialExecutor

    del executors
    classes: list[Any] = [SerialExecutor]
    if "ray" in sys.argv or os.environ.get("ORELOOP_TEST_RAY"):
        from campaign.executors.ray import RayExecutor

        classes = [RayExecutor]
    for executor in classes:
        if what == "label":
            submit = executor.submit

            def submitting(self: Any, job: Any, submit: Any = submit) -> None:
                submit(self, job)
                seen[what] += 1
                if seen[what] == int(count):
                    die()

            executor.submit = submitting
        else:
            compute = executor.compute

            def computing(self: Any, function: Any, *arguments: Any, compute: Any = compute, name_: str = executor.__name__) -> Any:
                name = "screen" if function.__name__ == "judge" else function.__name__
                seen[name] += 1
                if name == what and seen[name] == int(count):
                    if name_ == "RayExecutor":
                        compute(self, function, *arguments)
                        die()
                    module = sys.modules[function.__module__]
                    inner = "generator" if name in ("train", "propose") else "library_seeds"
                    setattr(module, inner, lambda *_: die())
                return compute(self, function, *arguments)

            executor.compute = computing


def drive(folder: str, module_folder: str, document: dict[str, Any], fault: str) -> None:
    """The body of the process."""
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    if document["executor"]["use"] == "ray":
        os.environ["ORELOOP_TEST_RAY"] = "1"
    install(fault)
    from campaign import config as configs
    from campaign.api import Campaign

    loaded = configs.validate(document, folder=Path(module_folder), source=Path("small.yaml"))
    Campaign(Path(folder), loaded).run()
