"""Structures from an OPTIMADE provider, which is a server of our own on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlparse

import pytest

from campaign.errors import InputError
from generators.optimade import labelled_of_provider
from generators.polymorphs import polymorphs_of_labelled


def entry(name: str, length: float, species: list[str], energy: float | None) -> dict[str, Any]:
    kinds = [
        {
            "name": kind,
            "chemical_symbols": kind.split("/"),
            "concentration": [1 / len(kind.split("/"))] * len(kind.split("/")),
        }
        for kind in dict.fromkeys(species)
    ]
    return {
        "id": name,
        "type": "structures",
        "attributes": {
            "lattice_vectors": [[length, 0, 0], [0, length, 0], [0, 0, length]],
            "cartesian_site_positions": [[0, 0, 0], [length / 2] * 3],
            "species_at_sites": species,
            "species": kinds,
            "_test_energy": energy,
        },
    }


ENTRIES = [
    entry("b2", 2.9, ["Al", "Ni"], -0.6),
    entry("bcc", 2.8, ["Ni", "Ni"], 0.05),
    entry("disordered", 2.8, ["Al/Ni", "Ni"], -0.1),
    entry("nameless", 2.8, ["Al", "Al"], None),
]


class _Provider(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        address = urlparse(self.path)
        asked = parse_qs(address.query)
        type(self).asked += asked.get("filter", [])
        if address.path == "/versions":
            self._send(b"version\n1\n", "text/csv")
            return
        data = ENTRIES if "Ni" in asked.get("filter", [""])[0] else []
        meta = {
            "api_version": "1.1.0",
            "more_data_available": False,
            "data_returned": len(data),
            "data_available": len(ENTRIES),
        }
        self._send(
            json.dumps({"data": data, "meta": meta, "links": {"next": None}}).encode(),
            "application/json",
        )

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_ordered_structures_with_an_energy_are_taken(provider: str) -> None:
    labelled = labelled_of_provider(provider, 'elements HAS ANY "Ni","Al"', "_test_energy")
    assert _Provider.asked
    data = polymorphs_of_labelled(labelled)
    assert sorted(
        (str(item.formula), item.cell.space_group, item.energy) for item in data.items
    ) == [
        ("Al1Ni1", 221, -0.6),
        ("Ni1", 229, 0.05),
    ]


def test_a_provider_that_gives_nothing_is_told(provider: str) -> None:
    with pytest.raises(InputError, match="gave no ordered structure"):
        labelled_of_provider(provider, 'elements HAS "Xe"', "_test_energy")
    with pytest.raises(InputError, match="gave no ordered structure"):
        labelled_of_provider("http://127.0.0.1:9", 'elements HAS "Ni"', "_test_energy")
