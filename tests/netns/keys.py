# SPDX-License-Identifier: GPL-3.0-or-later
"""Throw-away authorities and node certificates, made once in a test run."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from cloudvpn.pki import Issuer, KeyType, issue, make_ca, write_cert, write_key


class Identity(NamedTuple):
    """PEM files of one node."""

    cert: Path
    key: Path
    ca: Path


@functools.cache
def key_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="cloudvpn-keys-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def write_private(path: Path, data: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(data)
    return path


@functools.cache
def authority(name: str) -> tuple[Path, Issuer]:
    """A certificate authority: its PEM file, and what signs with it."""
    path, issuer = key_directory() / f"ca-{name}.pem", make_ca(name)
    write_cert(path, issuer.cert)
    return path, issuer


def identity(name: str, kind: KeyType = "ecdsa", ca: str = "lab") -> Identity:
    """A node's certificate and key, signed by the authority named `ca`."""
    return _make(name, kind, ca)


@functools.cache
def _make(name: str, kind: KeyType, ca: str) -> Identity:
    ca_file, issuer = authority(ca)
    stem = f"{key_directory()}/{name}-{kind}-{ca}"
    files = Identity(Path(f"{stem}.crt"), Path(f"{stem}.key"), ca_file)
    key, cert = issue(issuer, name, key_type=kind)
    write_key(files.key, key)
    write_cert(files.cert, cert)
    return files
