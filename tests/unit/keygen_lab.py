# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs cloudvpn-keygen in this process, and openssl beside it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import pytest

# In a checkout that is not installed nothing maps cloudvpn.keygen to the folder keygen/.
if importlib.util.find_spec("cloudvpn.keygen") is None:
    _folder = Path(__file__).parents[2] / "keygen"
    _spec = importlib.util.spec_from_file_location("cloudvpn.keygen", _folder / "__init__.py")
    assert _spec is not None and _spec.loader is not None
    sys.modules["cloudvpn.keygen"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["cloudvpn.keygen"])

from cryptography import x509

from cloudvpn.keygen.cli import run

NOW: Final = datetime.now(timezone.utc).replace(microsecond=0)
DAY: Final = timedelta(days=1)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


def keygen(*words: object, now: datetime = NOW) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run([str(word) for word in words], now)
        except SystemExit as ended:  # argparse, after --help
            code = int(ended.code or 0)
    assert "Traceback" not in err.getvalue()
    return Result(code, out.getvalue(), err.getvalue())


def good(*words: object, now: datetime = NOW) -> str:
    result = keygen(*words, now=now)
    assert (result.code, result.err) == (0, ""), result
    return result.out


def bad(*words: object, now: datetime = NOW) -> str:
    """The one line that says what is wrong; warnings may stand above it."""
    result = keygen(*words, now=now)
    assert result.code == 1, result
    *warnings, line = result.err.splitlines()
    assert all(one.startswith("cloudvpn-keygen: warning: ") for one in warnings)
    assert line.startswith("cloudvpn-keygen: ") and line.isprintable()
    assert "fault of cloudvpn-keygen" not in line
    return line.removeprefix("cloudvpn-keygen: ")


def make_mesh(folder: Path, *names: str, now: datetime = NOW) -> Path:
    good("ca", "--dir", folder, "--name", "my mesh", now=now)
    for name in names:
        good("node", name, "--dir", folder, now=now)
    return folder


def cert(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def crl(folder: Path) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())


def number(folder: Path) -> int:
    return crl(folder).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def openssl(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
