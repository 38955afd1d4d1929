"""Jobs that one worker has at once: together first, and one by one after an end that may be the
doing of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from campaign.protocols import EvaluationJob, FinishedJob
from campaign.types import Cost, Evaluation


class Group:
    """The jobs of a worker that have no answer yet. Seconds that a lost pass took are booked on
    those that it left without one.
    """

    def __init__(self, jobs: Sequence[EvaluationJob] = ()) -> None:
        self.jobs = list(jobs)
        self.is_together = True
        self._booked = self._lost = 0.0

    def under_way(self) -> list[EvaluationJob]:
        """Those that the worker has, or gets now."""
        return list(self.jobs if self.is_together else self.jobs[:1])

    def answered(self, key: str, evaluation: Evaluation) -> FinishedJob:
        job = next(job for job in self.jobs if job.key == key)
        self.jobs.remove(job)
        cost = evaluation.cost
        self._booked += cost.wall_seconds if self.is_together else 0.0
        return FinishedJob(
            job,
            replace(evaluation, cost=replace(cost, wall_seconds=cost.wall_seconds + self._lost)),
        )

    def broke(
        self, cost: Cost, failed: Callable[[EvaluationJob, Cost], Evaluation]
    ) -> list[FinishedJob]:
        """After a pass of this cost came to nothing: the failure of the job that was under way;
        where there were several, none yet.
        """
        jobs = self.under_way()
        own = replace(cost, wall_seconds=max(0.0, cost.wall_seconds - self._booked))
        self.is_together, self._booked = False, 0.0
        if len(jobs) == 1:
            return [self.answered(jobs[0].key, failed(jobs[0], own))]
        self._lost += own.wall_seconds / len(jobs)
        return []
