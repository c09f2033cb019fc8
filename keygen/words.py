# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the command line: subcommands, their options, help and examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from cloudvpn import __version__, pki
from cloudvpn.keygen import description, dhparams, issuing, nodeconf, revoking, signing, verdict
from cloudvpn.keygen.authority import LIST_DAYS
from cloudvpn.keygen.files import KeygenError
from cloudvpn.keygen.issuing import CA_DAYS, NODE_DAYS

PROGRAM: Final = "cloudvpn-keygen"
MAX_DAYS: Final = 36500
EXAMPLE: Final = """\
a CA and two nodes, in a folder that only you may read:
  cloudvpn-keygen ca --dir mesh --name "my mesh"
  cloudvpn-keygen node alpha --dir mesh
  cloudvpn-keygen node beta --dir mesh
  cloudvpn-keygen config alpha --dir mesh --listen 0.0.0.0 15135 --address 10.77.0.1/24
  cloudvpn-keygen config beta --dir mesh --connect alpha.example.org 15135 --address 10.77.0.2/24
"""


class Parser(argparse.ArgumentParser):
    """Reports like everything else here: one line, exit code 1."""

    def error(self, message: str) -> NoReturn:
        raise KeygenError(f"{message}; `{self.prog} --help` says more")


def make_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM, description="A CA in a folder, and the keys and certificates of CloudVPN nodes.", epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)

    def add(name: str, help: str, example: str, run: Callable[[argparse.Namespace, datetime], None]) -> Parser:
        command = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False,
            epilog=f"example:\n  {PROGRAM} {example}", formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where all is (default: here)")
        command.set_defaults(run=run)
        return command

    _add_makers(add)
    _add_signers(add)
    _add_readers(add)
    return parser


Add = Callable[[str, str, str, Callable[[argparse.Namespace, datetime], None]], Parser]


def _add_makers(add: Add) -> None:
    ca = add("ca", "make a CA: ca.key, ca.crt, crl.pem, index.jsonl", 'ca --dir mesh --name "my mesh"', issuing.make_ca)
    ca.add_argument(
        "--name", metavar="CN", help=f'default: "{issuing.ROOT_NAME}"; of an intermediate: {issuing.INTERMEDIATE_NAME}'
    )
    ca.add_argument(
        "--intermediate-of", type=Path, metavar="DIR2",
        help="let the CA in DIR2 sign it; it may sign nodes only, and DIR2 keeps a copy and can revoke it",
    )  # fmt: skip
    _add_days(ca, CA_DAYS)
    _add_key(ca)
    _add_ca_password(ca, "of the CA in DIR2")
    _add_force(ca)

    node = add("node", "make a node's key and certificate", "node alpha --dir mesh", issuing.make_node)
    _add_name(node)
    _add_days(node, NODE_DAYS)
    _add_key(node)
    _add_ca_password(node)
    _add_force(node)

    request = add("request", "make a key and a request to a CA elsewhere", "request alpha", issuing.make_request)
    _add_name(request)
    request.add_argument("--intermediate", action="store_true", help="ask for the certificate of a CA")
    _add_key(request)
    _add_force(request)


def _add_signers(add: Add) -> None:
    sign = add("sign", "sign a request: makes NAME.crt in the CA's folder", "sign alpha.csr --dir mesh", signing.sign)
    sign.add_argument("file", type=Path, metavar="FILE.csr")
    sign.add_argument("--name", metavar="NAME", help="another name than the request's")
    sign.add_argument("--intermediate", action="store_true", help="let it sign nodes, as a CA below this one")
    sign.add_argument("--yes", action="store_true", help="do not ask")
    _add_days(sign, NODE_DAYS)
    _add_ca_password(sign)
    _add_force(sign)

    renew = add("renew", "make a new certificate for the same key", "renew alpha --dir mesh", signing.renew)
    renew.add_argument("name", metavar="NAME", help="of a node, or `ca` for the CA itself")
    renew.add_argument("--revoke-old", action="store_true", help="revoke the old certificate, which else stays good")
    _add_days(renew, None, f"how long it is good (default: {NODE_DAYS}, of a CA {CA_DAYS})")
    _add_ca_password(renew)

    revoke = add("revoke", "keep a node out: a fresh crl.pem with it", "revoke alpha --dir mesh", revoking.revoke)
    revoke.add_argument("what", metavar="NAME|SERIAL|FILE.crt", help="NAME: all its certificates")
    revoke.add_argument("--reason", choices=revoking.REASONS, default="unspecified", metavar="REASON",
                        help=", ".join(revoking.REASONS))  # fmt: skip
    crl = add("crl", "make a fresh crl.pem, before the old one expires", "crl --dir mesh", revoking.make_list)
    for command in (revoke, crl):
        _add_days(command, None, f"how long the list is good (default: as the one before, at first {LIST_DAYS})")
        _add_ca_password(command)


def _add_readers(add: Add) -> None:
    add("list", "show all certificates of the CA and their state", "list --dir mesh", revoking.show_list)

    show = add("show", "tell what is in a file: key, certificate, request, list", "show alpha.crt", description.show)
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--password-file", type=Path, metavar="FILE", help="password of the key (default: ask)")

    verify = add("verify", "tell whether nodes would let this one in, and if not, why (exit code 1)",
                 "verify alpha.crt --dir mesh", verdict.verify)  # fmt: skip
    verify.add_argument("file", type=Path, metavar="FILE.crt")
    verify.add_argument("--ca", type=Path, action="append", metavar="FILE", help="default: ca.crt of the folder")
    verify.add_argument("--crl", type=Path, action="append", metavar="FILE", help="default: crl.pem of the folder")

    dh = add("dh", "write dh.pem, which nodes of 2009 need; takes no time, the group is a known one (RFC 7919)",
             "dh --dir mesh", dhparams.write)  # fmt: skip
    dh.add_argument("--bits", type=int, choices=dhparams.OFFSETS, default=2048, help="default: 2048")
    _add_force(dh)

    config = add("config", "write NAME.conf, a configuration for a node",
                 "config beta --connect alpha.example.org 15135 --address 10.77.0.2/24", nodeconf.write)  # fmt: skip
    _add_name(config)
    end: dict[str, Any] = {"nargs": 2, "action": "append", "metavar": ("HOST", "PORT"), "default": []}
    config.add_argument("--listen", **end, help="accept links here; may be given again")
    config.add_argument("--connect", **end, help="dial this node; may be given again")
    config.add_argument("--address", action="append", default=[], metavar="ADDR/LEN",
                        help="have an interface with this address; may be given again")  # fmt: skip
    config.add_argument("--key-pass-file", metavar="FILE", help="where the node finds the password of its key")
    _add_force(config)


def _add_name(command: Parser) -> None:
    command.add_argument("name", metavar="NAME", help="of the node, and of its files")


def _add_days(command: Parser, default: int | None, help: str = "") -> None:
    command.add_argument(
        "--days", type=_days, default=default, metavar="N", help=help or f"how long it is good (default: {default})"
    )


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_DAYS}, got {text[:20]!r}")
    return int(text)


def _add_key(command: Parser) -> None:
    sizes = "; ".join(f"{name} {' '.join(map(str, bits))}" for name, bits in pki.BITS.items() if bits)
    command.add_argument(
        "--type", choices=pki.BITS, default="ecdsa", help="default: ecdsa; dsa is for meshes of 2009 only"
    )
    command.add_argument("--bits", type=int, metavar="N", help=f"{sizes} (the first is the default)")
    word = command.add_mutually_exclusive_group()
    word.add_argument("--password", action="store_true", help="ask for a password for the key")
    word.add_argument("--password-file", type=Path, metavar="FILE", help="take it from this file")


def _add_ca_password(command: Parser, whose: str = "of the CA") -> None:
    command.add_argument(
        "--ca-password-file", type=Path, metavar="FILE",
        help=f"password of the key {whose} (default: ask, if it has one)",
    )  # fmt: skip


def _add_force(command: Parser) -> None:
    command.add_argument("--force", action="store_true", help="replace files that are there")
