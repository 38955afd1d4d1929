"""The faults: each is made while a campaign runs or between its sessions, and its cause is removed
before the same command runs again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from benchmarks import faulty_oracle
from benchmarks.postgresql_server import Server, binaries
from campaign.ledger import events as ev
from campaign.ledger import journal
from campaign.ledger.engines import DATABASE, JOURNAL
from campaign.ledger.lock import STOP_REQUEST, is_held
from campaign.testing.drill import Config, Drill
from campaign.testing.faults import (
    COMPUTE_WORKER,
    KILL,
    STOP,
    Fault,
    NotHereError,
    damaged,
    drain,
    failing,
    flip,
    flip_middle_of_journal,
    full_disk,
    kill_driver,
    limit,
    refused_then_recovered,
    signal_process,
    signal_worker,
    stop_driver,
    under_way,
)

LABELS, SECONDS = 24, 0.1
MIDDLE, EARLY = 12, 5
HOURS = 7200.0
ORACLE_ACTOR = "ray::OracleWorkerActor"
_RECOVER_KILLED = """
import os, signal, sys
from pathlib import Path
from campaign.ledger.recover import recover
replace = os.replace
def dying(source, target):
    if Path(target).name == "ledger.db":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = dying
recover(Path(sys.argv[1]))
"""


def document(executor: str, mode: str, folder: Path) -> Config:
    """A small campaign: two workers on Ray, one without."""
    shutil.copy(faulty_oracle.__file__, folder / "faulty_oracle.py")
    oracle = {"use": "faulty_oracle:Traced", "params": {"folder": str(folder), "seconds": SECONDS}}
    return {
        "name": "small",
        "seed": 7,
        "space": {"elements": ["Ni", "Fe", "Cr"], "max_fraction": 0.9},
        "objective": {"quantity": "energy_per_atom", "direction": "minimize"},
        "mode": mode,
        "budget": {"labels": LABELS},
        "generators": [
            {"use": "random_alloy", "count": 20, "params": {"repeats": [2, 2, 1]}},
            {"use": "local_search", "count": 8},
        ],
        "surrogate": {"use": "gp", "params": {"max_iterations": 20}},
        "acquisition": {
            "use": "log_noisy_expected_improvement",
            "initial_labels": 9,
            "batch_size": 5,
            "samples": 32,
        },
        "oracles": [{**oracle, "workers": 2 if executor == "ray" else 1, "cpus": 0.5}],
        "executor": {"use": executor, **({"cpus": 1} if executor == "ray" else {})},
        "tracking": {"use": "none"},
    }


# --- processes
# ------------------------------------------------------------


def _kill_worker_twice(drill: Drill) -> None:
    """The second time under the same candidate."""
    session = under_way(drill)
    worker, candidate = drill.busy_worker()
    worker.kill()
    drill.injected(session, kills_work=True)
    drill.wait_for(lambda: drill.trace().begun[candidate] > 1, "the candidate again")
    psutil.Process(drill.trace().workers[candidate]).kill()
    drill.at_risk = drill.trace().under_way.total()
    drill.end(session)


def _stop_request_at_once(drill: Drill) -> None:
    session = drill.start()
    drill.wait_for(lambda: is_held(drill.place), "the driver's lock")
    drill.injected(session)
    (drill.place / STOP_REQUEST).touch()
    drill.end(session)


def _two_drivers(drill: Drill) -> None:
    first = under_way(drill, 1)
    drill.run_fault()
    drill.end(first)


def _move_clock(seconds: float) -> Callable[[Drill], None]:
    """While one evaluation hangs, whose limit must hold all the same."""

    def make(drill: Drill) -> None:
        drill.set_clock(0.0)
        session = under_way(drill)
        drill.switch("hang", 1)
        drill.wait_for(lambda: drill.trace().failed.total() > 0, "an evaluation that hangs")
        drill.injected(session)
        drill.set_clock(seconds)
        drill.end(session)
        drill.set_clock(0.0)

    return make


# --- disks and folders
# ------------------------------------------------------------


def _full_disk_of_the_oracle(seconds: float | None) -> Callable[[Drill], None]:
    """For a while, or until the session ends."""

    def make(drill: Drill) -> None:
        session = under_way(drill)
        drill.injected(session)
        drill.switch("full disk")
        if seconds is not None:
            time.sleep(seconds)
            drill.switch_off()
        drill.end(session)
        drill.switch_off()

    return make


def _move_away(drill: Drill) -> None:
    session, elsewhere = under_way(drill), drill.folder / "elsewhere"
    drill.injected(session)
    drill.place.rename(elsewhere)
    drill.end(session)
    if drill.place.exists():
        drill.place.rename(drill.folder / "made-anew")
    elsewhere.rename(drill.place)


def _delete(drill: Drill) -> None:
    """The user's own doing: what was labelled before is gone with it."""
    session = under_way(drill)
    drill.injected(session)
    shutil.rmtree(drill.place, ignore_errors=True)
    drill.end(session)
    shutil.rmtree(drill.place, ignore_errors=True)
    drill.unrecoverable = drill.trace().begun.total()


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    mounts = (
        ["mount", "--bind", str(folder), str(folder)],
        ["mount", "-o", "remount,ro,bind", str(folder)],
    )
    try:
        for command in mounts:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise NotHereError(f"nothing can be mounted read-only here: {done.stderr.strip()}")
        yield
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def _read_only_folder(drill: Drill) -> None:
    if os.geteuid():
        raise NotHereError("only root may mount a folder read-only")
    drill.run_until(MIDDLE)
    with _read_only(drill.place):
        drill.run_fault()
        drill.command("status", str(drill.place))


# --- the ledger at rest
# ------------------------------------------------------------


def _beside_an_older_database(which: Literal["known", "unknown"]) -> Callable[[Drill], None]:
    """The bit lies in the last label that the database knows, or in the first that it does not:
    that one is in neither side.
    """

    def make(drill: Drill) -> None:
        drill.run_until(EARLY)
        older = (drill.place / DATABASE).read_bytes()
        last = drill.state().sequence
        drill.run_until(MIDDLE)
        begin = 0
        spans: dict[str, tuple[int, int, int]] = {}
        for line, end in journal.scan(drill.place / JOURNAL):
            assert isinstance(line, journal.Line)
            labels = sum(isinstance(event, ev.Labelled) for event in line.transaction().events)
            if labels and line.first <= last:
                spans["known"] = begin, end, 0
            elif labels:
                spans.setdefault("unknown", (begin, end, labels))
            begin = end
        begin, end, drill.unrecoverable = spans[which]
        flip(drill.place / JOURNAL, (begin + end) // 2)
        (drill.place / DATABASE).write_bytes(older)
        refused_then_recovered(drill)

    return make


def _cut(name: str, keep: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(place: Path) -> None:
        os.truncate(place / name, keep((place / name).stat().st_size))

    return damage


def _change_digit(place: Path) -> None:
    """Of the first label's energy."""
    with sqlite3.connect(place / DATABASE) as database:
        number, payload = database.execute(
            "SELECT sequence, payload FROM oreloop_events WHERE kind = 'Labelled' ORDER BY sequence"
        ).fetchone()
        begin = payload.index(b'"energy_per_atom",-') + len(b'"energy_per_atom",-')
        digit = str((int(payload[begin : begin + 1]) + 1) % 10).encode()
        changed = payload[:begin] + digit + payload[begin + 1 :]
        database.execute(
            "UPDATE oreloop_events SET payload = ? WHERE sequence = ?", (changed, number)
        )
    database.close()


def _flip_blob(place: Path) -> None:
    """Of the first candidate that was labelled."""
    with sqlite3.connect(place / DATABASE) as database:
        (payload,) = database.execute(
            "SELECT payload FROM oreloop_events WHERE kind = 'Labelled' ORDER BY sequence"
        ).fetchone()
        candidate = ev.decode(payload).candidate  # type: ignore[attr-defined]
        (data,) = database.execute(
            "SELECT data FROM oreloop_blobs WHERE id = ?", (candidate,)
        ).fetchone()
        flipped = bytearray(data)
        flipped[len(flipped) // 2] ^= 1
        database.execute(
            "UPDATE oreloop_blobs SET data = ? WHERE id = ?", (bytes(flipped), candidate)
        )
    database.close()


def _kill_recover(drill: Drill) -> None:
    drill.run_until(MIDDLE)
    _cut(DATABASE, lambda size: size // 2)(drill.place)
    drill.end(drill.start_python(["-c", _RECOVER_KILLED, str(drill.place)], "recover, killed"))
    refused_then_recovered(drill)


# --- oracles
# ------------------------------------------------------------


def _failing_and_looked_at(drill: Drill) -> None:
    failing("marked text", 3)(drill)
    for command in (
        ["status", str(drill.place)],
        ["list", "campaigns"],
        ["report", str(drill.place)],
    ):
        drill.command(*command)


def _failing_and_retried(drill: Drill) -> None:
    failing("unphysical", at_once=True)(drill)
    drill.command("retry", str(drill.place))


def _to_its_end(drill: Drill) -> None:
    drill.run_fault()


def _slow(config: Config) -> None:
    config["oracles"][0]["params"]["seconds"] = 1.0


def _one_round(config: Config) -> None:
    config["budget"] = {"rounds": 1}


def _formation(config: Config) -> None:
    config["objective"]["quantity"] = "formation_energy_per_atom"


def _two_oracles(config: Config) -> None:
    config["oracles"] = [{**config["oracles"][0], "name": name} for name in ("one", "other")]
    config["executor"].update({"cpus": 2} if config["executor"]["use"] == "ray" else {})


def _levels(config: Config) -> None:
    cheap = {**config["oracles"][0], "name": "cheap"}
    config["oracles"] = [
        cheap,
        {**cheap, "name": "dear", "params": {**cheap["params"], "epsilon": 0.2}},
    ]
    config["executor"].update({"cpus": 2} if config["executor"]["use"] == "ray" else {})
    config["surrogate"] = {"use": "multi_task_gp", "params": {"max_iterations": 10}}
    config["acquisition"] = {"initial_labels": 8, "batch_size": 4, "shortlist": 20}
    config["fidelities"] = {
        "mode": "acquisition",
        "levels": [{"oracle": "cheap", "cost": 1.0}, {"oracle": "dear", "cost": 3.0}],
    }


# --- PostgreSQL
# ------------------------------------------------------------


def _on_postgresql(make: Callable[[Drill, Server], None]) -> Callable[[Drill], None]:
    def made(drill: Drill) -> None:
        programs = binaries()
        if programs is None:
            raise NotHereError("needs the programs of PostgreSQL (apt-get install -y postgresql)")
        server = Server(
            programs,
            Path(
                drill.closing.enter_context(
                    tempfile.TemporaryDirectory(prefix="faults-postgresql-")
                )
            ),
        )
        drill.closing.callback(server.stop)
        server.execute("postgres", "CREATE DATABASE campaign")
        drill.configure(ledger={"url": server.url("campaign")})
        make(drill, server)

    return made


def _end_sessions(drill: Drill, server: Server) -> None:
    session = under_way(drill)
    drill.injected(session)
    server.execute(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'campaign'",
    )
    drill.end(session)


def _restart_server(drill: Drill, server: Server) -> None:
    session = under_way(drill)
    drill.injected(session)
    server.stop()
    server.start()
    drill.end(session)


def _empty_database(drill: Drill, server: Server) -> None:
    drill.run_until(MIDDLE)
    server.execute("campaign", "TRUNCATE oreloop_events, oreloop_blobs, oreloop_meta")
    refused_then_recovered(drill)


FAULTS = (
    Fault("driver killed", kill_driver, (-9,)),
    Fault("oracle worker killed", signal_worker(KILL), (0,)),
    Fault("oracle worker killed twice under one candidate", _kill_worker_twice, (0,)),
    Fault("oracle actor killed", signal_process(ORACLE_ACTOR, KILL, kills_work=True), (0,), "ray"),
    Fault(
        "compute worker killed",
        signal_process(COMPUTE_WORKER, KILL, kills_work=False),
        (0,),
        "ray",
    ),
    Fault("raylet killed", signal_process("raylet", KILL, kills_work=True), (4,), "ray"),
    Fault("gcs_server killed", signal_process("gcs_server", KILL, kills_work=True), (4,), "ray"),
    Fault("SIGTERM", drain(signal.SIGTERM), (130,)),
    Fault("SIGHUP", drain(signal.SIGHUP), (130,)),
    Fault("SIGINT", drain(signal.SIGINT), (130,)),
    Fault("stop asked for before the driver listens", _stop_request_at_once, (130,)),
    Fault("oracle worker stopped", signal_worker(STOP), (0,), changes=limit(5.0)),
    Fault("oracle actor stopped", signal_process(ORACLE_ACTOR, STOP, kills_work=True), (0,), "ray"),
    Fault(
        "compute worker stopped",
        signal_process(COMPUTE_WORKER, STOP, kills_work=False),
        (0,),
        "ray",
    ),
    Fault("driver stopped for 20 s", stop_driver(20.0), (0,), changes=limit(5.0)),
    Fault(
        "clock two hours ahead",
        _move_clock(HOURS),
        (0,),
        changes=limit(3.0),
        is_of_the_candidate=True,
    ),
    Fault(
        "clock two hours back",
        _move_clock(-HOURS),
        (0,),
        changes=limit(3.0),
        is_of_the_candidate=True,
    ),
    Fault("two drivers at once", _two_drivers, (4,), changes=_slow),
    Fault("disk full", full_disk, (4,)),
    Fault("disk full for the oracle, 3 s", _full_disk_of_the_oracle(3.0), (0,)),
    Fault("disk full for the oracle, all session", _full_disk_of_the_oracle(None), (3,)),
    Fault("folder moved away", _move_away, (4,)),
    Fault("folder deleted", _delete, (4,)),
    Fault("folder read-only", _read_only_folder, (4,), "at rest"),
    Fault("journal: a bit flipped", damaged(flip_middle_of_journal), (0,), "at rest"),
    Fault(
        "journal: a bit flipped that an older database holds",
        _beside_an_older_database("known"),
        (4,),
        "at rest",
    ),
    Fault(
        "journal: a bit flipped that an older database lacks",
        _beside_an_older_database("unknown"),
        (4,),
        "at rest",
    ),
    Fault("journal: end cut off", damaged(_cut(JOURNAL, lambda size: size - 40)), (0,), "at rest"),
    Fault(
        "database: cut in half", damaged(_cut(DATABASE, lambda size: size // 2)), (4,), "at rest"
    ),
    Fault("database: a digit changed", damaged(_change_digit), (4,), "at rest"),
    Fault("database: deleted", damaged(lambda place: (place / DATABASE).unlink()), (4,), "at rest"),
    Fault("database: a bit of a crystal flipped", damaged(_flip_blob), (4,), "at rest"),
    Fault("recover killed before its last rename", _kill_recover, (4,), "at rest"),
    Fault(
        "failures whose text breaks terminals",
        _failing_and_looked_at,
        (0,),
        is_of_the_candidate=True,
    ),
    Fault(
        "labels that are no numbers",
        failing("not a number", 3),
        (0,),
        is_of_the_candidate=True,
    ),
    Fault("every attempt fails", _failing_and_retried, (3,), is_of_the_candidate=True),
    Fault(
        "every attempt of one round fails",
        _failing_and_retried,
        (3,),
        changes=_one_round,
        is_of_the_candidate=True,
        labels=9,
    ),
    Fault(
        "an element's reference fails once",
        failing("unphysical", 1, at_once=True),
        (3,),
        changes=_formation,
    ),
    Fault("two oracles of one fidelity", _to_its_end, (0,), changes=_two_oracles),
    Fault(
        "oracle hangs with grandchildren",
        failing("hang", 2),
        (0,),
        changes=limit(2.0),
        is_of_the_candidate=True,
    ),
    Fault("levels chosen by acquisition", _to_its_end, (0,), changes=_levels),
    Fault("PostgreSQL: sessions ended", _on_postgresql(_end_sessions), (4,)),
    Fault("PostgreSQL: server restarted", _on_postgresql(_restart_server), (4,)),
    Fault("PostgreSQL: database emptied", _on_postgresql(_empty_database), (4,), "at rest"),
)
