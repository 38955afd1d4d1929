"""Executors: where evaluations and computations run."""

from __future__ import annotations

from pathlib import Path

from campaign.protocols import Executor
from campaign.schema import ExecutorConfig


def make_executor(config: ExecutorConfig, *, module_folder: Path | None = None) -> Executor:
    """The executor that a config names. ``module_folder`` holds user modules to ship to the workers."""
    if config.use == "serial":
        from campaign.executors.serial import SerialExecutor

        return SerialExecutor(config.threads)
    if config.use == "virtual":
        from campaign.executors.virtual import VirtualExecutor

        return VirtualExecutor(config.virtual, config.threads)
    from campaign.executors.ray import RayExecutor

    return RayExecutor(config, module_folder=module_folder)
