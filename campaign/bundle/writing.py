"""Write an evidence bundle: an RO-Crate with all that a campaign found, what it was made with, and
its history.

ledger/journal.jsonl is the history itself, with a checksum on each line; tables, structures and the
report follow from it. inputs/ and the modules beside config.yaml are what the oracles were made of.
ro-crate-metadata.json holds the SHA-256 of every file, and its own is the bundle's fingerprint, to
be quoted where the bundle is published.
"""

from __future__ import annotations

import io
import json
import mimetypes
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from campaign.bundle.inputs import Inputs, digest, files_of, portable
from campaign.code import installed
from campaign.config.loaded import LoadedConfig, Recorded
from campaign.errors import InputError, SurroundingsError
from campaign.files import write_whole
from campaign.ledger import CampaignState
from campaign.ledger.archive import Archive
from campaign.ledger.engines import JOURNAL
from campaign.report import write_report
from campaign.views import methods
from campaign.views.export import export
from campaign.views.view import OpenView

METADATA, CONFIG, ENVIRONMENT = "ro-crate-metadata.json", "config.yaml", "environment.json"
HISTORY = f"ledger/{JOURNAL}"
FORMATS = ("extxyz", "cif", "parquet")
_FORMATS_BY_ENDING = {
    ".cif": "chemical/x-cif",
    ".extxyz": "chemical/x-xyz",
    ".parquet": "application/vnd.apache.parquet",
    ".yaml": "application/yaml",
}


def write_bundle(view: OpenView, target: Path) -> str:
    """Write the bundle to a new folder, whole or not at all, and return its fingerprint.

    Raises InputError where the folder is there already or the journal is damaged, SurroundingsError
    where the disk refuses.
    """
    if target.exists():
        raise InputError(
            f"{target} is there already",
            hint="a bundle is written once: name another folder with --target",
        )
    part = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        part.mkdir(parents=True)
        _fill(part, view)
        fingerprint = digest(part / METADATA)
        part.replace(target)
    except OSError as error:
        raise SurroundingsError(
            f"cannot write {target}: {error}",
            hint="free disk space, then run the same command again",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return fingerprint


def _fill(part: Path, view: OpenView) -> None:
    loaded, state, reader = view.loaded, view.state, view.reader
    (part / HISTORY).parent.mkdir()
    shutil.copyfile(reader.folder / JOURNAL, part / HISTORY)
    known = Archive(part / HISTORY).state
    if known.sequence < state.sequence:
        raise InputError(
            f"the journal of {reader.folder} ends before its ledger",
            hint=f"rebuild it: oreloop recover {reader.folder}",
        )
    export(state, reader, part, FORMATS, view.wanted)
    write_report(view, part)
    document, inputs = portable(loaded)
    for place, source in inputs.copied.items():
        (part / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part / place)
    text = io.StringIO()
    YAML().dump(document, text)
    write_whole(part / CONFIG, text.getvalue().encode())
    found = installed()
    write_whole(part / ENVIRONMENT, _json(_environment(loaded, state, inputs, found)))
    cited = methods.citations(loaded)
    paragraph = methods.paragraph(view, found)
    lines = [
        "# Methods",
        "",
        paragraph,
        "",
        "# To be cited",
        "",
        *(f"- {name}: {text}" for name, text in cited.items()),
        "",
    ]
    write_whole(part / "methods.md", "\n".join(lines).encode())
    _write_crate(part, loaded, paragraph, found)


def _environment(
    loaded: LoadedConfig, state: CampaignState, inputs: Inputs, found: dict[str, str]
) -> dict[str, Any]:
    return {
        "exported_with": found,
        "platform": platform.platform(),
        "sessions": [dict(session.versions) for _, session in state.sessions],
        "parts": Recorded(loaded.measured, loaded.fidelity_keys).document(),
        "code": dict(state.config.code) if state.config is not None else {},
        "not_copied": {
            name: {"sha256": sha256, "reason": reason}
            for name, (sha256, reason) in inputs.named.items()
        },
    }


def _write_crate(part: Path, loaded: LoadedConfig, paragraph: str, found: dict[str, str]) -> None:
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name, crate.description = f"oreloop campaign {loaded.config.name}", paragraph
    for path in files_of(part):
        place = path.relative_to(part).as_posix()
        properties = {
            "sha256": digest(path),
            "contentSize": str(path.stat().st_size),
            "encodingFormat": _format(path),
        }
        crate.add_file(path, dest_path=place, properties=properties)
    for package, version in found.items():
        if version:
            kind = {"@type": "SoftwareApplication", "name": package, "softwareVersion": version}
            crate.add(ContextEntity(crate, f"#{package}-{version}", properties=kind))
    crate.metadata.write(part)


def _format(path: Path) -> str:
    known = {
        ".cif": "chemical/x-cif",
        ".extxyz": "chemical/x-xyz",
        ".parquet": "application/vnd.apache.parquet",
        ".yaml": "application/yaml",
    }
    return (
        known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    )


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True).encode()
