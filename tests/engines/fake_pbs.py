"""The commands of a PBS that runs its jobs at once on this machine, and answers as OpenPBS does.
Not a test by itself.

It is called by the name of one of them; its jobs lie in the folder that ``FAKE_PBS`` names. A file
``endings`` there holds, line by line, the exit codes that the next jobs end with, without being
run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fake_queue import write

NAMES = ("qsub", "qselect", "qstat", "qdel")
UNKNOWN = 153


def qsub(home: Path, words: list[str]) -> int:
    options = dict(zip(words[:-1:2], words[1:-1:2], strict=True))
    number = len(list(home.glob("*.pbs"))) + 1
    path = home / f"{number}.pbs"
    asked = [words[place + 1] for place, word in enumerate(words) if word == "-l"]
    write(path, {"Job_Name": options["-N"], "job_state": "Q", "asked": asked})
    endings = home / "endings"
    waiting = endings.read_text().split() if endings.exists() else []
    if waiting:
        endings.write_text("\n".join(waiting[1:]))
        write(
            path, json.loads(path.read_text()) | {"job_state": "F", "Exit_status": int(waiting[0])}
        )
    else:
        command = [sys.executable, __file__, "run", str(path), words[-1], options["-o"]]
        subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    sys.stdout.write(f"{number}.fake\n")
    return 0


def run(path: Path, script: str, output: str) -> int:
    job = json.loads(path.read_text())
    write(path, job | {"job_state": "R"})
    with open(output, "w") as log:
        surroundings = os.environ | {"PBS_JOBID": f"{path.stem}.fake"}
        done = subprocess.run(
            ["/bin/bash", script], env=surroundings, stdout=log, stderr=log, check=False
        )
    write(path, job | {"job_state": "F", "Exit_status": done.returncode})
    return 0


def qselect(home: Path, words: list[str]) -> int:
    sys.stdout.writelines(f"{path.stem}.fake\n" for path in sorted(home.glob("*.pbs")))
    return 0


def qstat(home: Path, words: list[str]) -> int:
    named = [word for word in words if word.endswith(".fake")]
    found = {name: home / f"{name.removesuffix('.fake')}.pbs" for name in named}
    jobs = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
    sys.stdout.write(
        json.dumps({"timestamp": 0, "pbs_version": "22.05.11", "pbs_server": "fake", "Jobs": jobs})
    )
    return 0 if len(jobs) == len(named) else UNKNOWN


def qdel(home: Path, words: list[str]) -> int:
    for name in words:
        path = home / f"{name.removesuffix('.fake')}.pbs"
        write(path, json.loads(path.read_text()) | {"job_state": "F", "Exit_status": 271})
    return 0


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    if name == "run":
        sys.exit(run(Path(words[0]), *words[1:]))
    sys.exit(
        {"qsub": qsub, "qselect": qselect, "qstat": qstat, "qdel": qdel}[name](
            Path(os.environ["FAKE_PBS"]), words
        )
    )
