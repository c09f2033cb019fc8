# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommand config: a commented configuration for a node, with the files that the other subcommands make."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cloudvpn.keygen.authority import CERT, LIST
from cloudvpn.keygen.files import KeygenError, NewFile, check_free, check_name, locked, write_all
from cloudvpn.options import CONNECT, IFACE_ADDRESS, LISTEN, PARSE_ERRORS, PATH, Kind

TEXT: Final = """\
# Configuration of the CloudVPN node "{name}". `cloudvpn --check {name}.conf` tells all mistakes in it.
# Paths are relative to this file: bring it and the four files that it names into one folder, such as /etc/cloudvpn.

# Who this node is; nobody else may read the key.
key {name}.key
cert {name}.crt
{password}

# Whom it lets in: certificates of this CA that are not in its revocation list.
# Bring a fresh list before the old one expires; a node with an expired list lets nobody in.
ca {ca}
crl {crl}

# Where it waits for other nodes: address and TCP port. The addresses 0.0.0.0 and :: mean all.
{listen}

# Which nodes it dials, and keeps dialling. One is enough to be in; more are more ways.
{connect}

# Its place in the common Ethernet. Without an interface a node only passes on what others send.
{interface}

# More to say about what happens: error, warning, info, debug
#log_level debug
# What the node knows (links, routes, counters), written every 30 seconds.
#status-file /run/cloudvpn.status
"""


def write(args: Namespace, now: datetime) -> None:
    name = check_name(args.name)
    path = args.dir / f"{name}.conf"
    if not (args.listen or args.connect or args.address):
        raise KeygenError("a node needs something to do, give --listen, --connect or --address")
    password = [args.key_pass_file] if args.key_pass_file else []
    address = _lines("iface_address", IFACE_ADDRESS, args.address)
    text = TEXT.format(
        name=name,
        ca=CERT,
        crl=LIST,
        password=_lines("key_pass_file", PATH, password) or f"#key_pass_file {name}.pass",
        listen=_lines("listen", LISTEN, map(" ".join, args.listen)) or "#listen 0.0.0.0 15135",
        connect=_lines("connect", CONNECT, map(" ".join, args.connect)) or "#connect other.example.org 15135",
        interface=f"iface yes\niface_dev cloud0\n{address}"
        if address
        else "#iface yes\n#iface_dev cloud0\n#iface_address 10.77.0.1/24",
    )
    with locked(args.dir):
        check_free(args.force, path)
        write_all([NewFile(path, text.encode())])
    print(f"{path}: check it with `cloudvpn --check {path}`")


def _lines(option: str, kind: Kind, values: Iterable[str]) -> str:
    """Lines that the daemon will take: its own parser has read them."""
    values = list(values)
    for value in values:
        try:
            if not value.isprintable():  # a new line would be a new option
                raise ValueError
            kind.parse(value)
        except PARSE_ERRORS:
            raise KeygenError(f'{option}: expected {kind.expected}, got "{value}"') from None
    return "\n".join(f"{option} {value}" for value in values)
