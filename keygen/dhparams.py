# SPDX-License-Identifier: GPL-3.0-or-later
"""The subcommand dh: Diffie-Hellman parameters, which nodes of 2009 want as a file.

They are the named groups of RFC 7919, appendix A: safe primes that everybody may use and that need no search. Built
here, because `cryptography` gives up finite-field Diffie-Hellman from its version 50 on.
"""

from __future__ import annotations

import base64
import textwrap
from argparse import Namespace
from datetime import datetime
from typing import Final

from cloudvpn.keygen.files import NewFile, check_free, locked, write_all

GENERATOR: Final = 2
# p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1: the X of ffdhe2048, ffdhe3072 and ffdhe4096
OFFSETS: Final = {2048: 560316, 3072: 2625351, 4096: 5736041}


def write(args: Namespace, now: datetime) -> None:
    path = args.dir / "dh.pem"
    with locked(args.dir):
        check_free(args.force, path)
        write_all([NewFile(path, to_pem(make_prime(args.bits)))])
    print(f"{path}: the group ffdhe{args.bits} of RFC 7919; nothing in it is secret")


def make_prime(bits: int) -> int:
    guard = 64  # bits, more than the rounding of some hundred terms can touch
    e, term, number = 0, 1 << (bits - 130 + guard), 1
    while term:
        e += term
        term //= number
        number += 1
    return (1 << bits) - (1 << (bits - 64)) + (((e >> guard) + OFFSETS[bits]) << 64) - 1


def to_pem(prime: int) -> bytes:
    """DHParameter of PKCS #3: a sequence of two integers."""
    data = base64.b64encode(_der(0x30, _der_integer(prime) + _der_integer(GENERATOR))).decode()
    lines = "\n".join(textwrap.wrap(data, 64))
    return f"-----BEGIN DH PARAMETERS-----\n{lines}\n-----END DH PARAMETERS-----\n".encode()


def _der_integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))  # the first bit is the sign


def _der(tag: int, body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body
