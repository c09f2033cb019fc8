# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of a real daemon: set up as told, given back at the end, followed when it changes or goes."""

from __future__ import annotations

import os
import re
import stat

from tests.netns.keys import identity
from tests.netns.lab import Host, Lab, Node

PORT = 4000
LINE = r"/\S+\.conf:\d+: "     # where an error lies
TAP = ["iface yes", "iface_dev tap0"]


def addresses(host: Host, iface: str) -> set[str]:
    found = host.ip(f"addr show {iface}")[0]["addr_info"]
    return {f"{one['local']}/{one['prefixlen']}" for one in found if one["scope"] == "global"}


def mac(host: Host, iface: str) -> str:
    return str(host.ip(f"link show {iface}")[0]["address"])


def cpu_seconds(node: Node) -> float:
    with open(f"/proc/{node.pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def make_pair(lab: Lab) -> tuple[Node, Node]:
    """a --w1-- b, both with a TAP; b dials."""
    wire = lab.wire("a", "b")
    a = lab.node("a", f"listen 0.0.0.0 {PORT}", *TAP, "iface_address 10.9.0.1/24", "iface_address fd09::1/64")
    b = lab.node("b", f"connect {wire.address('a')} {PORT}", *TAP, "iface_address 10.9.0.2/24", "conn_retry 1s")
    lab.wait_for_ping("b", "10.9.0.1")
    return a, b


def assert_link_stayed(*nodes: Node) -> None:
    for node in nodes:
        assert "link down" not in node.log_text() and "Traceback" not in node.log_text(), node.report()
        assert [bool(link.ping) for link in node.status().links] == [True]


def lines_since(node: Node, size: int) -> list[str]:
    return node.log_text()[size:].splitlines()


# Made and given back


def test_addresses_mtu_and_mac_are_set_and_the_commands_see_the_interface(lab: Lab) -> None:
    host = lab.host("a")
    a = lab.node(
        "a", "iface yes", "iface_dev tap%d", "iface_address 10.9.0.1/24", "iface_address 10.9.1.1/32",
        "iface_address fd09::1/64", "iface_mtu 1300", "mac 02:00:5e:10:00:01",
        'iface_up_command echo "up $IFACE $MAC"; ip -br link show dev "$IFACE"',
        'iface_down_command echo "down $IFACE $MAC"; ip -br link show dev "$IFACE"',
    )  # fmt: skip
    a.wait_log("interface tap0, MAC 02:00:5e:10:00:01, offloads for TCP", 15)
    link = host.ip("link show tap0")[0]
    assert (link["mtu"], link["address"], "UP" in link["flags"]) == (1300, "02:00:5e:10:00:01", True)
    assert addresses(host, "tap0") == {"10.9.0.1/24", "10.9.1.1/32", "fd09::1/64"}
    assert a.terminate() == 0
    assert not host.has("tap0")
    for word in ("up", "down"):
        assert re.search(rf"^{word} tap0 02:00:5e:10:00:01\ntap0 .*[<,]UP[,>]", a.log_text(), re.MULTILINE), a.report()


def test_a_start_that_fails_at_the_interface_ends_with_1_and_leaves_none(lab: Lab) -> None:
    host = lab.host("a")
    host.ip("link add plain type bridge")
    user = lab.node("a", *TAP, name="user")
    user.wait_log("interface tap0, MAC", 15)
    others = host.ip("link show")
    failures = {
        "command": (["iface_dev tap1", "iface_up_command exit 3"], f"{LINE}iface_up_command: .*exit 3.* exit status 3"),
        "plain": (["iface_dev plain"], "opening TAP plain .*: an interface of that name exists and is no TAP"),
        "busy": (["iface_dev tap0"], "opening TAP tap0 .*: another program uses this interface"),
        "broken": (["iface_dev tap2", "iface_address 10.9.0.1/24", "iface_mtu 65521", "tunctl /dev/null"],
                   "opening TAP tap2 through /dev/null: "),
    }  # fmt: skip
    nodes = {name: lab.node("a", "iface yes", *lines, name=name) for name, (lines, _) in failures.items()}
    for name, (_, message) in failures.items():
        assert nodes[name].wait() == 1
        errors = [line for line in nodes[name].log_text().splitlines() if line.startswith("cloudvpn: ")]
        assert len(errors) == 1 and re.match(f"cloudvpn: {message}", errors[0]), nodes[name].report()
        assert "Traceback" not in nodes[name].log_text()
    assert host.ip("link show") == others
    assert user.exit_code is None


def test_an_interface_stays_only_if_it_is_persistent_or_was_there_before(lab: Lab) -> None:
    host = lab.host("a")
    host.ip("tuntap add tap2 mode tap")
    index = host.ip("link show tap2")[0]["ifindex"]
    settings = {"yes": "tap1", "before": "tap2", "no": "tap3"}
    nodes = {
        name: lab.node("a", "iface yes", f"iface_dev {iface}", f"iface_persist {'yes' if name == 'yes' else 'no'}",
                       f"iface_address 10.9.{iface[-1]}.1/24", name=name)
        for name, iface in settings.items()
    }  # fmt: skip
    for round in (1, 2):  # what has stayed is used again
        for name, node in nodes.items():
            node.wait_log(f"interface {settings[name]}, MAC", 15, round)
            assert addresses(host, settings[name]) == {f"10.9.{settings[name][-1]}.1/24"}
        for node in nodes.values():
            assert node.terminate() == 0, node.report()
        assert [host.has(iface) for iface in settings.values()] == [True, True, False]
        if round == 1:
            for node in nodes.values():
                node.start()
    assert host.ip("link show tap2")[0]["ifindex"] == index, "it was made anew"


def test_an_interface_that_we_make_has_the_same_mac_at_each_start_and_one_that_was_there_keeps_its_own(
    lab: Lab
) -> None:
    host, keys = lab.host("a"), identity("a")
    host.ip("tuntap add tap2 mode tap")
    host.ip("link set tap2 address 02:00:5e:10:00:02")
    same = [f"key {keys.key}", f"cert {keys.cert}", "iface yes"]
    nodes = {iface: lab.node("a", *same, f"iface_dev {iface}", name=iface) for iface in ("tap0", "tap1", "tap2")}
    found = []
    for round in (1, 2):
        for iface, node in nodes.items():
            node.wait_log(f"interface {iface}, MAC", 15, round)
        found.append([mac(host, iface) for iface in nodes])
        for node in nodes.values():
            assert node.terminate() == 0, node.report()
        assert [host.has(iface) for iface in nodes] == [False, False, True]
        if round == 1:
            for node in nodes.values():
                node.start()
    assert found[0] == found[1] and found[0][2] == "02:00:5e:10:00:02"
    assert len(set(found[0])) == 3, "one key, three interfaces"
    assert all(int(one[:2], 16) & 3 == 2 for one in found[0]), "locally administered, no group"


def test_a_persistent_interface_keeps_mac_addresses_and_up_and_is_taken_over_as_it_is(lab: Lab) -> None:
    host = lab.host("a")
    a = lab.node("a", "iface yes", "iface_dev tap1", "iface_persist yes", "iface_address 10.9.0.1/24")

    def look() -> tuple[str, set[str], list[str]]:
        link = host.ip("link show tap1")[0]
        return link["address"], addresses(host, "tap1"), sorted(link["flags"])

    a.wait_log("interface tap1, MAC", 15)
    drawn, set_there, flags = look()
    assert {"UP", "LOWER_UP"} <= set(flags)
    assert a.terminate() == 0
    assert look() == (drawn, set_there, sorted({*flags, "NO-CARRIER"} - {"LOWER_UP"})), "nobody holds its other end"
    a.start()
    a.wait_log(f"interface tap1, MAC {drawn}, offloads for TCP.*$", 15, 2)
    assert look() == (drawn, set_there, flags)
    a.kill()
    assert look()[0] == drawn


def test_tap_percent_d_takes_the_next_free_name_through_the_control_device_that_is_named(lab: Lab) -> None:
    control = lab.directory / "control"
    os.mknod(control, 0o600 | stat.S_IFCHR, os.stat("/dev/net/tun").st_rdev)
    for number in range(2):
        node = lab.node("a", "iface yes", "iface_dev lan%d", f"tunctl {control}", name=f"node{number}")
        node.wait_log(f"interface lan{number}, MAC", 15)
    unnamed = lab.node("a", "iface yes", "iface_persist yes", name="unnamed")
    unnamed.wait_log("warning .*: iface_persist: each start will leave one more interface: set iface_dev", 15)
    unnamed.wait_log("interface tap0, MAC", 15)
    assert unnamed.terminate() == 0
    unnamed.start()
    unnamed.wait_log("interface tap1, MAC", 15)
    control.unlink()
    late = lab.node("a", "iface yes", f"tunctl {control}", name="late")
    assert late.wait() == 1 and f"through {control}: the device is missing" in late.log_text()


def test_an_mtu_that_does_not_fit_conn_mtu_is_said_when_it_is_read_found_or_changed(lab: Lab) -> None:
    host = lab.host("a")
    host.ip("tuntap add tap1 mode tap")
    host.ip("link set tap1 mtu 8179")
    a = lab.node("a", "iface yes", "iface_dev tap1")
    found = "warning interface tap1: its MTU {} allows frames that are larger than conn-mtu 8192 .*: set its MTU to 817"
    a.wait_log(found.format(8179), 15)
    for mtu, count in ((8178, 1), (8180, 2)):
        host.ip(f"link set tap1 mtu {mtu}")
        a.wait_log(found.format("81.*"), 5, count)
    read = lab.node("a", "iface yes", "iface_dev tap2", "conn-mtu 1513", "iface_mtu 1500", name="read")
    read.wait_log(r"warning .*/read\.conf:\d+: iface_mtu: allows frames of 1514 bytes .* than conn-mtu 1513 are", 15)
    fits = lab.node("a", "iface yes", "iface_dev tap3", "conn-mtu 1514", "iface_mtu 1500", name="fits")
    for node, iface in ((read, "tap2"), (fits, "tap3")):
        node.wait_log(f"interface {iface}, MAC", 15)
    assert read.log_text().count("conn-mtu") == 1 and "conn-mtu" not in fits.log_text()
    assert len(re.findall("conn-mtu", a.log_text())) == 4, a.report()  # two lines, with two each


def test_the_device_of_bsd_is_said_to_be_without_effect_here(lab: Lab) -> None:
    a = lab.node("a", "iface yes", "iface_dev tap0", "iface_device tap7")
    a.wait_log("warning .*: iface_device: without effect on this system: here it is iface_dev that names the inter", 15)
    a.wait_log("interface tap0, MAC", 15)
    assert not a.host.has("tap7")


# While it is used


def test_a_deleted_interface_is_missed_quietly_and_used_again_when_it_is_back(lab: Lab) -> None:
    a, b = make_pair(lab)
    host = lab.host("a")

    def route_is_there(address: str) -> bool:
        return address in b.status().routes

    first = mac(host, "tap0")
    for back in (2, 3):
        old, size = mac(host, "tap0"), len(a.log_text())
        lab.until(lambda old=old: route_is_there(old), 5, "the route to a")
        host.ip("link del tap0")
        assert not host.has("tap0"), "the fault did not happen"
        a.wait_log("warning interface tap0 is gone .*: links stay up; .*`ip tuntap add tap0 mode tap`$", 5, back - 1)
        lab.until(lambda old=old: not route_is_there(old), 5, "its MAC is withdrawn")
        lab.until(lambda: "local interface: tap0 is gone" in a.status().text, 5, "the status says so")
        begun, cpu = a.status().uptime or 0, cpu_seconds(a)
        lab.until(lambda begun=begun: (a.status().uptime or 0) > begun + 1.5, 15, "1.5 s without the interface")
        assert cpu_seconds(a) - cpu < 0.3
        assert_link_stayed(a, b)
        assert len(lines_since(a, size)) == 1, a.report()
        host.ip("tuntap add tap0 mode tap")
        a.wait_log("interface tap0, MAC", 5, back)
        assert addresses(host, "tap0") == {"10.9.0.1/24", "fd09::1/64"}
        assert mac(host, "tap0") == first, "the others need not ask for it again"
        lab.wait_for_ping("a", "10.9.0.2")
        assert b.host.ping("10.9.0.1", 5, 0.2).received == 5
    assert_link_stayed(a, b)
    assert a.terminate() == 0
    assert host.has("tap0"), "it was not ours any more"


def test_an_interface_that_changes_while_it_is_used_is_followed(lab: Lab) -> None:
    a, b = make_pair(lab)
    host, size = lab.host("a"), len(a.log_text())

    def goes_on() -> None:
        lab.wait_for_ping("a", "10.9.0.2")
        assert lab.host("a").ping("10.9.0.2", 5, 0.2).received == 5
        assert_link_stayed(a, b)

    host.ip("link set tap0 down")
    a.wait_log("warning interface tap0 is down: frames for it are lost until it is up again$")
    assert not b.host.ping("10.9.0.1", 2, 0.1).received, "the fault did not happen"
    assert_link_stayed(a, b)
    host.ip("link set tap0 up")
    a.wait_log("info interface tap0 is up again$")
    lab.until(lambda: addresses(host, "tap0") == {"10.9.0.1/24", "fd09::1/64"}, 5, "the kernel takes IPv6 ones away")
    goes_on()

    old, new = mac(host, "tap0"), "02:00:5e:10:00:77"
    host.ip(f"link set tap0 address {new}")
    a.wait_log(f"info interface tap0: MAC changed from {old} to {new}$")
    lab.until(lambda: old not in b.status().routes and new in b.status().routes, 5, "b learns the new MAC")
    goes_on()
    lab.until(lambda: a.status().mac == new, 5, "the new MAC in the status")
    assert len(lines_since(a, size)) == 3, a.report()

    host.ip("link set tap0 down")
    host.ip("link set tap0 name lan0")
    host.ip("link set lan0 up")
    a.wait_log("info interface tap0 was renamed to lan0$")
    goes_on()
    assert mac(host, "lan0") == new and not host.has("tap0")
    host.ip("link del lan0")
    a.wait_log("interface lan0 is gone")
    assert_link_stayed(a, b)
    assert a.terminate() == 0 and "Traceback" not in a.log_text()
