"""Executors: where evaluations and computations run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from campaign.config.schema import ExecutorConfig, OracleConfig, QueueConfig
from campaign.protocols import Executor

JOBS = "jobs"
"""Of a campaign's folder: where the jobs of batch queues lie."""
PILOTS = "pilots"
"""Of a campaign's folder: where the jobs lie that hold workers."""


def with_queues(
    executor: Executor, config: ExecutorConfig, queues: Mapping[str, QueueConfig], folder: Path
) -> Executor:
    """An executor that leaves some oracles' labels to batch queues, their jobs in a campaign's
    folder; replays have none.
    """
    if config.use == "virtual" or not (queues or (folder / JOBS).exists()):
        return executor
    from campaign.executors.queues import WithQueues

    return WithQueues(executor, queues, folder / JOBS, config.threads)


def with_pilots(
    executor: Executor, oracles: Sequence[OracleConfig], config: ExecutorConfig, folder: Path
) -> Executor:
    """An executor that keeps some oracles' workers in jobs of batch queues, their files in a
    campaign's folder; replays have none.
    """
    pilots = {
        oracle.label: (oracle.pilots, oracle.worker_bounds[0])
        for oracle in oracles
        if oracle.pilots is not None
    }
    if config.use == "virtual" or not (pilots or (folder / PILOTS).exists()):
        return executor
    from campaign.executors.pilots import WithPilots

    return WithPilots(executor, pilots, folder / PILOTS, config)


def make_executor(config: ExecutorConfig, *, module_folder: Path | None = None) -> Executor:
    """The executor that a config names. ``module_folder`` holds user modules to ship to the
    workers.
    """
    if config.use == "serial":
        from campaign.executors.serial import SerialExecutor

        return SerialExecutor(config.threads)
    if config.use == "virtual":
        from campaign.executors.virtual import VirtualExecutor

        return VirtualExecutor(config.virtual, config.threads)
    from campaign.executors.ray import RayExecutor

    return RayExecutor(config, module_folder=module_folder)
