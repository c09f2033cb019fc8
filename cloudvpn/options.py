# SPDX-License-Identifier: GPL-3.0-or-later
"""The one table of all options: type, kind of value, default, range, group and meaning; all else is derived from it."""
# ruff: noqa: RUF009 - option() is a field(), and what it returns is immutable

from __future__ import annotations

import grp
import ipaddress
import pwd
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

# Times are integer microseconds, sizes integer bytes.
MS: Final = 1000
SECOND: Final = 1000 * MS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
K: Final = 1024
M: Final = 1024 * K
G: Final = 1024 * M
U16: Final = 65535
ETHERNET_HEADER: Final = 14


@dataclass(frozen=True)
class Endpoint:
    """One end of a TCP connection as the user wrote it; the port is a number or a service name of this system."""

    host: str
    port: str


@dataclass(frozen=True)
class Kind:
    """How a value is written. `parse` raises one of PARSE_ERRORS for all that is not `expected`."""

    metavar: str
    expected: str
    parse: Callable[[str], object]
    noun: str = ""  # what a range is of
    show: Callable[[Any], str] = str
    words: int = 1  # on the command line


PARSE_ERRORS: Final = (ValueError, LookupError, OSError)


def _number(metavar: str, noun: str, expected: str, units: Mapping[str, int]) -> Kind:
    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]+)(.*)", text)
        if match is None:
            raise ValueError
        # 20 digits are over every maximum, and int() refuses more than 4300 with a message of its own.
        return int(match[1].lstrip("0")[:20] or "0") * units[match[2]]

    def show(value: int) -> str:
        unit = max((unit for unit in units if value and value % units[unit] == 0), key=units.__getitem__, default="")
        return f"{value // units[unit] if unit else value}{unit}"

    return Kind(metavar, expected, parse, noun, show)


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        # A name whose last label is a number is an address gone wrong: 1.2.3 or 300.1.1.1 (RFC 1123, 2.1).
        labels = text.removesuffix(".").split(".")
        return (
            len(text) <= 253
            and not labels[-1].isdigit()
            and all(re.fullmatch(r"\w([\w-]{0,61}\w)?", label, re.ASCII) for label in labels)
        )
    return text.isascii() and text.isprintable()  # a zone (%eth0) may hold anything else


def _endpoint(least_port: int) -> Kind:
    def parse(text: str) -> Endpoint:
        host, port = re.split(r"[ \t]+", text)
        if not _is_host(host):
            raise ValueError
        if not re.fullmatch(r"[0-9]+", port):
            socket.getservbyname(port, "tcp")
            return Endpoint(host, port)
        number = int(port.lstrip("0")[:6] or "0")
        if not least_port <= number <= U16:
            raise ValueError
        return Endpoint(host, str(number))

    expected = f"HOST PORT: an address or a name, and a number from {least_port} to {U16} or a known service name"
    return Kind("HOST PORT", expected, parse, words=2)


def _parse_yes_no(text: str) -> bool:
    return {"yes": True, "no": False}[text]


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _parse_mac(text: str) -> bytes:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
        raise ValueError
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & 1 or not any(mac):
        raise ValueError
    return mac


def _parse_ethertype(text: str) -> int:
    if not re.fullmatch(r"(0[xX])?[0-9A-Fa-f]{1,4}", text):
        raise ValueError
    return int(text, 16)


def _parse_iface_name(text: str) -> str:
    # The rules of dev_valid_name() and dev_alloc_name() in Linux.
    if (
        text in ("", ".", "..")
        or len(text.encode()) > 15
        or re.search(r"[\s/:]", text)
        or not text.isprintable()
        or "%" in text.replace("%d", "", 1)
    ):
        raise ValueError
    return text


def _parse_device(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]+[0-9]*", text) or len(text) > 15:
        raise ValueError
    return text


def _parse_iface_address(text: str) -> IPv4Interface | IPv6Interface:
    if not re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", text):  # ip_interface() would take a netmask, or no length
        raise ValueError
    address = ipaddress.ip_interface(text)
    if address.ip.is_multicast or address.ip.is_unspecified:
        raise ValueError
    return address


def _choice(*names: str) -> Kind:
    def parse(text: str) -> str:
        return names[names.index(text)]

    return Kind("|".join(names), " or ".join((", ".join(names[:-1]), names[-1])), parse)


def _account(noun: str, look_up: Callable[[str], object]) -> Kind:
    def parse(text: str) -> str:
        look_up(text)
        return text

    return Kind("NAME", f"the name of a {noun} of this system", parse)


YES_NO = Kind("yes|no", "yes or no", _parse_yes_no, show=lambda value: "yes" if value else "no")
DURATION = _number(
    "TIME",
    "a time",
    "a time such as 10000000 (microseconds), 5s or 200ms",
    {"": 1, "us": 1, "ms": MS, "s": SECOND, "min": MINUTE, "h": HOUR},
)
SIZE = _number("BYTES", "a size", "a size in bytes such as 8192, 64k or 1M", {"": 1, "k": K, "M": M, "G": G})
COUNT = _number("NUMBER", "a number", "a whole number", {"": 1})
RATE = _number("NUMBER/s", "a rate", "a rate such as 10000/s", {"/s": 1, "": 1})
CONNECT = _endpoint(1)
LISTEN = _endpoint(0)
PATH = Kind("PATH", "a path", lambda text: Path(_parse_text(text)))
FILE = Kind("FILE", "a path", PATH.parse)  # must be there and readable when the node starts
MAC = Kind(
    "MAC", "the address of one interface such as 02:00:5e:10:00:01, no group and not zero", _parse_mac,
    show=lambda value: value.hex(":"),
)
ETHERTYPE = Kind("HEX", "an EtherType in hexadecimal such as 0806", _parse_ethertype)
IFACE_NAME = Kind("NAME", "an interface name of at most 15 bytes such as tap0 or tap%d", _parse_iface_name)
DEVICE = Kind("NAME", "the name of a TAP device under /dev such as tap0", _parse_device)
IFACE_ADDRESS = Kind("ADDR/LEN", "an address with its prefix length such as 10.1.2.3/24", _parse_iface_address)
TEXT = Kind("TEXT", "some text", _parse_text)
USER = _account("user", pwd.getpwnam)
GROUP = _account("group", grp.getgrnam)


@dataclass(frozen=True)
class Option:
    """One row of the table."""

    group: str
    kind: Kind
    default: object
    help: str
    minimum: int | None = None
    maximum: int | None = None
    unused: str = ""  # why the option is accepted and changes nothing
    live: bool = False  # a reload of the configuration (SIGHUP) gives it its effect, others need a restart
    dashed: bool = False  # 2009 wrote the name with '-'
    aliases: tuple[str, ...] = ()
    attribute: str = ""

    @property
    def name(self) -> str:
        """The name as 2009 wrote it."""
        return self.attribute.replace("_", "-") if self.dashed else self.attribute

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, tuple)

    @property
    def range(self) -> str:
        if self.minimum is None:
            return ""
        return f"{self.kind.show(self.minimum)} to {self.kind.show(self.maximum)}"

    def show(self, value: Any) -> str:
        """A value of Config as the user would write it."""
        if value is None or value == ():
            return "not set"
        return ", ".join(map(self.kind.show, value)) if self.is_list else self.kind.show(value)

    def parse(self, text: str) -> object:
        """Read one value, or raise ValueError with what was expected instead."""
        try:
            value = self.kind.parse(text)
        except PARSE_ERRORS:
            raise ValueError(self.kind.expected) from None
        if self.minimum is not None and self.maximum is not None:
            assert isinstance(value, int)
            if not self.minimum <= value <= self.maximum:
                raise ValueError(f"{self.kind.noun} from {self.range}")
        return value


def option(
    group: str, kind: Kind, default: T, help: str, minimum: int | None = None, maximum: int | None = None,
    *, secret: bool = False, **more: Any,
) -> T:  # fmt: skip
    row = Option(group, kind, default, help, minimum, maximum, **more)
    return field(default=default, repr=not secret, metadata={"option": row})


LINKS = "Links"
TRUST = "Keys and trust"
INTERFACE = "Interface"
SECURITY = "Local security"
MULTIPATH = "Multipath"
LIMITS = "Bandwidth limits"
BRIDGING = "Bridging and broadcasts"
ROUTING = "Routing"
QUEUES = "Queues and frames"
STATUS = "Status and log"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a node was told: times in microseconds, sizes in bytes, paths absolute, None or () where nothing is set."""

    connect: tuple[Endpoint, ...] = option(
        LINKS, CONNECT, (), "dial and keep dialling; HOST is an IPv4 or IPv6 address or a name, PORT a number or a "
        "service name; all addresses of a name are tried", live=True)
    listen: tuple[Endpoint, ...] = option(
        LINKS, LISTEN, (), "accept links here; `0.0.0.0` and `::` mean every address", live=True)
    conn_retry: int = option(
        LINKS, DURATION, 10 * SECOND, "pause after a lost or failed link, spread by some jitter", MS, DAY, live=True)
    conn_timeout: int = option(
        LINKS, DURATION, 60 * SECOND, "close a link that had no valid echo reply for this long", 10 * MS, DAY)
    conn_keepalive: int = option(LINKS, DURATION, 5 * SECOND, "pause between two echo requests", MS, HOUR)
    handshake_timeout: int = option(
        LINKS, DURATION, 10 * SECOND, "from the TCP connection to the end of the TLS handshake and the first valid "
        "packet", 10 * MS, HOUR, live=True)
    comm_close_timeout: int = option(
        LINKS, DURATION, 10 * SECOND, "at shutdown, how long to wait for links to close", 0, HOUR, live=True)
    max_connections: int = option(
        LINKS, COUNT, 1024, "links in all; what is over is refused and closed at once; more than at the start needs a "
        "restart", 1, U16, live=True)
    max_handshakes: int = option(
        LINKS, COUNT, 128, "accepted connections that are not links yet; over it the oldest silent one goes", 1, U16,
        live=True)
    max_handshakes_per_source: int = option(
        LINKS, COUNT, 16, "the same for one source, an IPv4 address or an IPv6 /64", 1, U16, live=True)
    listen_backlog: int = option(
        LINKS, COUNT, 32, "connections the system holds before they are accepted", 1, U16, live=True)
    tcp_nodelay: bool = option(LINKS, YES_NO, True, "send small packets at once (2009: no)", live=True)
    ip_tos: str | None = option(
        LINKS, _choice("lowdelay", "throughput", "reliability", "mincost"), None,
        "IP type of service of the links (IPv6: traffic class); mincost is sent as class selector 1", live=True)
    link_version: int = option(
        LINKS, COUNT, 2, "newest wire version spoken; 1 is the wire of 2009 on every link", 1, 2, live=True)

    key: Path | None = option(TRUST, FILE, None, "private key of this node (PEM)", live=True)
    cert: Path | None = option(TRUST, FILE, None, "certificate of this node and its chain (PEM)", live=True)
    key_pass: str | None = option(
        TRUST, TEXT, None, "password of the key; on a command line it shows in `ps`", secret=True, live=True)
    key_pass_file: Path | None = option(TRUST, FILE, None, "file that holds the password of the key", live=True)
    ca: tuple[Path, ...] = option(
        TRUST, FILE, (), "certificates of the CAs whose nodes may join (PEM, many in a file)", live=True)
    crl: tuple[Path, ...] = option(
        TRUST, FILE, (), "revocation lists of these CAs (PEM, many in a file)", live=True)
    dh: Path | None = option(
        TRUST, FILE, None, "Diffie-Hellman parameters (PEM), needed by DSA certificates", live=True)
    ssl_method: str = option(
        TRUST, _choice("tls", "ssl"), "tls", "TLS 1.2 or newer; `ssl` is accepted and means the same",
        live=True)
    strict_permissions: bool = option(
        TRUST, YES_NO, True, "refuse keys that others may read and configs that others may write", live=True)
    reload_interval: int = option(
        TRUST, DURATION, 60 * SECOND, "how often CA, CRL, key and certificate are read again", SECOND, DAY, live=True)
    crl_required: bool = option(
        TRUST, YES_NO, False, "a CA without a CRL is an error, not a warning", live=True)

    iface: bool = option(INTERFACE, YES_NO, False, "have a local interface")
    tunctl: Path = option(INTERFACE, PATH, Path("/dev/net/tun"), "the TUN/TAP control device (Linux)")
    iface_dev: str | None = option(INTERFACE, IFACE_NAME, None, "name of the interface, tap0 or tap%d (Linux)")
    iface_device: str = option(INTERFACE, DEVICE, "tap0", "TAP device under /dev (BSD, macOS: written, but not tried)")
    iface_persist: bool = option(INTERFACE, YES_NO, False, "leave the interface there at the end")
    mac: bytes | None = option(
        INTERFACE, MAC, None, "set this address on the interface; without it a new interface gets one made from key, "
        "name and machine, the same at each start")
    iface_address: tuple[IPv4Interface | IPv6Interface, ...] = option(
        INTERFACE, IFACE_ADDRESS, (), "set this address on the interface, before rights are given up")
    iface_mtu: int | None = option(
        INTERFACE, SIZE, None, "MTU of the interface; the kernel's if not set", 68, U16 - ETHERNET_HEADER)
    iface_up_command: str | None = option(
        INTERFACE, TEXT, None, "run when the interface is up, with IFACE and MAC set, before rights are given up")
    iface_down_command: str | None = option(
        INTERFACE, TEXT, None, "run at the end, with IFACE and MAC set, with the rights of the start", live=True)
    iface_offload: bool = option(INTERFACE, YES_NO, True, "use the kernel's offloads")

    user: str | None = option(SECURITY, USER, None, "become this user after set-up")
    group: str | None = option(SECURITY, GROUP, None, "become this group after set-up")
    chroot: Path | None = option(SECURITY, PATH, None, "see only this directory after set-up")
    mlockall: bool = option(SECURITY, YES_NO, False, "keep all memory out of the swap")

    multipath: bool = option(MULTIPATH, YES_NO, False, "scatter unicast over several links", live=True)
    multi_ratio: int = option(
        MULTIPATH, COUNT, 2, "links whose ping is below this multiple of the best are used alike", 2, U16,
        live=True, aliases=("multipath_ratio",))

    uplimit_total: int | None = option(
        LIMITS, SIZE, None, "bytes of frames a second sent, all links together; what is over waits", 1, 1024 * G,
        dashed=True, live=True)
    uplimit_conn: int | None = option(
        LIMITS, SIZE, None, "bytes of frames a second sent, each link; what is over waits", 1, 1024 * G,
        dashed=True, live=True)
    uplimit_burst: int = option(
        LIMITS, SIZE, 2048, "bytes that may be saved up for sending", 1, G, dashed=True, live=True)
    downlimit_total: int | None = option(
        LIMITS, SIZE, None, "bytes of frames a second received, all links together; what is over is dropped", 1,
        1024 * G, dashed=True, live=True)
    downlimit_conn: int | None = option(
        LIMITS, SIZE, None, "bytes of frames a second received, each link; what is over is dropped", 1, 1024 * G,
        dashed=True, live=True)
    downlimit_burst: int = option(
        LIMITS, SIZE, 20480, "bytes that may be saved up for receiving", 1, G, dashed=True, live=True)

    promisc: bool = option(
        BRIDGING, YES_NO, False, "write every frame that passes to the interface", live=True)
    ignore_macs: bool = option(
        BRIDGING, YES_NO, False, "learn no routes, treat every unicast as a broadcast", live=True)
    broadcast_send: bool = option(
        BRIDGING, YES_NO, False, "send all frames of the interface as broadcasts", live=True)
    bridge_mode: bool = option(
        BRIDGING, YES_NO, False, "promisc, ignore_macs and broadcast_send at once", live=True)
    broadcast_nocopy: bool = option(
        BRIDGING, YES_NO, False, "send a broadcast to one random link only", live=True)
    broadcast_filter_allow: tuple[int, ...] = option(
        BRIDGING, ETHERTYPE, (), "EtherTypes allowed as broadcast; all if not set", live=True)
    broadcast_limit: int = option(
        BRIDGING, RATE, 10000, "broadcasts taken from one link", 1, 1_000_000_000, live=True)
    br_id_cache_size: int = option(
        BRIDGING, COUNT, 65536, "broadcast ids remembered (2009: 1024); must exceed broadcasts a second times the "
        "longest way round in seconds, or broadcasts circle", 1, 16 * M)

    route_max_dist: int = option(ROUTING, COUNT, 64, "routes at this distance or over are not used", 1, U16)
    max_remote_routes: int = option(
        ROUTING, COUNT, 256, "routes one version-1 link may announce; over it the farthest are dropped", 1, U16)
    report_ping_changes_above: int = option(
        ROUTING, DURATION, 5 * MS, "announce a route again when its ping changed by more than this", 0, HOUR)
    heartbeat: int = option(
        ROUTING, DURATION, 50 * MS, "route updates, retries and exports are done once per beat", MS, 60 * SECOND,
        live=True)
    learn_macs: bool = option(ROUTING, YES_NO, False, "announce the hosts behind the interface", live=True)
    mac_age: int = option(
        ROUTING, DURATION, 5 * MINUTE, "forget a host that was silent for this long", SECOND, DAY, live=True)
    max_local_macs: int = option(ROUTING, COUNT, 4096, "hosts behind the interface", 1, M, live=True)
    max_nodes: int = option(ROUTING, COUNT, 1024, "nodes known", 1, U16)
    max_link_claims: int = option(ROUTING, COUNT, 65536, "announced hosts taken from one link", 1, 16 * M)

    max_waiting_proto_packets: int = option(
        QUEUES, COUNT, 64, "protocol packets waiting on one link; one that overflows gets a full route set when it "
        "drains", 1, M, live=True)
    max_waiting_data_packets: int = option(QUEUES, COUNT, 256, "frames waiting on one link", 1, M, live=True)
    max_waiting_data_bytes: int = option(
        QUEUES, SIZE, M, "bytes of frames waiting on one link; the tighter of the two limits wins", 65664, G, live=True)
    max_waiting_total: int = option(
        QUEUES, SIZE, 256 * M, "bytes waiting on all links together; over it the longest queue loses first",
        65664, 1024 * G)
    max_input_queue_size: int = option(
        QUEUES, SIZE, 4 * M, "unparsed input of one link; no more is read until it is parsed",
        4 + U16 * 12, G, live=True)  # least: the largest packet of version 1, a route set
    conn_mtu: int = option(
        QUEUES, SIZE, 8192, "larger frames are dropped; the Ethernet header counts", 14, U16, dashed=True)

    status_file: Path | None = option(STATUS, PATH, None, "write the status here, always whole", dashed=True)
    status_interval: int = option(
        STATUS, DURATION, 30 * SECOND, "how often the status is written", 100 * MS, DAY, dashed=True, live=True)
    status_verbose: bool = option(STATUS, YES_NO, False, "status with the routes of all links", dashed=True, live=True)
    status_format: str = option(
        STATUS, _choice("text", "json"), "text", "form of the status", live=True)
    log_level: str = option(
        STATUS, _choice("error", "warning", "info", "debug"), "info", "the least weighty events that are logged",
        live=True)
    poll_interval: int = option(
        STATUS, DURATION, 5 * MS, "pause between two polls of the interface", 1, 60 * SECOND,
        unused="2009 needed it on Win32")

    # (attribute, value) -> where the user wrote it, such as "node.conf:3: ca"
    places: Mapping[tuple[str, object], str] = field(default_factory=dict, repr=False, compare=False)

    def place(self, attribute: str, value: object) -> str:
        """Where the user wrote this value; the option's name, if nobody knows."""
        return self.places.get((attribute, value), OPTIONS[attribute].name)


OPTIONS: Final[Mapping[str, Option]] = {
    row.name: replace(row.metadata["option"], attribute=row.name) for row in fields(Config) if row.metadata
}
# Every name that may be written, '-' as '_'.
BY_NAME: Final[Mapping[str, Option]] = {name: row for key, row in OPTIONS.items() for name in (key, *row.aliases)}


def find(name: str) -> Option | None:
    return BY_NAME.get(name.replace("-", "_"))


def named_files(config: Config) -> Iterator[Path]:
    """The files that must be there and readable: keys, certificates, lists."""
    for key, row in OPTIONS.items():
        if row.kind is FILE and (value := getattr(config, key)) is not None:
            yield from value if row.is_list else (value,)
