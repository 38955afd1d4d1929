"""Weights of generators in MLflow's model registry: registered under a name with an alias, and
found again as ``weights: models:/NAME@ALIAS``.

An alias may move, so a config is pinned to the version that it means before anything is built; that
version's file lies beside the config from then on, and no registry is needed to go on.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from campaign.checkpoints import checkpoint_from_bytes
from campaign.config.loaded import LoadedConfig
from campaign.errors import InputError, OreloopError, SurroundingsError
from campaign.files import write_whole
from campaign.parameters import MODEL, registered_file
from campaign.tracking import border, places

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "oreloop models"
_SURROUNDINGS = ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI")
_TARGET = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<alias>[A-Za-z0-9][A-Za-z0-9._-]*)")
_VERSION = re.compile(r"v?\d+|latest", re.IGNORECASE)


class Target(NamedTuple):
    name: str
    alias: str


def target_of(text: str) -> Target:
    """``NAME@ALIAS``. Raises InputError for anything else."""
    found = _TARGET.fullmatch(text)
    if found is None or _VERSION.fullmatch(found["alias"]):
        raise InputError(
            f"expected NAME@ALIAS to register under, got {text!r}",
            hint="as in pcdvae-nifecr@production; letters, digits, dots and dashes, and no alias "
            "such as v2 or latest",
        )
    return Target(found["name"], found["alias"])


def registry_of(named: str | None, folder: Path) -> str:
    """The URI of the registry: as named (a folder is one too), or of MLflow's surroundings. Raises
    InputError where there is neither.
    """
    uri = named or next((os.environ[key] for key in _SURROUNDINGS if os.environ.get(key)), None)
    if uri is None:
        raise InputError(
            "no model registry is named",
            hint="name MLflow's URI or a folder: tracking.uri in the config, --registry at the "
            f"command, or {_SURROUNDINGS[-1]}",
        )
    return places.tracking_uri(uri, folder)


def register(uri: str, target: Target, data: bytes, folder: Path) -> int:
    """Register weights, move the alias to them, and return the new version. ``folder``: for the
    files of a store that has no place of its own. Raises InputError where they are no checkpoint,
    SurroundingsError where the registry does not answer.
    """
    kind = _kind(data)
    with _reached(uri) as client:
        experiment = places.experiment(client, uri, EXPERIMENT, folder)
        run = border.begin(client, experiment, target.name, {"kind": kind})
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / f"{target.name}.safetensors"
            file.write_bytes(data)
            client.log_artifact(run, str(file), "weights")
        client.set_terminated(run)
        if not any(
            model.name == target.name
            for model in client.search_registered_models(f"name = '{target.name}'")
        ):
            client.create_registered_model(target.name)
        source = f"{client.get_run(run).info.artifact_uri}/weights"
        made = client.create_model_version(target.name, source, run_id=run)
        client.set_registered_model_alias(target.name, target.alias, made.version)
    return int(made.version)


def _kind(data: bytes) -> str:
    try:
        return str(checkpoint_from_bytes(data).facts.get("kind", "none"))
    except Exception as error:
        raise InputError(
            f"expected weights as `oreloop train` writes them, found something else: {error}"
        ) from error


def pinned(loaded: LoadedConfig, folder: Path | None = None) -> LoadedConfig:
    """The config with versions in place of aliases, their files beside it.

    ``folder``: of its campaign, whose recorded config keeps the version of a name that it was begun
    with. Raises InputError where a name, an alias or a version is not there, SurroundingsError
    where the registry does not answer.
    """
    config = loaded.config
    kept = _versions_in(folder) if folder is not None else {}

    def pin(text: str) -> str:
        found = MODEL.fullmatch(text)
        assert found is not None
        name = found["name"]
        version = found["version"] or kept.get(name)
        if version is None or not registered_file(loaded.folder, name, version).is_file():
            uri = registry_of(config.tracking.uri, loaded.folder)
            version = _fetch(uri, name, version, found["alias"], loaded.folder)
        return f"models:/{name}/{version}"

    generators = tuple(
        item.model_copy(update={"params": _with(item.params, pin)}) for item in config.generators
    )
    surrogate = config.surrogate
    if surrogate is not None:
        surrogate = surrogate.model_copy(update={"params": _with(surrogate.params, pin)})
    if generators == config.generators and surrogate == config.surrogate:
        return loaded
    changes = {"generators": generators, "surrogate": surrogate}
    return replace(loaded, config=config.model_copy(update=changes))


def _with(value: Any, pin: Callable[[str], str]) -> Any:
    """A copy of settings, with what names a registered model pinned."""
    if isinstance(value, Mapping):
        return {key: _with(inner, pin) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with(inner, pin) for inner in value]
    return pin(value) if isinstance(value, str) and MODEL.fullmatch(value) else value


def _versions_in(folder: Path) -> dict[str, str]:
    """Versions by name of the config that a campaign has recorded."""
    from campaign.ledger.engines import CONFIG_COPY

    found: dict[str, str] = {}

    def keep(text: str) -> str:
        named = MODEL.fullmatch(text)
        if named is not None and named["version"]:
            found[named["name"]] = named["version"]
        return text

    try:
        _with(json.loads((folder / CONFIG_COPY).read_bytes()), keep)
    except (OSError, ValueError):
        return {}
    return found


def _fetch(uri: str, name: str, version: str | None, alias: str | None, folder: Path) -> str:
    """Copy a version's file to beside the config; the version that it is."""
    import mlflow

    with _reached(uri) as client:
        if version is None:
            version = str(_known(client, name, alias or "").version)
        else:
            _known(client, name, version)
        target = registered_file(folder, name, version)
        if not target.is_file():
            source = client.get_model_version_download_uri(name, version)
            with tempfile.TemporaryDirectory() as temporary:
                place = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=temporary, tracking_uri=uri
                )
                files = sorted(Path(place).rglob("*.safetensors"))
                if len(files) != 1:
                    raise InputError(
                        f"version {version} of {name} in {uri} holds {len(files)} files of weights,"
                        " expected one .safetensors file",
                        hint="register weights by `oreloop register`",
                    )
                write_whole(target, files[0].read_bytes())
    return version


def _known(client: MlflowClient, name: str, which: str) -> Any:
    """A version by number or alias. Raises InputError where there is none, with those there are."""
    from mlflow.exceptions import MlflowException

    missing = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code not in missing:
            raise
        models = {model.name: model for model in client.search_registered_models()}
        if name not in models:
            there = ", ".join(sorted(models)) or "none"
            raise InputError(
                f"no model {name!r} is registered; there are: {there}",
                hint="register weights by `oreloop register`",
            ) from error
        there = ", ".join(sorted(models[name].aliases)) or "none"
        what = "version" if which.isdigit() else "alias"
        raise InputError(
            f"the registered model {name!r} has no {what} {which!r}; its aliases are: {there}"
        ) from error


@contextmanager
def _reached(uri: str) -> Iterator[MlflowClient]:
    """MLflow's client; what keeps it from answering as an error of the surroundings."""
    try:
        yield places.client_of(uri)
    except OreloopError:
        raise
    except Exception as error:
        raise SurroundingsError(
            f"the model registry {uri} does not answer: {str(error).splitlines()[0]}",
            hint="start it, or name another; a version that was used before needs none",
        ) from error
