"""Check an evidence bundle: that its files are those that were written, that its tables follow from
its history, and that hits drawn by chance, labelled again by the oracles that it holds, come out
the same.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from campaign import plugins
from campaign.bundle.inputs import digest, files_of
from campaign.bundle.writing import CONFIG, ENVIRONMENT, FORMATS, HISTORY, METADATA
from campaign.code import IMPORTABLE, installed
from campaign.config import loaded as configs
from campaign.config.loaded import LoadedConfig, Recorded
from campaign.config.roles import objective_oracle
from campaign.decide import ladder, ranking
from campaign.errors import InputError, OreloopError
from campaign.executors.serial import SerialExecutor
from campaign.ledger.archive import Archive
from campaign.ledger.state import LabelRecord
from campaign.protocols import EvaluationJob, asks_committee
from campaign.types import Candidate, Evaluation
from campaign.views.export import export

_HITS = 20
_SMALL = 1e-2
"""Values near zero are compared with the tolerance times this, in their unit, at least."""
_NOISES = 3.0
_WRITERS = ("ase", "pymatgen")
_PICKLES = (".model", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it holds, and what was found. ``skipped`` says nothing
    either way.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str


def verify(
    bundle: Path,
    *,
    sample: int = 5,
    seed: int = 0,
    tolerance: float = 1e-3,
    fingerprint: str = "",
    runs_code: bool = False,
) -> Iterator[Check]:
    """Check after check; those that need what an earlier one refused are left out.

    ``sample`` of the 20 best labels are made again and compared within ``tolerance`` (relative) and
    three times the stated noise. What the bundle's oracle would run of its own (a class by name, a
    program, a model that is a pickle) runs only where ``runs_code`` says so. Raises InputError
    where the folder is no bundle.
    """
    if not (bundle / METADATA).is_file():
        raise InputError(
            f"{bundle} is no evidence bundle: it has no {METADATA}",
            hint="`oreloop export CAMPAIGN --bundle` writes one",
        )
    found = digest(bundle / METADATA)
    if fingerprint:
        agrees = found.startswith(fingerprint.lower())
        yield Check(
            "fingerprint",
            "passed" if agrees else "failed",
            found if agrees else f"is {found}, expected {fingerprint}",
        )
    files = _check("files", lambda: _files(bundle))
    yield files
    if files.status == "failed":
        return
    try:
        opened = _Opened.of(bundle)
    except OreloopError as error:
        yield Check("history and tables", "failed", error.message)
        return
    yield _check("history and tables", lambda: _tables(bundle, opened))
    yield Check("environment", "passed", _environment(opened.environment))
    yield from _again(opened, sample, seed, tolerance, runs_code)


@dataclass(frozen=True)
class _Opened:
    """What a bundle says: its history, its environment, and its config with what the campaign
    recorded of its oracles.
    """

    archive: Archive
    environment: Mapping[str, Any]
    loaded: LoadedConfig

    @classmethod
    def of(cls, bundle: Path) -> _Opened:
        """Raises InputError where a part cannot be read."""
        try:
            environment = json.loads((bundle / ENVIRONMENT).read_bytes())
            recorded = Recorded.read(environment["parts"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(f"{ENVIRONMENT} cannot be read: {error}") from error
        return cls(
            Archive(bundle / HISTORY),
            environment,
            replace(configs.read(bundle / CONFIG), recorded=recorded),
        )


def _check(name: str, look: Callable[[], str]) -> Check:
    """``look`` returns what it found or raises InputError."""
    try:
        return Check(name, "passed", look())
    except OreloopError as error:
        return Check(name, "failed", error.message)


def _files(bundle: Path) -> str:
    try:
        graph = json.loads((bundle / METADATA).read_bytes())["@graph"]
        known = {item["@id"]: item["sha256"] for item in graph if item.get("sha256")}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{METADATA} cannot be read: {error}") from error
    there = {path.relative_to(bundle).as_posix(): path for path in files_of(bundle)}
    wrong = [f"{name} is missing" for name in sorted(known.keys() - there.keys())]
    wrong += [
        f"{name} is not of the bundle" for name in sorted(there.keys() - known.keys() - {METADATA})
    ]
    wrong += [
        f"{name} was changed"
        for name in sorted(known.keys() & there.keys())
        if digest(there[name]) != known[name]
    ]
    if wrong or not known:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise InputError("; ".join(wrong[:5]) + more if wrong else "it lists no file")
    return f"{len(known)} as written"


def _tables(bundle: Path, opened: _Opened) -> str:
    """All that is written from the history is written anew and compared; structures where the same
    versions write them.
    """
    archive, loaded, written = opened.archive, opened.loaded, opened.environment["exported_with"]
    here = installed()
    same = all(written.get(package) == here[package] for package in _WRITERS)
    with tempfile.TemporaryDirectory(prefix="oreloop-verify-") as name:
        export(
            archive.state,
            archive,
            Path(name),
            FORMATS,
            ranking.wanted_of(loaded.config, objective_oracle(loaded)),
        )
        for path in files_of(Path(name)):
            place = path.relative_to(name)
            if not (bundle / place).is_file():
                raise InputError(f"{place} is missing")
            if path.suffix == ".parquet" and not _is_same_table(path, bundle / place):
                raise InputError(f"{place} differs from the history")
            if (
                path.suffix != ".parquet"
                and same
                and path.read_bytes() != (bundle / place).read_bytes()
            ):
                raise InputError(f"{place} differs from the history")
    found = f"{len(archive.state.labels)} labels of {archive.state.sequence} events"
    return (
        found
        if same
        else f"{found}; structures were written by other versions of {', '.join(_WRITERS)} and "
        "not compared"
    )


def _is_same_table(one: Path, other: Path) -> bool:
    import pandas as pd

    tables = pd.read_parquet(one), pd.read_parquet(other)
    return bool(tables[0].to_json(double_precision=15) == tables[1].to_json(double_precision=15))


def _environment(recorded: Mapping[str, Any]) -> str:
    here = installed()
    sessions = recorded["sessions"] or [recorded["exported_with"]]
    other = [
        f"{name} {version} (here {here.get(name) or 'none'})"
        for name, version in sessions[-1].items()
        if here.get(name) != version
    ]
    return "differs in " + ", ".join(other) if other else "the versions that the campaign ran with"


def _again(
    opened: _Opened, sample: int, seed: int, tolerance: float, runs_code: bool
) -> Iterator[Check]:
    """Hits labelled again."""
    archive, loaded = opened.archive, opened.loaded
    labels = _drawn(loaded, archive, sample, seed)
    if not labels:
        yield Check(
            "labels again",
            "skipped",
            "no hit was labelled at its first attempt by an oracle that is in the bundle",
        )
        return
    oracle = next(item for item in loaded.config.oracles if item.label == labels[0].oracle)
    code = next(_code_of(oracle.model_dump(mode="json")), "")
    if code and not runs_code:
        yield Check(
            "labels again",
            "skipped",
            f"{oracle.use} runs what the bundle names, {code}: read it, then say --run-code",
        )
        return
    spec = replace(loaded.oracle_spec(oracle), fidelity="")
    reason = _unusable(loaded, archive, labels[0].oracle)
    if reason:
        yield Check("labels again", "failed", reason)
        return
    executor = SerialExecutor()
    try:
        executor.start([spec])
        for label in labels:
            start = ladder.relaxed_below(
                archive.state, loaded.config, label.candidate, label.oracle
            )
            candidate = Candidate(archive.crystal(label.candidate))
            begin = archive.crystal(start) if start is not None else None
            executor.submit(
                EvaluationJob(
                    key=f"verify/{label.candidate}",
                    oracle=label.oracle,
                    candidate=candidate,
                    start=begin,
                )
            )
            while not (finished := executor.wait(1.0)):
                pass
            name = f"{archive.state.formula(label.candidate)} {label.candidate[:8]} again"
            yield _compared(name, label, finished[0].evaluation, tolerance)
    except OreloopError as error:
        yield Check("labels again", "failed", error.message)
    finally:
        executor.shutdown()


def _code_of(settings: Any, key: str = "") -> Iterator[str]:
    """Of an oracle's settings what would run as code: classes and functions by name, programs, and
    models that are pickles.
    """
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _code_of(value, str(name))
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _code_of(value, key)
    elif isinstance(settings, str):
        runs = (
            key == "python"
            or "command" in key
            or IMPORTABLE.fullmatch(settings)
            or Path(settings).suffix in _PICKLES
        )
        yield from [settings] if runs else []


def _drawn(loaded: LoadedConfig, archive: Archive, sample: int, seed: int) -> list[LabelRecord]:
    wanted = ranking.wanted_of(loaded.config, objective_oracle(loaded))
    hits = [item.label for item in ranking.ranked(archive.state, wanted, _HITS)]
    hits = [label for label in hits if not label.attempt and not label.source]
    drawn = (
        np.random.default_rng(seed).choice(len(hits), min(sample, len(hits)), replace=False)
        if hits
        else ()
    )
    return [hits[i] for i in sorted(drawn)]


def _unusable(loaded: LoadedConfig, archive: Archive, name: str) -> str:
    """Why an oracle of the bundle cannot label again; empty where it can."""
    component = next(item for item in loaded.config.oracles if item.label == name)
    spec = loaded.spec("oracles", component)
    try:
        built = plugins.build(spec)
        key = plugins.fidelity_of(
            built, replace(spec, params=_params_as_run(archive, name, spec.params))
        ).key
    except OreloopError as error:
        return f"the oracle {name} cannot be made: {error.message}"
    if asks_committee(built):
        return f"the oracle {name} asks a committee that was trained in the campaign"
    recorded = loaded.fidelity_keys[name]
    return (
        ""
        if key == recorded
        else f"the oracle {name} is of {key} here, the labels are of {recorded}"
    )


def _params_as_run(archive: Archive, name: str, here: Mapping[str, Any]) -> Mapping[str, Any]:
    """An oracle's settings with the paths that its files had where the campaign ran."""
    oracles = archive.state.config.config["oracles"] if archive.state.config is not None else []
    return next(
        (
            item["params"]
            for item in oracles
            if (item.get("name") or item["use"].rpartition(":")[2]) == name
        ),
        here,
    )


def _compared(name: str, label: LabelRecord, evaluation: Evaluation, tolerance: float) -> Check:
    if evaluation.failure is not None:
        return Check(name, "failed", f"{evaluation.failure.kind}: {evaluation.failure.message}")
    worst: tuple[float, str] = (0.0, "")
    for row in label.observations:
        with suppress(KeyError):
            now = evaluation.value(row.quantity)
            if not isinstance(row.value, int | float):
                continue
            allowed = tolerance * max(abs(row.value), _SMALL) + _NOISES * (row.noise or 0.0)
            share = abs(now - row.value) / allowed if np.isfinite(now) else np.inf
            worst = max(
                worst,
                (
                    share,
                    f"{row.quantity} {now:.6g} {row.unit}, was {row.value:.6g}, allowed +- "
                    f"{allowed:.2g}",
                ),
            )
    return Check(name, "failed" if worst[0] > 1 else "passed", worst[1] or "every scalar as it was")
