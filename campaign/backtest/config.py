"""The config of a backtest: one campaign, and the strategies that are laid over it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from campaign.config import loaded as configs
from campaign.config.loaded import LoadedConfig
from campaign.config.schema import Frame, VirtualConfig
from campaign.errors import InputError
from campaign.ledger.engines import JOURNAL
from campaign.reading.settings import text_of, yaml_of
from campaign.reading.wording import mistakes


class BacktestConfig(Frame):
    """Strategies replayed on one problem."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the backtest and of its folder.",
    )
    campaign: dict[str, Any] = Field(
        description="What all strategies share: space, objective, oracles, pools, generators."
    )
    strategies: dict[str, dict[str, Any]] = Field(
        min_length=1, description="Name: settings laid over the campaign's."
    )
    baseline: str = Field("random", description="Strategy that the others are compared with.")
    labels: int = Field(100, ge=1, description="Oracle calls of each run, failures included.")
    seeds: int = Field(5, ge=1, description="Runs of each strategy.")
    first_seed: int = Field(0, ge=0)
    top: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share (1) of a table's rows that count as the best, for targets and curves.",
    )
    target: float | None = Field(
        None,
        description="Value to reach, in the objective's unit; the worst of a table's top where "
        "absent.",
    )
    virtual: VirtualConfig = Field(
        VirtualConfig(), description="Durations and failure rates by oracle."
    )
    workers: int = Field(2, ge=1, description="Runs at once.")


@dataclass(frozen=True)
class Backtest:
    """A valid backtest, with a campaign's document for each run."""

    config: BacktestConfig
    folder: Path

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Strategy and seed of every run, seeds first, so that early ends still compare."""
        seeds = range(self.config.first_seed, self.config.first_seed + self.config.seeds)
        return [(name, seed) for seed in seeds for name in self.config.strategies]

    def campaign(self, strategy: str, seed: int) -> LoadedConfig:
        """The campaign of one run. Raises InputError."""
        config = self.config
        document = merged(
            {
                "generators": [],
                "acquisition": {"pool_size": 1_000_000},
                "mode": "rounds",
                **config.campaign,
            },
            config.strategies[strategy],
        )
        document |= {
            "name": f"{config.name}-{seed}",
            "seed": seed,
            "budget": {"labels": config.labels},
            "executor": {"use": "virtual", "virtual": config.virtual.model_dump()},
            "tracking": {"use": "none"},
        }
        document.setdefault(
            "failure_policy",
            {"crash": {"retries": 0}, "not_converged": {"retries": 0}, "pause_above": 1.0},
        )
        return configs.validate(
            document, folder=self.folder, source=self.folder / f"{config.name}, strategy {strategy}"
        )

    @staticmethod
    def meaning(loaded: LoadedConfig) -> list[Any]:
        """What a run's config names but does not hold: levels of theory, and where there are any,
        contents of files and own modules.
        """
        fidelities = {name: fidelity.key for name, fidelity in loaded.parts.fidelities.items()}
        sources = (*loaded.config.initial_data, *loaded.config.candidate_pools)
        named = {
            source.path: _contents((loaded.folder / source.path).resolve()) for source in sources
        }
        return [fidelities, *([named] if named else []), *([loaded.code] if loaded.code else [])]

    def problem(self, strategy: str) -> list[Any]:
        """All that a strategy is measured on: two backtests of the same problem give values that
        can be compared.
        """
        document = self.config.model_dump(
            mode="json", exclude={"name", "strategies", "baseline", "workers"}
        )
        return [
            document,
            self.config.strategies[strategy],
            *self.meaning(self.campaign(strategy, self.config.first_seed)),
        ]


def _contents(path: Path) -> str:
    """A hash of a file, or of all files of a folder; of a campaign its ledger counts."""
    files = (
        sorted(item for item in path.rglob("*") if item.is_file())
        if path.is_dir()
        else [path]
        if path.exists()
        else []
    )
    if (journal := path / JOURNAL).exists():
        files = [journal]
    digest = hashlib.sha256()
    for file in files:
        digest.update(
            file.relative_to(path).as_posix().encode()
            + b"\0"
            + hashlib.sha256(file.read_bytes()).digest()
        )
    return digest.hexdigest()


def merged(base: Any, over: Any) -> Any:
    """A mapping with another's keys laid over it, level by level; lists are replaced whole."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys()}
    return {**base, **over, **both}


def document_of(path: Path, what: str) -> Any:
    """The content of a YAML file. Raises InputError, which calls the file ``what`` it should be."""
    return yaml_of(text_of(path, what), path, typ="safe")


def read(path: Path) -> Backtest:
    """Read and check a YAML file, every strategy's campaign included. Raises InputError."""
    return validate(document_of(path, "backtest"), folder=path.resolve().parent, source=path)


def validate(document: Any, *, folder: Path, source: Path) -> Backtest:
    """Check a mapping and the campaign of every strategy. Raises InputError."""
    try:
        config = BacktestConfig.model_validate(document)
    except ValidationError as error:
        lines = [f"{source}: {mistake}" for mistake in mistakes(error, BacktestConfig, document)]
        raise InputError(
            "\n".join(lines), hint=f"a backtest has {', '.join(BacktestConfig.model_fields)}"
        ) from error
    if config.baseline not in config.strategies:
        raise InputError(
            f"{source}: baseline {config.baseline!r} is no strategy",
            hint=f"there are {', '.join(config.strategies)}",
        )
    backtest = Backtest(config, folder)
    for strategy in config.strategies:
        _ = backtest.campaign(strategy, config.first_seed).parts
    return backtest
