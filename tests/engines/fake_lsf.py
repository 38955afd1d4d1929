"""The commands of an LSF that runs its jobs at once on this machine, and answers as LSF 10.1 does.
Not a test by itself.

It is called by the name of one of them; its jobs lie in the folder that ``FAKE_LSF`` names. A file
``endings`` there holds, line by line, the reasons that the next jobs end for, without being run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fake_queue import write

NAMES = ("bsub", "bjobs", "bkill")
FAILED = 255
VALUES = ("-J", "-cwd", "-o", "-n", "-R", "-W", "-M", "-gpu", "-q", "-P")


def record(number: int, name: str, state: str, **other: str) -> dict[str, str]:
    empty = {"EXIT_CODE": "", "EXIT_REASON": "", "PEND_REASON": ""}
    return {"JOBID": str(number), "JOB_NAME": name, "STAT": state} | empty | other


def bsub(home: Path, words: list[str]) -> int:
    options: dict[str, list[str]] = {}
    for place, word in enumerate(words):
        if word in VALUES:
            options.setdefault(word, []).append(words[place + 1])
    number = len(list(home.glob("*.lsf"))) + 1
    path = home / f"{number}.lsf"
    job = record(number, options["-J"][0], "PEND", PEND_REASON="New job is waiting for scheduling;")
    write(path, job)
    (home / f"{number}.asked").write_text(json.dumps(options))
    endings = home / "endings"
    waiting = endings.read_text().splitlines() if endings.exists() else []
    if waiting:
        endings.write_text("\n".join(waiting[1:]))
        write(path, job | {"STAT": "EXIT", "EXIT_CODE": "130", "EXIT_REASON": waiting[0]})
    else:
        command = [sys.executable, __file__, "run", str(path), words[-1], options["-o"][0]]
        subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    sys.stdout.write(f"Job <{number}> is submitted to default queue <normal>.\n")
    return 0


def run(path: Path, command: str, output: str) -> int:
    job = json.loads(path.read_text())
    write(path, job | {"STAT": "RUN"})
    with open(output, "w") as log:
        surroundings = os.environ | {"LSB_JOBID": path.stem}
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=surroundings, stdout=log, stderr=log, check=False
        )
    end = {"STAT": "EXIT", "EXIT_CODE": str(done.returncode)} if done.returncode else {}
    write(path, job | {"STAT": "DONE"} | end)
    return 0


def bjobs(home: Path, words: list[str]) -> int:
    records = [json.loads(path.read_text()) for path in sorted(home.glob("*.lsf"))]
    if not records:
        sys.stderr.write("No job found\n")
        return FAILED
    sys.stdout.write(
        json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2)
    )
    return 0


def bkill(home: Path, words: list[str]) -> int:
    code = 0
    for number in words:
        path = home / f"{number}.lsf"
        job = json.loads(path.read_text()) if path.exists() else None
        if job is None:
            sys.stderr.write(f"Job <{number}>: No matching job found\n")
            code = FAILED
        elif job["STAT"] in ("DONE", "EXIT"):
            sys.stderr.write(f"Job <{number}>: Job has already finished\n")
            code = FAILED
        else:
            write(path, job | {"STAT": "EXIT", "EXIT_REASON": "TERM_OWNER: job killed by owner"})
            sys.stdout.write(f"Job <{number}> is being terminated\n")
    return code


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    if name == "run":
        sys.exit(run(Path(words[0]), *words[1:]))
    sys.exit(
        {"bsub": bsub, "bjobs": bjobs, "bkill": bkill}[name](Path(os.environ["FAKE_LSF"]), words)
    )
