"""Runs a campaign in a process of its own that can be killed at a named point. Not a test by
itself.
"""

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
    "campaign.rounds.loop",
    "campaign.api",
    "campaign.acquisition",
    "oracles.analytic",
    "pymatgen.analysis.structure_matcher",
]


def context() -> Any:
    """Processes forked from a server that has imported the heavy libraries, so that a driver starts
    in no time.
    """
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOAD)
    return made


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# What each computation calls once it is under way; the driver's own process runs it where the
# executor is serial.
INNER = {
    "fit": "library_seeds",
    "select": "library_seeds",
    "propose": "generator",
    "train": "generator",
    "judge": "judge_validity",
}


def install(fault: str, *, is_ray: bool) -> None:
    """Arrange to die at ``before:Event:n``, ``between:Event:n`` (database and journal),
    ``after:Event:n``, or ``inside:step:n``.

    n counts the commits that hold such an event, or the times that the step was begun.
    """
    if not fault:
        return
    where, what, count = fault.split(":")
    if where == "inside":
        _die_inside(what, int(count), is_ray=is_ray)
    else:
        _die_around_commit(where, what, int(count))


def _die_around_commit(where: str, what: str, count: int) -> None:
    from campaign.ledger import Ledger
    from campaign.ledger.journal import Journal

    commit, write = Ledger.append, Journal.append
    seen: Counter[str] = Counter()

    def is_now(events: Sequence[Any]) -> bool:
        return any(type(event).__name__ == what for event in events) and seen[what] == count

    def committing(self: Ledger, events: Sequence[Any], blobs: Any = None) -> Any:
        seen[what] += any(type(event).__name__ == what for event in events)
        if where == "before" and is_now(events):
            die()
        result = commit(self, events, blobs)
        if where == "after" and is_now(events):
            die()
        return result

    def writing(self: Journal, transaction: Any) -> None:
        if where == "between" and is_now(transaction.events):
            die()
        write(self, transaction)

    Ledger.append = committing  # type: ignore[method-assign]
    Journal.append = writing  # type: ignore[method-assign]


def _die_inside(step: str, count: int, *, is_ray: bool) -> None:
    executor: Any
    if is_ray:
        from campaign.executors.ray import RayExecutor as executor  # noqa: N813
    else:
        from campaign.executors.serial import SerialExecutor as executor  # noqa: N813
    submit, compute = executor.submit, executor.compute
    seen: Counter[str] = Counter()

    def submitting(self: Any, job: Any) -> None:
        submit(self, job)
        seen["label"] += 1
        if step == "label" and seen["label"] == count:
            die()

    def computing(self: Any, function: Any, *arguments: Any) -> Any:
        name = function.__name__
        seen[name] += 1
        if name == step and seen[name] == count:
            if is_ray:
                compute(self, function, *arguments)
                die()
            module = sys.modules[function.__module__]
            assert hasattr(module, INNER[name])
            setattr(module, INNER[name], lambda *_: die())
        return compute(self, function, *arguments)

    executor.submit, executor.compute = submitting, computing


def drive(folder: str, module_folder: str, document: dict[str, Any], fault: str) -> None:
    """The body of the process."""
    logging.disable(logging.WARNING)
    import torch

    torch.set_num_threads(1)
    install(fault, is_ray=document["executor"]["use"] == "ray")
    from campaign.api import Campaign
    from campaign.config import loaded as configs

    loaded = configs.validate(document, folder=Path(module_folder), source=Path("small.yaml"))
    Campaign(Path(folder), loaded).run()
