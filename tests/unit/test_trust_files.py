# SPDX-License-Identifier: GPL-3.0-or-later
"""`cloudvpn-keygen verify` and `openssl verify` on the table of cases: they agree, but where docs/trust.md says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudvpn.errors import ConfigError
from cloudvpn.tls import Refused
from cloudvpn.trust import load_trust
from tests.unit.keygen_lab import keygen, needs_openssl, openssl
from tests.unit.trust_cases import BAD, GOOD, Case

DOCS = Path(__file__).parents[2] / "docs" / "trust.md"
ALL = [pytest.param(case, id=case.name) for case in (*GOOD, *BAD)]


def verdict(case: Case, paths: dict[str, Path]) -> str:
    """Of the verifier itself: why not, or "" for yes."""
    try:
        trust = load_trust([paths["ca"]], [paths["crl"]] if case.crls else [], crl_required=case.crl_required)
        trust.follow(case.identity[1], case.above, case.now)
    except (ConfigError, Refused) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", ALL)
def test_the_verifier_says_yes_or_the_right_reason(case: Case, tmp_path: Path) -> None:
    said = verdict(case, case.write(tmp_path))
    assert re.search(case.reason, said) if case.reason else said == ""
    if case.reason and case.is_loadable:    # it names the node
        assert f"(serial {case.identity[1].serial_number:x}, issuer " in said


@pytest.mark.parametrize("case", [param for param in ALL if not param.values[0].crl_required])
def test_the_tool_says_the_same(case: Case, tmp_path: Path) -> None:
    paths = case.write(tmp_path)
    result = keygen("verify", paths["cert"], "--dir", tmp_path, "--ca", paths["ca"],
                    *(("--crl", paths["crl"]) if case.crls else ()), now=case.now)  # fmt: skip
    assert (result.code == 0) == (not case.reason), result
    assert re.search(case.reason, result.err)


def flags(case: Case, paths: dict[str, Path]) -> Iterator[object]:
    """Those that match the policy of nodes."""
    yield from ("-attime", int(case.now.timestamp()), "-auth_level", 2, "-CAfile", paths["ca"])
    yield from ("-untrusted", paths["cert"])
    if {cert.issuer for cert in case.cas} - {cert.subject for cert in case.cas}:  # an intermediate without its root
        yield "-partial_chain"
    if case.crls:
        yield from ("-CRLfile", paths["crl"], "-extended_crl")  # without it, a list of changes may pass for a whole one
    chain = case.identity[1], *case.above
    listed = [any(one.issuer == cert.issuer for one in case.crls) for cert in chain]
    if case.crl_required or all(listed):
        yield "-crl_check_all"
    elif case.crls and (listed[0] or not case.is_loadable):
        yield "-crl_check"


@needs_openssl
@pytest.mark.parametrize("case", ALL)
def test_openssl_agrees_but_where_a_reason_is_given(case: Case, tmp_path: Path) -> None:
    """A reason for what is no difference fails, too."""
    paths = case.write(tmp_path)
    for role in ("sslclient", "sslserver"):
        done = openssl("verify", *flags(case, paths), "-purpose", role, paths["cert"])
        if done.returncode:
            break
    assert ((done.returncode == 0) == (not case.reason)) != bool(case.openssl), done.stdout + done.stderr


@pytest.mark.skipif(not DOCS.exists(), reason="needs a checkout")
def test_each_difference_to_openssl_is_documented() -> None:
    lines = DOCS.read_text().splitlines()
    for case in (*GOOD, *BAD):
        row = f"| {case.name} | {'no' if case.reason else 'yes'} | {case.openssl} |"
        assert not case.openssl or row in lines
