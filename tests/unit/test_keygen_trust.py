# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudvpn-keygen and who gets in: revocation, intermediates, and the verdicts of OpenSSL and of the daemon."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudvpn import pki
from cloudvpn.tls import Credentials, Refused, load
from tests.unit.keygen_lab import (
    DAY,
    NOW,
    bad,
    cert,
    contents,
    crl,
    good,
    keygen,
    make_mesh,
    needs_openssl,
    number,
    openssl,
)

# OpenSSL and the daemon look at the clock themselves.
VERIFY = ("verify", "-crl_check", "-attime", int(NOW.timestamp()))


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    return make_mesh(tmp_path / "mesh", "alpha", "beta")


def serials(folder: Path) -> set[int]:
    return {one.serial_number for one in crl(folder)}


# revoke, crl


def test_a_name_a_serial_and_a_file_can_be_revoked(mesh: Path, tmp_path: Path) -> None:
    good("node", "gamma", "--dir", mesh)
    good("node", "delta", "--dir", mesh)
    good("revoke", "alpha", "--dir", mesh)
    good("revoke", f"0X{cert(mesh / 'beta.crt').serial_number:X}", "--dir", mesh)
    good("revoke", mesh / "gamma.crt", "--dir", mesh)
    good("revoke", "delta.crt", "--dir", mesh)
    assert serials(mesh) == {cert(mesh / f"{name}.crt").serial_number for name in ("alpha", "beta", "gamma", "delta")}


def test_a_name_means_all_its_certificates(mesh: Path) -> None:
    old = cert(mesh / "alpha.crt").serial_number
    good("renew", "alpha", "--dir", mesh)
    good("revoke", "alpha", "--dir", mesh)
    assert serials(mesh) == {old, cert(mesh / "alpha.crt").serial_number}


@pytest.mark.parametrize("reason", ["unspecified", "keyCompromise", "cessationOfOperation"])
def test_reasons_stand_in_the_list(mesh: Path, reason: str) -> None:
    good("revoke", "alpha", "--dir", mesh, "--reason", reason)
    good("crl", "--dir", mesh)
    entry = next(iter(crl(mesh)))
    assert entry.revocation_date_utc == NOW
    found = [one.value.reason.value for one in entry.extensions if isinstance(one.value, x509.CRLReason)]
    assert found == ([] if reason == "unspecified" else [reason])


def test_what_cannot_be_revoked_is_told(mesh: Path, tmp_path: Path) -> None:
    before, other = contents(mesh), make_mesh(tmp_path / "other", "x")
    assert "issued nothing" in bad("revoke", "nobody", "--dir", mesh)
    assert "issued nothing" in bad("revoke", "abcdef", "--dir", mesh)
    assert "not issued by this CA" in bad("revoke", other / "x.crt", "--dir", mesh)
    assert "not issued by this CA" in bad("revoke", mesh / "ca.crt", "--dir", mesh)
    assert contents(mesh) == before
    good("revoke", "alpha", "--dir", mesh)
    assert "revoked already" in bad("revoke", "alpha", "--dir", mesh)
    assert "revoked already" in bad("revoke", mesh / "alpha.crt", "--dir", mesh)


def test_what_was_revoked_stays_so_without_the_index(mesh: Path) -> None:
    good("revoke", "alpha", "--dir", mesh, "--reason", "superseded")
    (mesh / "index.jsonl").unlink()
    good("revoke", mesh / "beta.crt", "--dir", mesh)
    assert serials(mesh) == {cert(mesh / f"{name}.crt").serial_number for name in ("alpha", "beta")}
    assert "superseded" in good("show", mesh / "crl.pem")


def test_a_list_lives_as_long_as_the_one_before_or_as_asked(mesh: Path) -> None:
    def length() -> int:
        end = crl(mesh).next_update_utc
        assert end is not None
        return (end - NOW).days

    assert length() == 365
    good("crl", "--dir", mesh, "--days", 7)
    assert length() == 7
    good("revoke", "alpha", "--dir", mesh)
    assert length() == 7


@pytest.mark.parametrize("step", [timedelta(0), timedelta(seconds=1), -timedelta(hours=1), -1000 * DAY])
def test_number_and_date_of_the_list_grow_whatever_the_clock_does(mesh: Path, step: timedelta) -> None:
    now = NOW
    for _ in range(5):
        before, now = (number(mesh), crl(mesh).last_update_utc), now + step
        assert keygen("crl", "--dir", mesh, now=now).code == 0
        after = number(mesh), crl(mesh).last_update_utc
        assert after[0] > before[0] and after[1] > before[1]
        end = crl(mesh).next_update_utc
        assert end is not None and end > after[1] and end > now


def test_a_clock_that_went_back_is_told(mesh: Path) -> None:
    assert "clock" in keygen("crl", "--dir", mesh, now=NOW - DAY).err


# The verdict, and OpenSSL's


def verdicts(folder: Path, name: str, *more: object) -> tuple[bool, bool]:
    ours = keygen("verify", folder / name, "--dir", folder)
    theirs = openssl(*VERIFY, "-CAfile", folder / "ca.crt", "-CRLfile", folder / "crl.pem", *more, folder / name)
    return ours.code == 0, theirs.returncode == 0


@needs_openssl
@pytest.mark.parametrize("key_type", ["ecdsa", "ed25519", "rsa"])
def test_openssl_agrees_on_good_expired_revoked_and_foreign(tmp_path: Path, key_type: str) -> None:
    mesh = tmp_path / "mesh"
    good("ca", "--dir", mesh, "--type", key_type, now=NOW - 9 * DAY)
    for name, days in (("good", 99), ("expired", 3), ("revoked", 99)):
        good("node", name, "--dir", mesh, "--days", days, "--type", key_type, now=NOW - 9 * DAY)
    good("revoke", "revoked", "--dir", mesh)
    other = make_mesh(tmp_path / "other", "foreign")
    (mesh / "foreign.crt").write_bytes((other / "foreign.crt").read_bytes())
    assert verdicts(mesh, "good.crt") == (True, True)
    for name, why in (("expired", "expired on"), ("revoked", "was revoked"), ("foreign", "not signed by a CA")):
        assert verdicts(mesh, f"{name}.crt") == (False, False)
        assert why in bad("verify", f"{name}.crt", "--dir", mesh)
    assert "not valid before" in bad("verify", "good.crt", "--dir", mesh, now=NOW - 10 * DAY)
    good("crl", "--dir", mesh, "--days", 1)
    assert "may be revoked" in bad("verify", "good.crt", "--dir", mesh, now=NOW + 2 * DAY)


@needs_openssl
def test_openssl_reads_all_that_is_made(mesh: Path) -> None:
    good("request", "gamma", "--dir", mesh, "--type", "rsa")
    good("sign", "gamma.csr", "--dir", mesh, "--yes")
    good("revoke", "beta", "--dir", mesh, "--reason", "keyCompromise")
    for command, name in (
        *(("x509", name) for name in ("ca.crt", "alpha.crt", "beta.crt", "gamma.crt")),
        *(("pkey", name) for name in ("ca.key", "alpha.key", "gamma.key")), ("crl", "crl.pem"), ("req", "gamma.csr"),
    ):  # fmt: skip
        done = openssl(command, "-in", mesh / name, "-text", "-noout")
        assert done.returncode == 0, (name, done.stderr)
    assert "Key Compromise" in openssl("crl", "-in", mesh / "crl.pem", "-text", "-noout").stdout
    assert "verify OK" in openssl("req", "-in", mesh / "gamma.csr", "-verify", "-noout").stderr


def test_other_cas_and_lists_can_be_given(mesh: Path, tmp_path: Path) -> None:
    other = make_mesh(tmp_path / "other", "x")
    good("revoke", "alpha", "--dir", mesh)
    here = "--dir", tmp_path
    both = "--ca", mesh / "ca.crt", "--ca", other / "ca.crt"
    assert "was revoked" in bad("verify", mesh / "alpha.crt", *here, *both, "--crl", mesh / "crl.pem")
    result = keygen("verify", other / "x.crt", *here, *both)
    assert result.code == 0 and "no revocation list" in result.err
    beta = "verify", mesh / "beta.crt", "--ca", mesh / "ca.crt", "--crl"
    assert "no CA of the ca files signed" in bad(*beta, other / "crl.pem")
    assert "does not exist" in bad(*beta, tmp_path / "none")


def test_the_newest_list_counts(mesh: Path, tmp_path: Path) -> None:
    (tmp_path / "old.pem").write_bytes((mesh / "crl.pem").read_bytes())
    good("revoke", "alpha", "--dir", mesh)
    lists = "--crl", mesh / "crl.pem", "--crl", tmp_path / "old.pem"
    assert "was revoked" in bad("verify", "alpha.crt", "--dir", mesh, *lists)


def test_what_the_handshake_would_refuse_is_refused(mesh: Path) -> None:
    key = load_pem_private_key((mesh / "ca.key").read_bytes(), None)
    issuer = pki.Issuer(key, cert(mesh / "ca.crt"))  # type: ignore[arg-type]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    pki.write_cert(mesh / "x.crt", pki.issue(issuer, "x", extended_usages=usages, not_before=NOW)[1])
    assert "does not let a node dial" in bad("verify", "x.crt", "--dir", mesh)
    assert "certificate of a CA" in bad("verify", "ca.crt", "--dir", mesh)


# Intermediate CAs


@needs_openssl
def test_an_intermediate_ca_signs_nodes_that_openssl_and_nodes_let_in(mesh: Path, tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    good("ca", "--intermediate-of", mesh, "--dir", sub, "--name", "branch", "--days", 99)
    good("node", "leaf", "--dir", sub, "--days", 9)
    assert len(x509.load_pem_x509_certificates((sub / "leaf.crt").read_bytes())) == 2
    assert verdicts(mesh, "alpha.crt") == (True, True)
    check = *VERIFY, "-CAfile", mesh / "ca.crt", "-CRLfile", sub / "crl.pem", "-untrusted", sub / "leaf.crt"
    assert openssl(*check, sub / "leaf.crt").returncode == 0
    assert openssl(*check, "-CRLfile", mesh / "crl.pem", "-crl_check_all", sub / "leaf.crt").returncode == 0
    assert keygen("verify", sub / "leaf.crt", "--dir", mesh).code == 0
    good("revoke", "branch", "--dir", mesh, "--reason", "cACompromise")
    assert 'its CA "branch"' in bad("verify", sub / "leaf.crt", "--dir", mesh)
    done = openssl(*check, "-CRLfile", mesh / "crl.pem", "-crl_check_all", sub / "leaf.crt")
    assert done.returncode != 0 and "revoked" in done.stderr


def test_the_folder_of_an_intermediate_knows_what_is_above(mesh: Path, tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    good("ca", "--intermediate-of", mesh, "--dir", sub, "--days", 99)
    good("node", "leaf", "--dir", sub, "--days", 9)
    result = keygen("verify", "leaf.crt", "--dir", sub)
    assert result.code == 0 and 'no revocation list of "my mesh"' in result.err
    with (sub / "crl.pem").open("ab") as file:
        file.write((mesh / "crl.pem").read_bytes())
    good("revoke", "leaf", "--dir", sub)
    assert len(x509.load_pem_x509_crl((sub / "crl.pem").read_bytes())) == 1
    assert (sub / "crl.pem").read_bytes().endswith((mesh / "crl.pem").read_bytes())
    assert "was revoked" in bad("verify", "leaf.crt", "--dir", sub)


def test_an_intermediate_signs_nodes_only_and_has_a_name_of_its_own(mesh: Path, tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    good("ca", "--intermediate-of", mesh, "--dir", sub, "--days", 99)
    deep = "--dir", tmp_path / "deep", "--name", "deep", "--days", 9
    assert "nodes only" in bad("ca", "--intermediate-of", sub, *deep)
    assert "already" in bad("ca", "--intermediate-of", mesh, "--dir", tmp_path / "twin", "--days", 9)
    assert "folder of its own" in bad("ca", "--intermediate-of", mesh, "--dir", mesh, "--name", "x")
    assert "renews" in bad("renew", "ca", "--dir", sub)


def test_an_intermediate_on_another_machine(mesh: Path, tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    good("request", "branch", "--dir", sub, "--intermediate")
    good("sign", sub / "branch.csr", "--dir", mesh, "--yes", "--intermediate")
    (sub / "branch.key").rename(sub / "ca.key")
    (sub / "ca.crt").write_bytes((mesh / "branch.crt").read_bytes())
    good("crl", "--dir", sub)
    good("node", "leaf", "--dir", sub, "--days", 9)
    assert keygen("verify", sub / "leaf.crt", "--dir", mesh).code == 0


def test_a_wish_to_be_a_ca_is_granted_only_when_asked(mesh: Path) -> None:
    good("request", "branch", "--dir", mesh, "--intermediate")
    good("sign", "branch.csr", "--dir", mesh, "--yes")
    assert not pki.is_ca(cert(mesh / "branch.crt"))


# The whole way


def join(ours: Credentials, peer: Credentials, now: datetime) -> str:
    """Both sides of a handshake in memory; who the peer is."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = ours.server_context.wrap_bio(up, down, server_side=True), peer.client_context.wrap_bio(down, up)
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours.judge(sides[0], now).identity.name


@pytest.mark.parametrize("key_type", ["ecdsa", "ed25519", "rsa"])
def test_from_a_new_ca_to_a_handshake_and_out_again(tmp_path: Path, key_type: str) -> None:
    mesh = tmp_path / "mesh"
    good("ca", "--dir", mesh, "--type", key_type)
    for name in ("alpha", "beta"):
        good("node", name, "--dir", mesh, "--type", key_type)

    def credentials(name: str) -> Credentials:
        return load(mesh / f"{name}.key", mesh / f"{name}.crt", [mesh / "ca.crt"], [mesh / "crl.pem"], None)

    beta = credentials("beta")
    assert credentials("alpha").warnings == ()
    assert join(credentials("alpha"), beta, NOW) == "beta"
    good("revoke", "beta", "--dir", mesh)
    with pytest.raises(Refused, match="was revoked"):
        join(credentials("alpha"), beta, NOW)
    assert "was revoked" in bad("verify", "beta.crt", "--dir", mesh)
