# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets: each takes any bytes, and whatever it raises is a fault of ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).with_name("corpus")
# Where they are; imported one by one, for without the extensions Python alone is fuzzed faster.
COMPILED: Final = {
    "stream": "streams.parse",
    "link": "streams.link",
    "routes": "tables.routes",
    "nodes": "tables.nodes",
    "hosts": "tables.hosts",
    "switch": "steps.steps",
    "segment": "frames.segment",
    "coalesce": "frames.join",
    "tap": "frames.tap",
}
PYTHON: Final = {
    "config": "words.config",
    "command": "words.command",
    "addresses": "words.addresses",
    "certificates": "certificates.certificates",
}
NAMES: Final = (*COMPILED, *PYTHON)


def target(name: str) -> Callable[[bytes], None]:
    module, function = (COMPILED | PYTHON)[name].split(".")
    found: Callable[[bytes], None] = getattr(importlib.import_module(f"tests.fuzz.{module}"), function)
    return found


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
