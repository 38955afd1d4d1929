"""Questions to a batch scheduler: how often, and what is told where it is away or jobs wait."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from campaign.clock import awake_seconds
from campaign.config.schema import QueueConfig
from campaign.executors.schedulers import Job, SchedulerAwayError

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
_USUAL = frozenset({"None", "Priority", "Resources", "PENDING", "CONFIGURING", "Q", "PEND"})


class Polling:
    """Of one oracle's jobs. ``next``: when the scheduler is asked again, in awake seconds."""

    def __init__(self, oracle: str, config: QueueConfig) -> None:
        self._oracle, self._config = oracle, config
        self.next = 0.0
        self._failures = 0
        self._told: set[str] = set()

    def is_due(self) -> bool:
        """Whether it is time to ask; the time after that is then set."""
        now = awake_seconds()
        if now < self.next:
            return False
        self.next = now + self._config.check_every
        return True

    @property
    def is_away(self) -> bool:
        """Whether the scheduler did not answer the last time."""
        return bool(self._failures)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """A question to the scheduler; where it is away, it is told once and asked again later."""
        try:
            yield
        except SchedulerAwayError as error:
            if not self._failures:
                log.warning(
                    "%s; the jobs of oracle %s are waited for until it answers",
                    error.message,
                    self._oracle,
                )
            self._failures += 1
            self.next = awake_seconds() + min(
                _LONGEST_PAUSE, self._config.check_every * 2**self._failures
            )
        else:
            if self._failures:
                log.warning("%s answers again", self._config.scheduler)
            self._failures = 0

    def tell_if_waiting(self, identity: str, job: Job) -> None:
        """Tell once each reason that jobs wait for, but for their turn."""
        if job.phase == "queued" and job.told not in _USUAL | self._told:
            self._told.add(job.told)
            log.warning("job %s of oracle %s waits: %s", identity, self._oracle, job.told)
