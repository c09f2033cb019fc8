# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of certificate that is good or bad: a real node dials the good one, and is dialled; and what both log."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import Encoding

from cloudvpn.errors import ConfigError
from cloudvpn.keygen.dhparams import make_prime, to_pem
from cloudvpn.mesh import UNPROVEN
from cloudvpn.tls import CLOSED_EARLY, Credentials, Trust, load
from tests.unit.node_lab import Log, load_case, log, make_folder, node
from tests.unit.trust_cases import BAD, CA, GOOD, Case, craft, make_key

__all__ = ["log"]

# What the refused side can know: an alert, or that it was closed.
KNOWN = rf"{UNPROVEN}|{CLOSED_EARLY}|the peer refused (our certificate|the handshake) \(alert .*\)"
PLAYABLE = [case for case in BAD if case.is_loadable and case.is_playable]


def load_bad(case: Case, folder: Path) -> Credentials:
    """A node that shows what it should not, and trusts the CA."""
    paths = case.write(make_folder(folder / "bad"))
    contexts = [ssl.SSLContext(protocol) for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_verify_locations(cadata=CA.cert.public_bytes(Encoding.DER))
        context.load_cert_chain(paths["cert"], paths["key"])
    return Credentials(contexts[0], contexts[1], (case.identity[1],), (), Trust((CA.cert,), ()))


@pytest.mark.parametrize("bad_dials", [True, False], ids=["dials", "is dialled"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in PLAYABLE])
def test_a_bad_node_is_refused_and_both_logs_say_why(case: Case, bad_dials: bool, tmp_path: Path, log: Log) -> None:
    good, bad = load_case(case, tmp_path), load_bad(case, tmp_path)

    async def meet() -> tuple[list[str], list[str]]:
        async with (
            node(good if bad_dials else bad) as (server, port),
            node(bad if bad_dials else good, dials=port) as (client, _),
        ):
            await log.heard_from_both(port)
            assert not server.counters["links_up"] and not client.counters["links_up"]
            assert not server.links and not client.links
        return log.of(port, dials=not bad_dials), log.of(port, dials=bad_dials)

    said, known = uvloop.run(meet())
    assert len(said) == len(known) == 1 and "link up" not in said[0] + known[0]
    assert re.search(case.early or case.reason, said[0])
    if not case.early:
        assert f"(serial {case.identity[1].serial_number:x}, issuer " in said[0]
    assert re.search(rf"^(no link to|refused) .*({KNOWN})$", known[0])


def load_all(case: Case, folder: Path, dh: Path | None = None) -> tuple[Credentials, Credentials]:
    """Of two good nodes: ours, and the one with the certificate of the case."""
    paths = case.write(make_folder(folder / "peer"))
    crl = [paths["crl"]] if case.crls else []
    return load_case(case, folder), load(paths["key"], paths["cert"], [paths["ca"]], crl, None, dh=dh)


async def join(server_side: Credentials, client_side: Credentials, log: Log) -> str:
    """The TLS version of the link that comes up, on both sides."""
    async with node(server_side) as (server, port), node(client_side, dials=port) as (client, _):
        await log.heard_from_both(port)
        lines = log.of(port, dials=True) + log.of(port, dials=False)
        assert len(lines) == 2 and all(line.startswith("link up") for line in lines), log.lines
        assert server.counters["links_up"] == client.counters["links_up"] == 1
        # What stays of a peer is enough to judge it again.
        for mesh in (server, client):
            (link,) = mesh.links
            mesh.credentials.judge_again(link.info.peer)
    return lines[0].rsplit(", ", 2)[1]


@pytest.mark.parametrize("peer_dials", [True, False], ids=["dials", "is dialled"])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in GOOD if case.is_playable])
def test_a_good_node_joins(case: Case, peer_dials: bool, tmp_path: Path, log: Log) -> None:
    ours, peer = load_all(case, tmp_path)
    assert uvloop.run(join(*((ours, peer) if peer_dials else (peer, ours)), log)) == "TLSv1.3"


@pytest.mark.parametrize("peer_dials", [True, False], ids=["dials", "is dialled"])
def test_a_tls_1_2_node_joins(peer_dials: bool, tmp_path: Path, log: Log) -> None:
    ours, peer = load_all(GOOD[0], tmp_path)
    for context in (peer.server_context, peer.client_context):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert uvloop.run(join(*((ours, peer) if peer_dials else (peer, ours)), log)) == "TLSv1.2"


# DSA


@pytest.fixture(scope="module")
def dsa_case() -> Case:
    return Case("dsa", craft(CA, "old", key=make_key("dsa")))


@pytest.fixture
def dh(tmp_path: Path) -> Path:
    path = tmp_path / "dh.pem"
    path.write_bytes(to_pem(make_prime(2048)))
    return path


@pytest.mark.parametrize("peer_dials", [True, False], ids=["dials", "is dialled"])
def test_a_dsa_node_joins_one_without(peer_dials: bool, tmp_path: Path, log: Log, dsa_case: Case, dh: Path) -> None:
    ours, peer = load_all(dsa_case, tmp_path, needs_dsa(dh))
    assert uvloop.run(join(*((ours, peer) if peer_dials else (peer, ours)), log)) == "TLSv1.2"


def test_two_dsa_nodes_join(tmp_path: Path, log: Log, dsa_case: Case, dh: Path) -> None:
    peer = load_all(dsa_case, tmp_path, needs_dsa(dh))[1]
    assert uvloop.run(join(peer, peer, log)) == "TLSv1.2"


def needs_dsa(dh: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers("aDSS")
    except ssl.SSLError:
        pytest.skip("the OpenSSL here has no DSA")
    return dh


def test_where_dsa_does_not_work_it_is_told(
    tmp_path: Path, dsa_case: Case, dh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"a DSA key needs Diffie-Hellman parameters.* set dh$"):
        load_all(dsa_case, make_folder(tmp_path / "1"))
    monkeypatch.setattr("cloudvpn.tls.DSS_SUITES", ())
    with pytest.raises(ConfigError, match=r"takes no DSA keys any more, make another: .*ecdsa"):
        load_all(dsa_case, make_folder(tmp_path / "2"), dh)
    dh.write_text("nothing")
    with pytest.raises(ConfigError, match=r"^dh: cannot use .*; write new ones with `cloudvpn-keygen dh`$"):
        load_all(dsa_case, make_folder(tmp_path / "3"), dh)


def test_dh_without_a_dsa_key_is_not_used_and_told(tmp_path: Path, dh: Path) -> None:
    assert "dh: not used, only a DSA key needs it" in load_all(GOOD[0], tmp_path, dh)[1].warnings
