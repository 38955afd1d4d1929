"""A tracking server in memory on loopback that speaks as much of MLflow's REST interface as a
campaign uses, and fails in the way that it is told to.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Fault = Literal["is silent", "drips", "drips its head", "fails", "denies"]
FAULTS: tuple[Fault, ...] = ("is silent", "drips", "drips its head", "fails", "denies")
_API, _FILES = "/api/2.0/mlflow/", "/api/2.0/mlflow-artifacts/artifacts/"
_LOOK_SECONDS = 0.2


class _RefusedError(Exception):
    """What is answered in place of what was asked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class StoredRun:
    """What reached a run. Metrics as {name: {step: value}}; files are the names of artifacts."""

    info: dict[str, Any]
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    files: set[str] = field(default_factory=set)

    def document(self) -> dict[str, Any]:
        pairs = {"params": self.params, "tags": self.tags}
        data = {
            name: [{"key": k, "value": v} for k, v in found.items()]
            for name, found in pairs.items()
        }
        return {"run": {"info": self.info, "data": data}}


class TrackingServer:
    """``fault`` is how it fails now; ``bad_name`` is in the names of metrics that end in an
    internal error, ``bad_file`` in those of artifacts; ``asked`` counts requests.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.bad_name = self.bad_file = ""
        self.asked = 0
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, StoredRun] = {}
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._server = self._listen(0)
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _listen(self, port: int) -> ThreadingHTTPServer:
        owner = self

        class Handler(_Handler):
            server_of = owner

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def leave(self) -> None:
        """Refuse connections, and end those that stand."""
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def come_back(self) -> None:
        self._is_over = threading.Event()
        self._server = self._listen(self.port)

    def __enter__(self) -> TrackingServer:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_over.is_set():
            self.leave()

    # --- what is asked for
    # ------------------------------------------------------------

    def answer(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Raises _RefusedError where the server says no."""
        asked: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "experiments/get-by-name": self._experiment_by_name,
            "experiments/get": lambda given: self._experiment(given["experiment_id"]),
            "experiments/create": self._create_experiment,
            "experiments/set-experiment-tag": lambda given: {},
            "runs/create": self._create_run,
            "runs/get": lambda given: self._run(given).document(),
            "runs/update": self._update,
            "runs/search": self._search,
            "runs/delete": self._delete,
            "runs/set-tag": self._set_tag,
            "runs/delete-tag": self._delete_tag,
            "runs/log-batch": self._log_batch,
        }
        if name not in asked:
            raise _RefusedError(404, "ENDPOINT_NOT_FOUND", f"nothing is at {name}")
        with self._lock:
            return asked[name](given)

    def _experiment_by_name(self, given: Mapping[str, Any]) -> dict[str, Any]:
        for found in self.experiments.values():
            if found["name"] == given["experiment_name"]:
                return {"experiment": found}
        raise _RefusedError(404, "RESOURCE_DOES_NOT_EXIST", "no such experiment")

    def _experiment(self, identity: str) -> dict[str, Any]:
        return {"experiment": self.experiments[identity]}

    def _create_experiment(self, given: Mapping[str, Any]) -> dict[str, Any]:
        identity = str(len(self.experiments) + 1)
        self.experiments[identity] = {
            "experiment_id": identity,
            "name": given["name"],
            "lifecycle_stage": "active",
            "artifact_location": f"mlflow-artifacts:/{identity}",
        }
        return {"experiment_id": identity}

    def _create_run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        identity = uuid.uuid4().hex
        info = {
            "run_id": identity,
            "run_uuid": identity,
            "run_name": given.get("run_name", ""),
            "experiment_id": given["experiment_id"],
            "status": "RUNNING",
            "start_time": given.get("start_time", 0),
            "lifecycle_stage": "active",
            "artifact_uri": f"mlflow-artifacts:/{given['experiment_id']}/{identity}/artifacts",
        }
        tags = {item["key"]: item["value"] for item in given.get("tags", ())}
        self.runs[identity] = StoredRun(info, tags=tags)
        return self.runs[identity].document()

    def _run(self, given: Mapping[str, Any]) -> StoredRun:
        found = self.runs.get(given.get("run_id") or given["run_uuid"])
        if found is None:
            raise _RefusedError(404, "RESOURCE_DOES_NOT_EXIST", "no such run")
        return found

    def _update(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run = self._run(given)
        run.info |= {k: given[k] for k in ("status", "end_time") if k in given}
        return {"run_info": run.info}

    def _search(self, given: Mapping[str, Any]) -> dict[str, Any]:
        wanted = str(given.get("filter", "")).rpartition(" = ")[2].strip("'")
        found = [
            run.document()["run"]
            for run in self.runs.values()
            if not wanted or run.tags.get("mlflow.parentRunId") == wanted
        ]
        return {"runs": found}

    def _delete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        del self.runs[given["run_id"]]
        return {}

    def _set_tag(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._run(given).tags[given["key"]] = given["value"]
        return {}

    def _delete_tag(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._run(given).tags.pop(given["key"], None)
        return {}

    def _log_batch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        run = self._run(given)
        metrics = given.get("metrics", ())
        if self.bad_name and any(self.bad_name in item["key"] for item in metrics):
            raise _RefusedError(500, "INTERNAL_ERROR", "a value breaks the store")
        for item in metrics:
            run.metrics[item["key"]][int(item.get("step", 0))] = float(item["value"])
        run.params |= {item["key"]: item["value"] for item in given.get("params", ())}
        return {}

    def store_file(self, path: str) -> dict[str, Any]:
        """Raises _RefusedError where the store of artifacts says no."""
        if self.bad_file and self.bad_file in path:
            raise _RefusedError(413, "INVALID_PARAMETER_VALUE", "the file is too large")
        _, identity, _, name = path.split("/", 3)
        with self._lock:
            self.runs[identity].files.add(name)
        return {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: TrackingServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def _serve(self) -> None:
        owner = self.server_of
        owner.asked += 1
        over = owner._is_over
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = owner.fault
        if fault == "is silent":
            over.wait()
        if fault == "drips":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        if fault == "drips its head":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Never-Ends: ")
        if fault in ("drips", "drips its head"):
            while owner.fault == fault and not over.wait(_LOOK_SECONDS):
                self.wfile.write(b" ")
        if fault in ("is silent", "drips", "drips its head") or over.is_set():
            self.close_connection = True
            return
        if fault == "fails":
            self._send(500, {"error_code": "INTERNAL_ERROR", "message": "the store is broken"})
        elif fault == "denies":
            self._send(401, {"error_code": "UNAUTHENTICATED", "message": "who are you"})
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        try:
            if parts.path.startswith(_FILES):
                self._send(200, self.server_of.store_file(parts.path.removeprefix(_FILES)))
                return
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            given = query | (json.loads(body) if body else {})
            self._send(200, self.server_of.answer(parts.path.removeprefix(_API), given))
        except _RefusedError as error:
            self._send(error.status, {"error_code": error.code, "message": str(error)})

    def _send(self, status: int, document: Mapping[str, Any]) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = _serve


def wait_for(is_so: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether something came true in time."""
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_so()
