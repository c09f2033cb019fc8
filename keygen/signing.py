# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommands that certify keys made before: sign, renew."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from cloudvpn import pki
from cloudvpn.keygen import keys, pem
from cloudvpn.keygen.authority import CERT, LIST, Authority, opened
from cloudvpn.keygen.files import KeygenError, NewFile, check_free, check_name, find, write_all
from cloudvpn.keygen.issuing import CA_DAYS, NODE_DAYS, refuse_namesake, remark_namesakes
from cloudvpn.log import escape
from cloudvpn.trust import common_name, describe_key


def sign(args: Namespace, now: datetime) -> None:
    """Of a request only the key and the name are taken: what it may do, the CA decides."""
    args.file = find(args.file, args.dir)
    request = pem.request(args.file)
    if not request.is_signature_valid:
        raise KeygenError(f'"{args.file}" is not signed by the key in it, it is damaged or forged')
    name, key = check_name(args.name or common_name(request.subject)), request.public_key()
    keys.check(key)
    path = args.dir / f"{name}.crt"
    with opened(args.dir, args.ca_password_file) as ca:
        check_free(args.force, path)
        if args.intermediate:
            refuse_namesake(ca, name)
        cert = ca.sign(name, key, args.days, now, is_ca=args.intermediate)
        _show(args.file, request, cert)
        remark_namesakes(ca, name)
        _confirm(args.yes)
        ca.add(cert, name, path.name)
        write_all([ca.index_file(), NewFile(path, pki.to_pem(cert, *ca.chain_for(cert)))])
    print(f"{path}: signed, serial {cert.serial_number:x}; bring it, {args.dir / CERT} and {args.dir / LIST} back")


def _show(path: Path, request: x509.CertificateSigningRequest, cert: x509.Certificate) -> None:
    wishes = ", ".join(one.oid._name for one in request.extensions) or "nothing"
    print(f'request    "{escape(str(path))}" of "{escape(request.subject.rfc4514_string())}"')
    print(f"key        {describe_key(request.public_key())}, id {keys.public_id(request.public_key())}")
    print(f"it asks    {escape(wishes)} (not copied)")
    what = "the certificate of a CA, which may let others in" if pki.is_ca(cert) else "the certificate of a node"
    print(f'it gets    {what}, "{common_name(cert.subject)}", valid to {cert.not_valid_after_utc:%Y-%m-%d}')


def _confirm(is_sure: bool) -> None:
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise KeygenError("nothing was signed: there is no terminal to ask, --yes signs without asking")
    try:
        answer = input("Sign it? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise KeygenError("nothing was signed")


def renew(args: Namespace, now: datetime) -> None:
    """The key stays, so nothing secret has to travel; the old certificate is kept under another name."""
    args.days = args.days or (CA_DAYS if args.name == "ca" else NODE_DAYS)
    with opened(args.dir, args.ca_password_file) as ca:
        path = args.dir / f"{args.name if args.name == 'ca' else check_name(args.name)}.crt"
        old = pem.certs(path)[0]
        kept = path.with_name(f"{args.name}.old-{f'{old.serial_number:x}'[:8]}.crt")
        check_free(False, kept)
        old_file = NewFile(kept, path.read_bytes())
        if args.name == "ca":
            cert = _renew_root(ca, args, now)
            files = [old_file, NewFile(path, pki.to_pem(cert))]
        else:
            cert = _renew_signed(ca, old, args, now)
            ca.set_file(old, args.name, kept.name)
            ca.add(cert, args.name, path.name)
            files = [old_file, NewFile(path, pki.to_pem(cert, *ca.chain_for(cert)))]
            if args.revoke_old:
                entry = next(one for one in ca.entries if one.serial == old.serial_number)
                ca.revoke(entry, x509.ReasonFlags.superseded, now)
                files.append(ca.list_file(ca.make_list(now)))
            files.insert(0, ca.index_file())
        write_all(files)
    print(f"{path}: renewed, valid to {cert.not_valid_after_utc:%Y-%m-%d}; the one before is {kept}")


def _renew_root(ca: Authority, args: Namespace, now: datetime) -> x509.Certificate:
    if ca.above or ca.name != ca.issuer.cert.issuer:
        raise KeygenError("the CA above renews the certificate of an intermediate CA: `renew` it there, bring it here")
    if args.revoke_old:
        raise KeygenError("no list can revoke the CA that signs it")
    end = now + timedelta(days=args.days)
    return pki.make_ca(ca.name, key=ca.issuer.key, not_before=now - pki.SKEW, not_after=end).cert


def _renew_signed(ca: Authority, old: x509.Certificate, args: Namespace, now: datetime) -> x509.Certificate:
    if not ca.owns(old):
        raise KeygenError(f'"{args.name}.crt" was not issued by this CA')
    if ca.is_revoked(old.serial_number):
        raise KeygenError(f'"{args.name}.crt" was revoked, its key may be in wrong hands: make a new one with `node`')
    keys.check(old.public_key())
    return ca.sign(old.subject, old.public_key(), args.days, now, is_ca=pki.is_ca(old))
