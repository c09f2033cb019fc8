# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommands that make keys: ca, node, request."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from cloudvpn import pki
from cloudvpn.keygen import keys
from cloudvpn.keygen.authority import CERT, INDEX, KEY, LIST, Authority, opened
from cloudvpn.keygen.files import KeygenError, NewFile, check_free, check_name, locked, warn, write_all
from cloudvpn.log import escape
from cloudvpn.trust import common_name

CA_DAYS: Final = 3650
NODE_DAYS: Final = 825
ROOT_NAME: Final = "cloudvpn CA"
INTERMEDIATE_NAME: Final = "intermediate"
MAX_NAME: Final = 64  # bytes of a common name (RFC 5280, ub-common-name)


def make_ca(args: Namespace, now: datetime) -> None:
    folder: Path = args.dir
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if args.intermediate_of is not None:
        _make_intermediate(args, now)
        return
    name = args.name or ROOT_NAME
    if not name.isprintable() or len(name.encode(errors="surrogateescape")) > MAX_NAME:
        raise KeygenError(f"the name of a CA is up to {MAX_NAME} bytes of printable text")
    with locked(folder):
        _check_no_ca(args)
        key, password = keys.make(args)
        end = now + timedelta(days=args.days)
        _write_ca(folder, pki.make_ca(name, key=key, not_before=now - pki.SKEW, not_after=end), (), password, now)


def _make_intermediate(args: Namespace, now: datetime) -> None:
    name = check_name(args.name or INTERMEDIATE_NAME)
    if args.intermediate_of.resolve() == args.dir.resolve():
        raise KeygenError("an intermediate CA needs a folder of its own, give another --dir")
    with opened(args.intermediate_of, args.ca_password_file) as parent, locked(args.dir):
        copy = parent.folder / f"{name}.crt"
        _check_no_ca(args)
        check_free(args.force, copy)
        refuse_namesake(parent, name)
        key, password = keys.make(args)
        cert = parent.sign(name, key.public_key(), args.days, now, is_ca=True)
        parent.add(cert, name, copy.name)
        write_all([parent.index_file(), NewFile(copy, pki.to_pem(cert, *parent.chain_for(cert)))])
        _write_ca(args.dir, pki.Issuer(key, cert), parent.chain_for(cert), password, now)


def _check_no_ca(args: Namespace) -> None:
    check_free(args.force, *(args.dir / name for name in (KEY, CERT, LIST, INDEX)))


def _write_ca(
    folder: Path, issuer: pki.Issuer, above: Sequence[x509.Certificate], password: str | None, now: datetime
) -> None:
    ca = Authority(folder, issuer, above, [], [])
    write_all([
        ca.index_file(),
        ca.list_file(ca.make_list(now)),
        NewFile(folder / CERT, pki.to_pem(issuer.cert, *above)),
        NewFile(folder / KEY, pki.key_to_pem(issuer.key, password), is_private=True),
    ])
    name = escape(common_name(issuer.cert.subject))
    print(f'{folder / CERT}: the CA "{name}", valid to {issuer.cert.not_valid_after_utc:%Y-%m-%d}')
    print(f"bring it and {folder / LIST} to every node")
    print(f"keep {folder / KEY} here, and a copy in a safe place: whoever has it can let anybody in")


def make_node(args: Namespace, now: datetime) -> None:
    name, folder = check_name(args.name), args.dir
    key_path, cert_path = folder / f"{name}.key", folder / f"{name}.crt"
    with opened(folder, args.ca_password_file) as ca:
        check_free(args.force, key_path, cert_path)
        remark_namesakes(ca, name)
        key, password = keys.make(args)
        cert = ca.sign(name, key.public_key(), args.days, now)
        ca.add(cert, name, cert_path.name)
        # The index is first: what is signed can be revoked.
        write_all([
            ca.index_file(),
            NewFile(key_path, pki.key_to_pem(key, password), is_private=True),
            NewFile(cert_path, pki.to_pem(cert, *ca.chain_for(cert))),
        ])
    print(f"{cert_path}: valid to {cert.not_valid_after_utc:%Y-%m-%d}, serial {cert.serial_number:x}")
    print(f"bring {key_path}, {cert_path}, {folder / CERT} and {folder / LIST} to the node")


def make_request(args: Namespace, now: datetime) -> None:
    name, folder = check_name(args.name), args.dir
    key_path, request_path = folder / f"{name}.key", folder / f"{name}.csr"
    with locked(folder):
        check_free(args.force, key_path, request_path)
        key, password = keys.make(args)
        write_all([
            NewFile(key_path, pki.key_to_pem(key, password), is_private=True),
            NewFile(request_path, pki.to_pem(pki.make_request(name, key, is_ca=args.intermediate))),
        ])
    print(f"{request_path}: bring it to the CA; its key has the id {keys.public_id(key.public_key())}")
    if args.intermediate:
        print(f"when it is signed, in a folder of its own: {name}.key becomes {KEY}, {name}.crt becomes {CERT}, then "
              "`cloudvpn-keygen crl`")  # fmt: skip


def remark_namesakes(ca: Authority, name: str) -> None:
    for entry in ca.find_good(name):
        warn(f'"{name}" has another certificate that was not revoked, serial {entry.serial:x}')


def refuse_namesake(ca: Authority, name: str) -> None:
    """Revocation lists are found by the name of their CA, so two must not share one."""
    above = [common_name(cert.subject) for cert in (ca.issuer.cert, *ca.above)]
    if name in above or any(entry.is_ca for entry in ca.find_good(name)):
        raise KeygenError(f'there is a CA "{name}" already, revoke it first or choose another --name')
