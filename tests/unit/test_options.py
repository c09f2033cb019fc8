# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of options: complete, and each option takes what it should and nothing else."""

from __future__ import annotations

import grp
import os
import pwd
from ipaddress import ip_interface
from pathlib import Path

import pytest

from cloudvpn.help import options_table, usage
from cloudvpn.options import BY_NAME, DAY, HOUR, MINUTE, MS, OPTIONS, SECOND, Config, Endpoint, G, K, M, find

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name

# The specification's list, written out: a row that gets lost in the table is found here.
SPECIFIED = [
    "connect", "listen", "conn_retry", "conn_timeout", "conn_keepalive", "handshake_timeout",
    "comm_close_timeout", "max_connections", "listen_backlog", "key", "cert", "key_pass", "key_pass_file", "ca",
    "crl", "dh", "ssl_method", "iface", "tunctl", "iface_dev", "iface_device", "iface_persist", "mac", "user",
    "group", "chroot", "mlockall", "multipath", "multi_ratio", "uplimit-total", "uplimit-conn", "uplimit-burst",
    "downlimit-total", "downlimit-conn", "downlimit-burst", "tcp_nodelay", "ip_tos", "promisc", "ignore_macs",
    "broadcast_send", "bridge_mode", "broadcast_nocopy", "broadcast_filter_allow", "br_id_cache_size",
    "route_max_dist", "max_remote_routes", "report_ping_changes_above", "max_waiting_proto_packets",
    "max_waiting_data_packets", "max_waiting_data_bytes", "max_waiting_total", "max_input_queue_size", "conn-mtu",
    "heartbeat", "status-file", "status-interval", "status-verbose", "poll_interval", "log_level",
    "iface_address", "iface_mtu", "iface_up_command", "iface_down_command", "strict_permissions",
    "reload_interval", "crl_required", "iface_offload", "link_version", "status_format", "broadcast_limit",
    "learn_macs", "mac_age", "max_local_macs", "max_nodes", "max_link_claims", "max_handshakes",
    "max_handshakes_per_source",
]  # fmt: skip

LISTS = {"connect", "listen", "ca", "crl", "iface_address", "broadcast_filter_allow"}

UNUSED = {"poll_interval"}

# What SIGHUP does not give its effect.
RESTART = {
    "user", "group", "chroot", "mlockall",
    "conn_timeout", "conn_keepalive", "iface", "tunctl", "iface_dev", "iface_device", "iface_persist", "mac",
    "iface_address", "iface_mtu", "iface_up_command", "br_id_cache_size", "route_max_dist", "max_remote_routes",
    "report_ping_changes_above", "max_nodes", "max_link_claims", "conn-mtu", "status-file", "iface_offload",
    "max_waiting_total",
}  # fmt: skip

DEFAULTS = {
    "conn_retry": 10000000, "conn_timeout": 60000000, "conn_keepalive": 5000000, "handshake_timeout": 10000000,
    "comm_close_timeout": 10000000, "max_connections": 1024, "listen_backlog": 32, "ssl_method": "tls", "iface": False,
    "tunctl": Path("/dev/net/tun"), "iface_device": "tap0", "iface_persist": False, "multipath": False,
    "mlockall": False,
    "multi_ratio": 2, "uplimit_total": None, "uplimit_conn": None, "uplimit_burst": 2048, "downlimit_total": None,
    "downlimit_conn": None, "downlimit_burst": 20480, "tcp_nodelay": True, "ip_tos": None, "promisc": False,
    "ignore_macs": False, "broadcast_send": False, "bridge_mode": False, "broadcast_nocopy": False,
    "br_id_cache_size": 65536, "route_max_dist": 64, "max_remote_routes": 256, "report_ping_changes_above": 5000,
    "max_waiting_proto_packets": 64, "max_waiting_data_packets": 256, "max_waiting_data_bytes": M,
    "max_waiting_total": 256 * M, "max_input_queue_size": 4194304, "conn_mtu": 8192, "heartbeat": 50000,
    "status_file": None, "status_interval": 30000000, "status_verbose": False, "poll_interval": 5000,
    "log_level": "info", "iface_address": (), "iface_mtu": None, "strict_permissions": True,
    "reload_interval": 60000000, "crl_required": False, "iface_offload": True, "link_version": 2,
    "status_format": "text", "broadcast_limit": 10000, "learn_macs": False, "mac_age": 300000000,
    "max_local_macs": 4096, "max_nodes": 1024, "max_link_claims": 65536, "max_handshakes": 128,
    "max_handshakes_per_source": 16,
}  # fmt: skip

# attribute -> least and greatest value, in microseconds, bytes or pieces
RANGES = {
    "conn_retry": (MS, DAY), "conn_timeout": (10 * MS, DAY), "conn_keepalive": (MS, HOUR),
    "handshake_timeout": (10 * MS, HOUR), "comm_close_timeout": (0, HOUR), "max_connections": (1, 65535),
    "max_handshakes": (1, 65535), "max_handshakes_per_source": (1, 65535), "listen_backlog": (1, 65535),
    "link_version": (1, 2), "reload_interval": (SECOND, DAY), "iface_mtu": (68, 65521), "multi_ratio": (2, 65535),
    "uplimit_total": (1, 1024 * G), "uplimit_conn": (1, 1024 * G), "uplimit_burst": (1, G),
    "downlimit_total": (1, 1024 * G), "downlimit_conn": (1, 1024 * G), "downlimit_burst": (1, G),
    "broadcast_limit": (1, 1000000000), "br_id_cache_size": (1, 16 * M), "route_max_dist": (1, 65535),
    "max_remote_routes": (1, 65535), "report_ping_changes_above": (0, HOUR), "heartbeat": (MS, MINUTE),
    "mac_age": (SECOND, DAY), "max_local_macs": (1, M), "max_nodes": (1, 65535), "max_link_claims": (1, 16 * M),
    "max_waiting_proto_packets": (1, M), "max_waiting_data_packets": (1, M), "max_waiting_data_bytes": (65664, G),
    "max_waiting_total": (65664, 1024 * G), "max_input_queue_size": (786424, G), "conn_mtu": (14, 65535),
    "status_interval": (100 * MS, DAY), "poll_interval": (1, MINUTE),
}  # fmt: skip

YES_NO = [key for key, default in DEFAULTS.items() if isinstance(default, bool)]
PATHS = ["key", "cert", "key_pass_file", "ca", "crl", "dh", "tunctl", "chroot", "status_file"]
TEXTS = ["key_pass", "iface_up_command", "iface_down_command"]
CHOICES = {
    "ssl_method": ["tls", "ssl"],
    "ip_tos": ["lowdelay", "throughput", "reliability", "mincost"],
    "status_format": ["text", "json"],
    "log_level": ["error", "warning", "info", "debug"],
}

LONG_NAME = ".".join(["a" * 63] * 3 + ["a" * 61])  # 253
GOOD: list[tuple[str, str, object]] = [
    *((key, "yes", True) for key in YES_NO),
    *((key, "no", False) for key in YES_NO),
    *((key, "a b/../c", Path("a b/../c")) for key in PATHS),
    *((key, "/x", Path("/x")) for key in PATHS),
    *((key, "any text -é", "any text -é") for key in TEXTS),
    *((key, name, name) for key, names in CHOICES.items() for name in names),
    *((key, str(value), value) for key, ends in RANGES.items() for value in ends),
    ("user", USER, USER),
    ("group", GROUP, GROUP),
    ("connect", "192.0.2.1 1", Endpoint("192.0.2.1", "1")),
    ("connect", "::1 \t 00065535", Endpoint("::1", "65535")),
    ("connect", "fe80::1%eth0 60606", Endpoint("fe80::1%eth0", "60606")),
    ("connect", "node-1.my_net.example. ssh", Endpoint("node-1.my_net.example.", "ssh")),
    ("connect", f"{LONG_NAME} 1", Endpoint(LONG_NAME, "1")),
    ("connect", "1.2.3.a4 1", Endpoint("1.2.3.a4", "1")),
    ("listen", ":: 0", Endpoint("::", "0")),
    ("listen", "0.0.0.0 http", Endpoint("0.0.0.0", "http")),
    ("mac", "02:00:5E:10:aB:01", bytes.fromhex("02005e10ab01")),
    ("mac", "00:00:00:00:00:01", bytes.fromhex("000000000001")),
    ("mac", "fe:ff:ff:ff:ff:ff", bytes.fromhex("feffffffffff")),
    ("broadcast_filter_allow", "0806", 0x0806),
    ("broadcast_filter_allow", "0x86Dd", 0x86DD),
    ("broadcast_filter_allow", "0", 0),
    ("broadcast_filter_allow", "ffff", 0xFFFF),
    ("iface_dev", "tap0", "tap0"),
    ("iface_dev", "tap%d", "tap%d"),
    ("iface_dev", "a" * 15, "a" * 15),
    ("iface_dev", "é" * 7, "é" * 7),
    ("iface_device", "tap0", "tap0"),
    ("iface_device", "vmnet", "vmnet"),
    ("iface_address", "10.1.2.3/24", ip_interface("10.1.2.3/24")),
    ("iface_address", "10.1.2.3/0", ip_interface("10.1.2.3/0")),
    ("iface_address", "fd00::1/128", ip_interface("fd00::1/128")),
    ("conn_retry", "5s", 5 * SECOND),
    ("conn_retry", "200ms", 200 * MS),
    ("conn_retry", "5000us", 5 * MS),
    ("conn_retry", "5min", 5 * MINUTE),
    ("conn_retry", "24h", 1440 * MINUTE),
    ("conn_retry", "0" * 5000 + "5s", 5 * SECOND),
    ("conn_mtu", "9k", 9 * K),
    ("max_waiting_total", "3M", 3 * M),
    ("max_waiting_total", "2G", 2 * G),
    ("broadcast_limit", "7/s", 7),
]

BAD: list[tuple[str, list[str]]] = [
    *((key, ["", "Yes", "on", "1", "true", "yes yes"]) for key in YES_NO),
    *((key, [""]) for key in PATHS + TEXTS),
    *((key, ["", "x", names[0].upper(), names[0] + " "]) for key, names in CHOICES.items()),
    *((key, [str(low - 1), str(high + 1)]) for key, (low, high) in RANGES.items()),
    *((key, ["", "abc", "1.5", "1e3", "+1", "0x10", "1_0", "\u0661", "1 s", "s", "1S", "9" * 5000]) for key in RANGES),
    ("conn_retry", ["5k", "5m", "5d", "5s\n"]),
    ("conn_mtu", ["9K", "9s", "9kB"]),
    ("max_connections", ["1k", "5s", "5/s"]),
    ("broadcast_limit", ["5/min", "5 /s"]),
    ("user", ["", "no-such-user"]),
    ("group", ["", "no-such-group"]),
    ("connect", ["a", "a b c", "a 0", "a 65536", "a -1", "a no-such-service", "a 1.5", f"a {'9' * 5000}"]),
    ("connect", [f"{host} 1" for host in ("300.1.1.1", "1.2.3", "[::1]", ":::", "*", "-a", "a-", "a..b", ".", "\xe9")]),
    ("connect", [f"{host} 1" for host in ("a" * 64, LONG_NAME + "a", "a\xa0b", "a/b", "fe80::1%", "fe80::1%\u202e")]),
    ("listen", ["::", ":: 65536", ":: -1", "", " "]),
    ("mac", ["", "00:00:00:00:00:00", "01:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00", "2:0:0:0:0:1"]),
    ("mac", ["02:00:00:00:00:01:02", "02-00-00-00-00-01", "020000000001", "02:00:00:00:00:0g"]),
    ("broadcast_filter_allow", ["", "10000", "0x", "-1", "080g", "08 06", "0x10000"]),
    ("iface_dev", ["", "a" * 16, "é" * 8, "a/b", "a b", "a\tb", "a:b", ".", "..", "%s", "%d%d", "100%", "a\x01"]),
    ("iface_device", ["", "/dev/tap0", "../tap0", "tap0 ", "0", "tap%d", "t" * 16, "tap\u0661"]),
    ("iface_address", ["", "10.0.0.1", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/255.255.255.0", "fd00::1/129"]),
    ("iface_address", ["10.0.0.256/24", "224.0.0.1/24", "0.0.0.0/0", "::/0", "ff02::1/64", "fe80::1%eth0/64", "x/1"]),
]


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that knows ssh and http only: a small container may have no /etc/services."""

    def look_up(name: str, protocol: str) -> int:
        if name in ("ssh", "http") and protocol == "tcp":
            return 80
        raise OSError("service/proto not found")

    monkeypatch.setattr("socket.getservbyname", look_up)


def test_the_table_holds_the_options_of_the_specification_and_no_other() -> None:
    assert sorted(option.name for option in OPTIONS.values()) == sorted(SPECIFIED)


def test_defaults_are_those_of_the_specification() -> None:
    expected = {key: DEFAULTS.get(key, () if option.is_list else None) for key, option in OPTIONS.items()}
    assert {key: getattr(Config(), key) for key in OPTIONS} == expected


def test_defaults_lie_in_their_ranges() -> None:
    for option in OPTIONS.values():
        if option.minimum is not None and option.maximum is not None and isinstance(option.default, int):
            assert option.minimum <= option.default <= option.maximum, option.name


def test_lists_are_lists() -> None:
    assert {option.name for option in OPTIONS.values() if option.is_list} == LISTS


def test_options_without_effect_are_marked() -> None:
    assert {option.name for option in OPTIONS.values() if option.unused} == UNUSED


def test_options_that_need_a_restart_are_marked() -> None:
    assert {option.name for option in OPTIONS.values() if not option.live and not option.unused} == RESTART


def test_every_option_has_a_good_and_a_bad_value_below() -> None:
    assert {key for key, _, _ in GOOD} == set(OPTIONS)
    assert {key for key, _ in BAD} == set(OPTIONS)


@pytest.mark.parametrize(("key", "text", "value"), GOOD, ids=lambda cell: str(cell)[:30])
def test_a_good_value_is_read(key: str, text: str, value: object) -> None:
    read = OPTIONS[key].parse(text)
    assert read == value and type(read) is type(value)


BAD_PAIRS = [(key, text) for key, texts in BAD for text in texts]


@pytest.mark.parametrize(("key", "text"), BAD_PAIRS, ids=lambda cell: cell[:30])
def test_a_bad_value_is_refused_with_what_was_expected(key: str, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        OPTIONS[key].parse(text)
    option = OPTIONS[key]
    ranges = f"{option.kind.noun} from {option.range}"
    assert str(caught.value) in (option.kind.expected, ranges)


def test_ranges_are_told_in_the_units_people_use() -> None:
    with pytest.raises(ValueError, match=r"^a time from 1ms to 1min$"):
        OPTIONS["heartbeat"].parse("1us")
    with pytest.raises(ValueError, match=r"^a size from 786424 to 1G$"):
        OPTIONS["max_input_queue_size"].parse("1k")
    with pytest.raises(ValueError, match=r"^a rate from 1/s to 1000000000/s$"):
        OPTIONS["broadcast_limit"].parse("0/s")


def test_minus_and_underscore_mean_the_same_and_aliases_lead_to_their_option() -> None:
    assert find("conn-mtu") is find("conn_mtu") is OPTIONS["conn_mtu"]
    assert find("conn-retry") is OPTIONS["conn_retry"]
    assert find("multipath_ratio") is OPTIONS["multi_ratio"]
    assert find("Iface") is None
    assert len(BY_NAME) == len(OPTIONS) + 1


def test_the_password_of_the_key_is_not_in_the_repr() -> None:
    assert "geheim" not in repr(Config(key_pass="geheim"))


def test_the_help_holds_every_option_in_80_columns() -> None:
    text = usage()
    assert max(map(len, text.splitlines())) <= 80
    for name in SPECIFIED:
        assert f"\n  -{name} " in text
    for word in ("--check", "--version", "--help", "--demo", "@include"):
        assert word in text


def test_the_tables_hold_every_option_in_three_columns_and_mark_those_without_effect() -> None:
    rows = [line for line in options_table().splitlines() if line.startswith("| ") and "| default |" not in line]
    assert len(rows) == len(SPECIFIED)
    for row, option in zip(rows, OPTIONS.values(), strict=True):
        assert row.replace("\\|", "").count("|") == 4
        assert row.startswith(f"| {option.name} ")
        assert ("no effect" in row) == bool(option.unused)
        assert ("(restart)" in row) == (not option.unused and not option.live)
