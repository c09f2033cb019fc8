# SPDX-License-Identifier: GPL-3.0-or-later
"""How each tunnel is set up between two hosts: as its manual says, with AES of 128 bits where there is a choice.

Tunnels over UDP get an MTU of 1,400, so that a frame fits one datagram on the wire of 1,500; those over TCP, which
has no such border, 1,500.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.lab.hosts import Lab, run
from bench.lab.load import Way
from bench.lab.nodes import IFACE, PORT, Authority, Nodes, Program
from bench.lab.rounds import Subject
from bench.peers.ends import INNER, NETWORK, End, Ends

OURS = ("cloudvpn", "cloudvpn_v1", "cloudvpn_relay")
DATAGRAM_MTU = 1400


def subjects(program: Program) -> dict[str, Subject]:
    """All tunnels, in the order of the table."""
    wireguard = {"wireguard-go": "wireguard-go", "wg": "wireguard-tools"}
    openvpn = {"openvpn": "openvpn"}
    return {
        "veth": Subject("no tunnel, the wire itself", bare, {}),
        "vxlan": Subject("in the kernel, no encryption", vxlan, {}),
        "cloudvpn": Subject("this project, TLS 1.3 over TCP", lambda lab: direct(lab, program), {}),
        "cloudvpn_v1": Subject(
            "this project on the wire of 2009", lambda lab: direct(lab, program, "link_version 1"), {}),
        "cloudvpn_relay": Subject(
            "this project by way of a third, headless node", lambda lab: relayed(lab, program), {}),
        "wireguard_go": Subject("layer 3, UDP, ChaCha20-Poly1305", wireguard_go, wireguard),
        "nebula": Subject("layer 3, UDP, AES-256-GCM", nebula, {"nebula": "nebula", "nebula-cert": "nebula"}),
        "tinc": Subject("switch mode, UDP, AES-128-CBC, SHA-1", tinc, {"tincd": "tinc"}),
        "fastd": Subject("TAP, UDP, Salsa20/12, UMAC", fastd, {"fastd": "fastd"}),
        "openvpn_udp": Subject("TAP, UDP, AES-128-GCM", openvpn_udp, openvpn),
        "openvpn_tcp": Subject("TAP, TCP, AES-128-GCM", openvpn_tcp, openvpn),
        "vtun": Subject("TAP, TCP, AES-128-CBC", vtun, {"vtund": "vtun"}),
        "socat": Subject("TAP, TLS over TCP", socat, {"socat": "socat"}),
    }


# The kernel alone


def bare(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    return [Way(ends.b.host, ends.a.host, ends.a.outer)]


def vxlan(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    for end, other in ends.both:
        end.host.ip(f"link add {IFACE} type vxlan id 1 local {end.outer} remote {other.outer} dstport 4789")
    ends.address_ifaces(1450)
    return ends.way()


# This project


def direct(lab: Lab, program: Program, *lines: str) -> Sequence[Way]:
    ends = Ends(lab)
    nodes = Nodes(lab, program, lines)
    nodes.start_with_tap(ends.a.host, ends.a.inner, f"listen {ends.a.outer} {PORT}")
    nodes.start_with_tap(ends.b.host, ends.b.inner, f"connect {ends.a.outer} {PORT}")
    return ends.way()


def relayed(lab: Lab, program: Program) -> Sequence[Way]:
    a, relay, b = lab.host("a"), lab.host("relay"), lab.host("b")
    nodes = Nodes(lab, program)
    nodes.start(relay, f"listen 0.0.0.0 {PORT}")
    for host, inner in zip((a, b), INNER, strict=True):
        _, address = lab.wire(host, relay)
        nodes.start_with_tap(host, inner, f"connect {address} {PORT}")
    return [Way(b, a, INNER[0])]


# The others


def tinc(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    for end, other in ends.both:
        folder = f"tinc-{end.name}"
        key = rsa.generate_private_key(65537, 2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        ends.file(f"{folder}/rsa_key.priv", private)
        ends.file(
            f"{folder}/tinc.conf",
            f"Name = {end.name}\nMode = switch\nDeviceType = tap\nInterface = {IFACE}\nAddressFamily = ipv4\n"
            f"ConnectTo = {other.name}\n",
        )
        for place in (end.name, other.name):
            ends.file(
                f"tinc-{place}/hosts/{end.name}",
                f"Address = {end.outer}\nCipher = aes-128-cbc\nDigest = sha1\n{public}",
            )
    for end, _ in ends.both:
        folder = f"{lab.directory}/tinc-{end.name}"
        lab.start(end.host, "tincd", "--no-detach", f"--config={folder}", f"--pidfile={folder}/pid")
    ends.address_ifaces(DATAGRAM_MTU)
    return ends.way()


def openvpn_udp(lab: Lab) -> Sequence[Way]:
    return openvpn(Ends(lab), "udp", "udp", DATAGRAM_MTU)


def openvpn_tcp(lab: Lab) -> Sequence[Way]:
    return openvpn(Ends(lab), "tcp-server", "tcp-client", None, "--socket-flags", "TCP_NODELAY")


def openvpn(ends: Ends, listener: str, dialler: str, mtu: int | None, *options: str) -> Sequence[Way]:
    authority = Authority(ends.lab.directory)

    def start(end: End, *words: object) -> None:
        keys = authority.identity(end.name)
        ends.lab.start(
            end.host, "openvpn", "--dev", IFACE, "--dev-type", "tap", "--port", 1194, "--data-ciphers", "AES-128-GCM",
            "--ca", keys.ca, "--cert", keys.cert, "--key", keys.key, "--txqueuelen", 1000, *options, *words,
        )  # fmt: skip

    start(ends.a, "--proto", listener, "--tls-server", "--dh", "none")
    start(ends.b, "--proto", dialler, "--tls-client", "--remote", ends.a.outer, "--connect-retry", 1, 1)
    ends.address_ifaces(mtu)
    return ends.way()


def fastd(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    keys = {end.name: re.findall(r"[0-9a-f]{64}", run("fastd", "--generate-key")) for end, _ in ends.both}
    for end, other in ends.both:
        secret, public = keys[end.name][0], keys[other.name][1]
        options = ends.file(
            f"fastd-{end.name}.conf",
            f'secret "{secret}";\nmode tap;\ninterface "{IFACE}";\nmtu {DATAGRAM_MTU};\n'
            f'method "salsa2012+umac";\nbind {end.outer}:10000;\n'
            f'peer "{other.name}" {{ key "{public}"; remote {other.outer}:10000; }}\n',
        )
        lab.start(end.host, "fastd", "--config", options)
    ends.address_ifaces(DATAGRAM_MTU)
    return ends.way()


def vtun(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    options = ends.file(
        "vtun.conf",
        f"options {{ port 5000; syslog daemon; }}\n"
        f"bench {{\n  password bench;\n  type ether;\n  proto tcp;\n  device {IFACE};\n  encrypt aes128cbc;\n"
        f'  compress no;\n  keepalive yes;\n  up {{ ip "link set %% up"; }};\n}}\n',
    )
    # It writes into /run whatever its options are: here into one that nobody else sees.
    alone = 'mount -t tmpfs tmpfs /run && exec vtund "$@"'
    vtund = ["unshare", "--mount", "sh", "-c", alone, "vtund", "-n", "-f", options]
    lab.start(ends.a.host, *vtund, "-s")
    lab.until(lambda: ends.a.host.is_listening(5000), "vtund on a")
    lab.start(ends.b.host, *vtund, "-p", "bench", ends.a.outer)
    ends.address_ifaces()
    return ends.way()


def nebula(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    authority = ["-ca-crt", lab.directory / "ca.crt", "-ca-key", lab.directory / "ca.key"]
    run("nebula-cert", "ca", "-name", "bench", "-out-crt", authority[1], "-out-key", authority[3])
    anything = [{"port": "any", "proto": "any", "host": "any"}]
    for end, other in ends.both:
        cert, key = lab.directory / f"{end.name}.crt", lab.directory / f"{end.name}.key"
        run("nebula-cert", "sign", *authority, "-name", end.name, "-ip", f"{end.inner}/24",
            "-out-crt", cert, "-out-key", key)
        is_lighthouse = end is ends.a
        options = {
            "pki": {"ca": str(authority[1]), "cert": str(cert), "key": str(key)},
            "static_host_map": {other.inner: [f"{other.outer}:4242"]},
            "lighthouse": {"am_lighthouse": is_lighthouse, "hosts": [] if is_lighthouse else [ends.a.inner]},
            "listen": {"host": end.outer, "port": 4242},
            "tun": {"dev": IFACE, "mtu": DATAGRAM_MTU, "tx_queue": 1000},
            "cipher": "aes",
            "firewall": {"outbound": anything, "inbound": anything},
        }
        # What is good JSON is good YAML.
        lab.start(end.host, "nebula", "-config", ends.file(f"nebula-{end.name}.yml", json.dumps(options)))
    ends.wait_for_ifaces()
    return ends.way()


def wireguard_go(lab: Lab) -> Sequence[Way]:
    # The sockets through which they are set up have these names, in a folder that all on this machine share.
    unique = lab.directory.name[-8:]
    ends = Ends(lab, (f"{unique}-a", f"{unique}-b"))
    keys = {end.name: X25519PrivateKey.generate() for end, _ in ends.both}
    for end, _ in ends.both:
        lab.start(end.host, "wireguard-go", "-f", end.iface, environment={"LOG_LEVEL": "error"})
    ends.wait_for_ifaces()
    for end, other in ends.both:
        private = ends.file(f"{end.name}.key", base64.b64encode(keys[end.name].private_bytes_raw()).decode())
        public = base64.b64encode(keys[other.name].public_key().public_bytes_raw()).decode()
        end.host.run("wg", "set", end.iface, "listen-port", 51820, "private-key", private, "peer", public,
                     "allowed-ips", NETWORK, "endpoint", f"{other.outer}:51820")
    ends.address_ifaces(1420)
    return ends.way()


def socat(lab: Lab) -> Sequence[Way]:
    ends = Ends(lab)
    authority = Authority(lab.directory)
    tap = f"TUN,tun-type=tap,tun-name={IFACE},iff-no-pi,iff-up"
    for end, where in ((ends.a, "OPENSSL-LISTEN:4443"), (ends.b, f"OPENSSL:{ends.a.outer}:4443,retry=50,interval=0.1")):
        keys = authority.identity(end.name)
        tls = f"cert={keys.cert},key={keys.key},cafile={keys.ca},verify=0,nodelay"
        lab.start(end.host, "socat", "-b", 66000, f"{where},{tls}", tap)
    ends.address_ifaces()
    return ends.way()
