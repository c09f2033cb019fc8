# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommand verify: would nodes let the owner of this certificate in? It is the daemon's verifier that decides."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import dsa

from cloudvpn.keygen import keys, pem
from cloudvpn.keygen.authority import CERT, LIST
from cloudvpn.keygen.files import KeygenError, find, warn
from cloudvpn.keygen.revoking import days_left
from cloudvpn.log import escape
from cloudvpn.trust import Refused, common_name, identify, load_trust


def verify(args: Namespace, now: datetime) -> None:
    leaf, *others = pem.certs(find(args.file, args.dir))
    folder_list = args.dir / LIST
    trust = load_trust(args.ca or [args.dir / CERT], args.crl or ([folder_list] if folder_list.exists() else []))
    try:
        chain = trust.follow(leaf, others, now)
    except Refused as refused:
        raise KeygenError(f"{args.file}: would be refused: {refused}") from None
    if isinstance(leaf.public_key(), dsa.DSAPublicKey):
        keys.warn_of_dsa()
    for cert in chain[1:]:
        if all(one.issuer != cert.subject for one in trust.lists):
            warn(f'no revocation list of "{common_name(cert.subject)}": it cannot be told whom it revoked')
    end = min(cert.not_valid_after_utc for cert in chain)
    print(f"{escape(str(args.file))}: would be let in, for {days_left(end, now)} days: {identify(leaf)}")
