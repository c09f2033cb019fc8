# SPDX-License-Identifier: GPL-3.0-or-later
"""Options whose effect is tested elsewhere with a value of its own: here, that this value is the one of the option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cloudvpn import pki
from cloudvpn.config import load_words
from cloudvpn.daemon import build_switch
from cloudvpn.errors import ConfigError
from cloudvpn.options import Config
from cloudvpn.reload import TrustFiles

PASSWORD = "geheim"


def test_the_limits_of_the_tables_are_those_of_the_configuration() -> None:
    switch = build_switch(Config(
        max_connections=11, max_remote_routes=12, route_max_dist=13, report_ping_changes_above=14, br_id_cache_size=15,
        conn_mtu=1600,
    ))  # fmt: skip
    routes = switch.routes
    assert (routes.max_ports, routes.max_port_routes, routes.max_dist, routes.report_above) == (11, 12, 13, 14)
    assert (switch.ids.capacity, switch.max_frame) == (15, 1600)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a node with an encrypted key and a CA without revocation list."""
    ca = pki.make_ca("CA")
    key, cert = pki.issue(ca, "node")
    pki.write_key(tmp_path / "key", key, PASSWORD)
    pki.write_cert(tmp_path / "cert", cert)
    pki.write_cert(tmp_path / "ca", ca.cert)
    (tmp_path / "conf").write_text(f"key key\ncert cert\nca ca\nkey_pass {PASSWORD}\nlisten ::1 0\n")
    (tmp_path / "conf").chmod(0o600)
    return load_words([str(tmp_path / "conf")]).config


def test_the_password_in_the_configuration_opens_the_key(config: Config) -> None:
    assert TrustFiles().load(config).chain
    with pytest.raises(ConfigError, match="the password is wrong"):
        TrustFiles().load(replace(config, key_pass="falsch"))


def test_a_ca_without_revocation_list_is_a_warning_or_an_error_as_crl_required_says(config: Config) -> None:
    [warning] = TrustFiles().load(config).warnings
    assert "has no CRL" in warning
    with pytest.raises(ConfigError, match="has no CRL"):
        TrustFiles().load(replace(config, crl_required=True))
