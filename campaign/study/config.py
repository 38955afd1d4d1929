"""The config of a study: what is measured, and the space of settings that is searched, checked
before anything runs.

Three things are measured. ``backtest``: a strategy's settings, by replays over seeds; one seed is
one step of a trial. ``training``: the params of a trainable generator, by metrics of its
checkpoint; each step trains on from the last. ``cross_validation``: the params of a surrogate, by
its predictions of labels that it was not fitted to; one fold is one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from campaign.backtest import config as backtests
from campaign.backtest.config import Backtest
from campaign.config.schema import ExecutorConfig, Frame
from campaign.errors import InputError
from campaign.protocols import PluginSpec, Trainable
from campaign.reading.arguments import laid
from campaign.reading.wording import mistakes

Settings = dict[str, Any]
Direction = Literal["minimize", "maximize"]


class _Range(Frame):
    low: float
    high: float
    log: bool = Field(False, description="Drawn evenly in the logarithm.")

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"expected low below high{', both above 0,' if self.log else ''} got "
                f"{self.low:g} and {self.high:g}"
            )
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.low, self.high


class FloatRange(_Range):
    use: Literal["float"] = "float"


class IntegerRange(_Range):
    use: Literal["integer"]
    low: int
    high: int


class Choice(Frame):
    use: Literal["choice"]
    of: tuple[str | int | float | bool, ...] = Field(
        min_length=2, description="Values that are tried."
    )

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.of


Dimension = Annotated[FloatRange | IntegerRange | Choice, Field(discriminator="use")]


class BacktestValue(Frame):
    """``regret``: how far the best so far stays below the best there is, in the mean over the
    calls, in the objective's unit; ``virtual_seconds``: end of the last call.

    The best there is: of the backtest's table; without one its ``target``, or what its baseline
    finds with the same seed.
    """

    measures: ClassVar[Mapping[str, Direction]] = {"regret": "minimize"}

    use: Literal["backtest"]
    path: str = Field(description="A backtest's YAML; relative paths start at the study's folder.")
    strategy: str = Field(
        description="The strategy that the settings are laid over; keys of the space are its keys."
    )


class _ComponentValue(Frame):
    component: str = Field(
        description="Name of a trainable generator, or of a surrogate; keys of the space are "
        "those of its params."
    )
    params: Settings = Field(
        default_factory=dict, description="The settings that are not searched."
    )
    campaign: str = Field(
        description="Folder of the campaign whose labels it learns from; relative paths start "
        "at the study's folder."
    )


class TrainingValue(_ComponentValue):
    """What the checkpoint tells of itself, such as ``validation_loss``, and ``seconds`` of all
    trainings of the trial.
    """

    group: ClassVar[str] = "generators"
    measures: ClassVar[Mapping[str, Direction]] = {"validation_loss": "minimize"}

    use: Literal["training"]
    steps: int = Field(
        4,
        ge=1,
        description="Trainings of a trial, each from where the last ended; a trial may be "
        "pruned between them.",
    )


class CrossValidationValue(_ComponentValue):
    """Means over folds of ``negative_log_likelihood``, ``rmse``, ``sharpness``, ``coverage_90`` and
    others, and of the ``seconds`` of a fit.
    """

    group: ClassVar[str] = "surrogates"
    measures: ClassVar[Mapping[str, Direction]] = {"negative_log_likelihood": "minimize"}

    use: Literal["cross_validation"]
    quantity: str | None = Field(
        None, description="What is predicted; the campaign's objective by default."
    )
    folds: int = Field(5, ge=2, description="Parts of the labels, each predicted from the others.")


class StudyConfig(Frame):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the study and of its folder."
    )
    seed: int = Field(0, ge=0)
    trials: int = Field(
        50, ge=1, description="Trials that are begun in all, the pruned and failed ones included."
    )
    value: Annotated[
        BacktestValue | TrainingValue | CrossValidationValue, Field(discriminator="use")
    ] = Field(description="What is measured, of what.")
    goals: dict[str, Direction] = Field(
        default_factory=dict,
        description="What is made small or large, of what is measured; with several the best "
        "trials are a front.",
    )
    space: dict[str, Dimension] = Field(
        min_length=1, description="Dotted keys of settings, with the range of each."
    )
    sampler: Literal["tpe", "random", "cmaes", "gp", "qmc", "nsga2"] = Field(
        "tpe", description="Who chooses settings; Optuna's names."
    )
    pruner: Literal["none", "median", "successive_halving", "hyperband"] = Field(
        "median", description="Who ends hopeless trials."
    )
    startup: int = Field(
        8, ge=0, description="Trials before the pruner and the model of the sampler begin."
    )
    at_once: int = Field(
        2,
        ge=1,
        description="Trials of a batch, side by side; the result depends on it, but on no clock.",
    )
    cpus: float = Field(1.0, ge=0, description="Cores requested by each trial.")
    gpus: float = Field(0.0, ge=0, description="GPUs requested by each trial.")
    storage: str | None = Field(
        None,
        description="URL of a database; Optuna's journal file in the study's folder where absent.",
    )
    executor: ExecutorConfig = ExecutorConfig()

    @model_validator(mode="after")
    def _of_several(self) -> StudyConfig:
        if len(self.goals) > 1 and self.pruner != "none":
            raise ValueError(
                "several goals give no order by which trials could be pruned: set pruner: none"
            )
        if len(self.goals) > 1 and self.sampler == "cmaes":
            raise ValueError("cmaes searches by one goal: set sampler: nsga2, tpe or gp")
        return self

    @property
    def directions(self) -> Mapping[str, Direction]:
        """By name of what is measured; the first is what pruning goes by."""
        return self.goals or self.value.measures


@dataclass(frozen=True)
class Study:
    """A valid study with where it came from. Picklable: it goes to the workers."""

    config: StudyConfig
    folder: Path

    @property
    def backtest(self) -> Backtest:
        """Raises InputError where the value is none, or the file or the strategy is not there."""
        value = self.config.value
        assert isinstance(value, BacktestValue)
        found = backtests.read(self.folder / value.path)
        if value.strategy not in found.config.strategies:
            raise InputError(
                f"{value.path} has no strategy {value.strategy!r}",
                hint=f"there are {', '.join(found.config.strategies)}",
            )
        return found

    @property
    def component(self) -> PluginSpec:
        """The trainable component or surrogate, without the settings that are searched."""
        value = self.config.value
        assert not isinstance(value, BacktestValue)
        return PluginSpec(
            group=value.group,
            use=value.component,
            params=value.params,
            module_folder=str(self.folder),
        )

    def with_settings(self, settings: Mapping[str, Any]) -> Backtest | PluginSpec:
        """The backtest, or the component, with values laid at their dotted keys. Raises InputError
        where they do not fit the schema.
        """
        value = self.config.value
        if not isinstance(value, BacktestValue):
            return replace(self.component, params=laid(value.params, settings))
        base = self.backtest
        document = base.config.model_dump(mode="json")
        document["strategies"][value.strategy] = laid(
            document["strategies"][value.strategy], settings
        )
        return backtests.validate(document, folder=base.folder, source=self.folder / value.path)


def read(path: Path) -> Study:
    """Read a YAML file and check every end of the space against the schema of what it sets. Raises
    InputError.
    """
    return validate(backtests.document_of(path, "study"), folder=path.resolve().parent, source=path)


def validate(document: Any, *, folder: Path, source: Path) -> Study:
    """Check a mapping. Raises InputError."""
    try:
        config = StudyConfig.model_validate(document)
    except ValidationError as error:
        lines = [f"{source}: {mistake}" for mistake in mistakes(error, StudyConfig, document)]
        raise InputError(
            "\n".join(lines), hint=f"a study has {', '.join(StudyConfig.model_fields)}"
        ) from error
    study = Study(config, folder)
    for key, dimension in config.space.items():
        for end in dimension.ends:
            _check(study, {key: end}, source, key)
    return study


def _check(study: Study, settings: Mapping[str, Any], source: Path, key: str) -> None:
    from campaign import plugins

    try:
        found = study.with_settings(settings)
        component = plugins.build(found) if isinstance(found, PluginSpec) else None
        if isinstance(study.config.value, TrainingValue) and not isinstance(component, Trainable):
            raise InputError(f"{study.config.value.component} does not learn")
    except InputError as error:
        raise InputError(
            f"{source}: space: {key} = {settings[key]}: {error.message}", hint=error.hint
        ) from error
