"""What driving a campaign costs beside a bare loop of Ray, by the code of a checkout: part of
``benchmarks.engine``.

Run by an older checkout too, so that it imports nothing of the benchmarks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]
HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
SECONDS, WORKERS = 0.1, 2
BARE_LABELS = 200


def document(batch: int, mode: str, seed: int, labels: int) -> dict[str, Any]:
    """A campaign on a sleeping oracle: 100 proposals a round, two generators, the default surrogate
    and acquisition.
    """
    alloy = {"lattices": ["bcc", "fcc"], "repeats": [3, 3, 3]}
    return {
        "name": "driving",
        "seed": seed,
        "space": {"elements": ["Ni", "Fe", "Cr"]},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "mode": mode,
        "budget": {"labels": labels},
        "generators": [
            {"use": "random_alloy", "count": 50, "params": alloy},
            {"use": "local_search", "count": 50},
        ],
        "surrogate": {"use": "gp"},
        "acquisition": {
            "use": "log_noisy_expected_improvement",
            "initial_labels": max(10, batch),
            "batch_size": batch,
            "pool_size": 1000,
        },
        "oracles": [
            {
                "use": "sleeping_oracle:Sleeping",
                "workers": WORKERS,
                "cpus": 0.5,
                "params": {"seconds": SECONDS},
            }
        ],
        "executor": {"use": "ray"},
        "tracking": {"use": "none"},
    }


class Watch:
    """Labels, processor seconds and time of a driver, from the last of the initial labels on."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._first: tuple[int, float, float] | None = None
        self._last = (0, 0.0, 0.0)

    def __call__(self, state: Any) -> None:
        n = len(state.own_labels)
        if n >= self._after:
            self._last = n, time.process_time(), time.monotonic()
            self._first = self._first or self._last

    def figures(self) -> Row:
        assert self._first is not None
        labels, cpu, seconds = (
            last - first for last, first in zip(self._last, self._first, strict=True)
        )
        return {
            "labels": labels,
            "driver_cpu_ms_per_label": 1000 * cpu / labels,
            "labels_per_second": labels / seconds,
        }


def drive(batch: int, mode: str, seed: int, labels: int) -> Row:
    """One campaign on the sleeping oracle."""
    from campaign.api import Campaign
    from campaign.config import loaded as configs

    loaded = configs.validate(
        document(batch, mode, seed, labels),
        folder=HERE.parent / "plugins",
        source=Path("benchmark.yaml"),
    )
    watch = Watch(max(10, batch))
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder) / "campaign", loaded)
        campaign.run(on_change=watch)
        rounds = [
            record
            for record in campaign.state().rounds
            if record.fitted is not None and record.decided is not None
        ]
    computing = [
        (record.fitted.seconds if record.fitted else 0.0)
        + sum(event.seconds for event in record.proposed)
        + (record.decided.seconds if record.decided else 0.0)
        for record in rounds
    ]
    return watch.figures() | {
        "rounds": len(rounds),
        "computing_seconds_per_round": sorted(computing)[len(computing) // 2],
    }


def quick_start(seed: int, labels: int) -> Row:
    """The shipped quick start: how busy its workers are, and each better label with how many there
    were by then.
    """
    from ruamel.yaml import YAML

    from campaign.api import Campaign
    from campaign.config import loaded as configs
    from campaign.views.metrics import busy_fraction

    found = YAML(typ="safe").load(ROOT / "configs" / "nifecr_quickstart.yaml")
    found |= {
        "seed": seed,
        "budget": {"labels": labels},
        "tracking": {"use": "none"},
        "executor": {"use": "ray"},
    }
    loaded = configs.validate(found, folder=ROOT / "configs", source=Path("benchmark.yaml"))
    watch = Watch(found["acquisition"]["initial_labels"])
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder) / "campaign", loaded)
        campaign.run(on_change=watch)
        state = campaign.state()
    better: list[tuple[int, float]] = []
    for n, label in enumerate(state.own_labels, start=1):
        value = label.values["bulk_modulus"]
        if not better or value > better[-1][1]:
            better.append((n, value))
    own = state.own_labels
    return watch.figures() | {
        "busy_fraction": busy_fraction(state, own[0].oracle, found["oracles"][0]["workers"]),
        "better": better,
    }


def bare() -> Row:
    """Two actors that sleep, fed by the shortest loop there is, with payloads of a crystal's
    size.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, configure_logging=False)

    class Sleeper:
        def evaluate(self, payload: bytes) -> bytes:
            time.sleep(SECONDS)
            return payload

    actors = [ray.remote(Sleeper).options(num_cpus=0.5).remote() for _ in range(WORKERS)]
    payload = bytes(1500)
    ray.get([actor.evaluate.remote(payload) for actor in actors])
    cpu, began = time.process_time(), time.monotonic()
    running = {actor.evaluate.remote(payload): actor for actor in actors}
    asked = len(running)
    while running:
        for reference in ray.wait(list(running), num_returns=1)[0]:
            actor = running.pop(reference)
            ray.get(reference)
            if asked < BARE_LABELS:
                running[actor.evaluate.remote(payload)] = actor
                asked += 1
    cpu, seconds = time.process_time() - cpu, time.monotonic() - began
    ray.shutdown()
    return {
        "labels": asked,
        "driver_cpu_ms_per_label": 1000 * cpu / asked,
        "labels_per_second": asked / seconds,
    }


def run(checkout: Path, what: str, **settings: Any) -> Row:
    """A function of this module in a fresh process, by the code of a checkout."""
    surroundings = os.environ | {
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    code = (
        f"import json, runpy; found = runpy.run_path({str(HERE)!r}); import campaign;"
        f"assert campaign.__file__.startswith({str(checkout)!r}), campaign.__file__;"
        f"print('\\n' + json.dumps(found[{what!r}](**{settings!r})))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr)
    row: Row = json.loads(
        next(line for line in reversed(result.stdout.splitlines()) if line.startswith("{"))
    )
    return row
