# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may join and who may not, as far as files tell: a table for the tests of nodes, of the tool and of OpenSSL."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudvpn.pki import Issuer, certify, issue, make_ca, make_crl, make_key, write_cert, write_key

NOW: Final = datetime.now(timezone.utc).replace(microsecond=0)
DAY: Final = timedelta(days=1)
CRL = x509.CertificateRevocationList
Identity = tuple[Any, x509.Certificate]  # key and certificate
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
NETSCAPE_TYPE: Final = x509.ObjectIdentifier("2.16.840.1.113730.1.1")

CA, OTHER, RSA_CA = make_ca("CA"), make_ca("Other CA"), make_ca("RSA CA", key_type="rsa")
SUB = Issuer(*issue(CA, "Sub CA", is_ca=True))
RSA_SUB = Issuer(*issue(RSA_CA, "RSA Sub", is_ca=True))
LIST, SUB_LIST = make_crl(CA), make_crl(SUB)
OLD: Final[dict[str, Any]] = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}


@dataclass(frozen=True)
class Case:
    """A node that shows `identity` and `above` to one that loads `cas` and `crls`."""

    name: str
    identity: Identity
    reason: str = ""  # pattern: why the verifier refuses; "": it does not
    above: Sequence[x509.Certificate] = ()
    cas: Sequence[x509.Certificate] = (CA.cert,)
    crls: Sequence[CRL] = (LIST,)
    early: str = ""  # pattern: why the handshake fails already; "": it does not
    openssl: str = ""  # if `openssl verify` says otherwise: why we do
    crl_required: bool = False
    is_loadable: bool = True  # False: the files of the CA or its lists are refused
    is_playable: bool = True  # False: OpenSSL would not show such a certificate
    now: datetime = NOW

    def write(self, folder: Path) -> dict[str, Path]:
        paths = {name: folder / name for name in ("key", "cert", "ca", "crl")}
        write_key(paths["key"], self.identity[0])
        write_cert(paths["cert"], self.identity[1], *self.above)
        write_cert(paths["ca"], *self.cas)
        write_cert(paths["crl"], *self.crls)
        return paths


def name_of(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def craft(
    signer: Issuer | None, name: str, *extensions: tuple[x509.ExtensionType, bool], key: Any = None, issuer: str = ""
) -> Identity:
    """A certificate with these extensions only, each with its mark of being critical; without `signer` self-signed."""
    key = key or make_key()
    above = signer.cert.subject if signer else name_of(name)
    builder = (
        x509.CertificateBuilder().subject_name(name_of(name)).issuer_name(name_of(issuer) if issuer else above)
        .serial_number(x509.random_serial_number()).public_key(key.public_key())
        .not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    )  # fmt: skip
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return key, builder.sign(signer.key if signer else key, hashes.SHA256())


def craft_ca(signer: Issuer | None, name: str, *extensions: tuple[x509.ExtensionType, bool], **how: Any) -> Issuer:
    return Issuer(*craft(signer, name, (x509.BasicConstraints(ca=True, path_length=None), True), *extensions, **how))


def sign_with_sha1(cert: x509.Certificate, signer: Issuer) -> x509.Certificate:
    """The same, signed as in 2009 with an RSA key (PKCS #1), for `cryptography` does so no more."""
    oid, old_oid = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))
    digest = hashlib.sha1(cert.tbs_certificate_bytes.replace(oid, old_oid)).digest()
    block = bytes.fromhex("3021300906052b0e03021a05000414") + digest
    numbers = signer.key.private_numbers()  # type: ignore[union-attr]
    size = len(cert.signature)
    padded = b"\0\1" + b"\xff" * (size - 3 - len(block)) + b"\0" + block
    signature = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n)  # type: ignore[union-attr]
    der = cert.public_bytes(Encoding.DER)[:-size].replace(oid, old_oid) + signature.to_bytes(size, "big")
    return x509.load_der_x509_certificate(der)


def usage(*bits: str) -> tuple[x509.ExtensionType, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: name in bits for name in names}), True


def damage(cert: x509.Certificate) -> x509.Certificate:
    """The same with one bit of the signature turned."""
    der = bytearray(cert.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))


def stranger_cases() -> list[Case]:
    fake, plain, bare = make_ca("CA"), issue(CA, "plain"), craft(None, "self")
    cut = "is not signed by a CA that is loaded"
    early, wrong = "its certificate is not signed by a CA we load: ", "its certificate is not "
    meant = x509.AuthorityKeyIdentifier(b"\1" * 20, None, None)
    old_serial = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(CA.cert.subject)], CA.cert.serial_number + 1)
    return [
        Case("a node of another CA", issue(OTHER, "x"), cut, early=early),
        Case("a node of another CA, shown with it", issue(OTHER, "x"), cut, [OTHER.cert], early=early),
        Case("a node of a namesake of the CA", issue(fake, "x"), cut, early=wrong),
        Case("a node of a namesake, shown with it", issue(fake, "x"), cut, [fake.cert], early=wrong),
        Case("a self-signed node", bare, cut, early=early),
        Case("a chain without its intermediate", issue(SUB, "x"), cut, early=early),
        Case("a chain with another intermediate", issue(SUB, "x"), cut, [Issuer(*issue(CA, "Else", is_ca=True)).cert],
             early=early),
        Case("a signature that was damaged", (plain[0], damage(plain[1])), cut,
             early="its certificate is not good: certificate signature failure"),
        Case("another issuer's name", craft(CA, "x", issuer="Nobody"), cut, early=early),
        Case("the identifier of another key of the CA", craft(CA, "x", (meant, False)), cut, early=early),
        Case("the serial number of another certificate of the CA", craft(CA, "x", (old_serial, False)), cut,
             early=early),
    ]  # fmt: skip


def date_cases() -> list[Case]:
    old_sub, old_ca = Issuer(*issue(CA, "Old Sub", is_ca=True, **OLD)), make_ca("Old CA", **OLD)
    leaf = issue(CA, "x", days=9)
    return [
        Case("an expired node", issue(CA, "x", **OLD), "it expired on"),
        Case("a node that is not valid yet", issue(CA, "x", not_before=NOW + DAY), "it is not valid before"),
        Case("an expired intermediate", issue(old_sub, "x"), r'its CA "Old Sub" \(.*it expired on', [old_sub.cert]),
        Case("an expired root", issue(old_ca, "x"), r'its CA "Old CA" \(.*it expired on', cas=[CA.cert, old_ca.cert]),
        Case("a second after the end of a node", leaf, "it expired on",
             now=leaf[1].not_valid_after_utc + timedelta(seconds=1), is_playable=False),
    ]  # fmt: skip


def list_cases() -> list[Case]:
    node, sub_node = issue(CA, "fallen"), issue(SUB, "sub node")
    stale = make_crl(CA, last_update=NOW - 9 * DAY, next_update=NOW - DAY)
    mute = craft_ca(CA, "Mute CA", usage("key_cert_sign"))
    builder = x509.CertificateRevocationListBuilder().issuer_name(CA.cert.subject).last_update(NOW - DAY)
    delta = builder.next_update(NOW + DAY).add_extension(x509.DeltaCRLIndicator(1), critical=True)
    unsigned = 'crl: cannot use .*no CA of the ca files signed its list of "{}"'
    return [
        Case("a revoked node", node, "it was revoked on", crls=[make_crl(CA, [node[1].serial_number])]),
        Case("a node that its intermediate revoked", sub_node, "it was revoked on", [SUB.cert], [CA.cert, SUB.cert],
             [LIST, make_crl(SUB, [sub_node[1].serial_number])]),
        Case("a revoked intermediate", sub_node, r'its CA "Sub CA" \(.*it was revoked on', [SUB.cert],
             [CA.cert, SUB.cert], [make_crl(CA, [SUB.cert.serial_number]), SUB_LIST]),
        Case("a revoked intermediate that has no list", sub_node, r'its CA "Sub CA" \(.*it was revoked on', [SUB.cert],
             crls=[make_crl(CA, [SUB.cert.serial_number])],
             openssl="every list counts that is there, `-crl_check` looks at the node only"),
        Case("an expired list", node, 'it may be revoked: the CRL of "CA" expired on', crls=[stale]),
        Case("an expired list of the root above", sub_node, 'may be revoked: the CRL of "CA" expired', [SUB.cert],
             [CA.cert, SUB.cert], [stale, SUB_LIST]),
        Case("no list of the intermediate where one is required", sub_node, 'no CRL of "Sub CA" is loaded', [SUB.cert],
             crl_required=True),
        Case("no list where one is required", issue(OTHER, "x"), 'ca: "Other CA" has no CRL and crl_required is set',
             cas=[CA.cert, OTHER.cert], crl_required=True, is_loadable=False),
        Case("a list that another CA signed", node, unsigned.format("Other CA"), crls=[make_crl(OTHER)],
             is_loadable=False),
        Case("a list that a namesake signed", node, unsigned.format("CA"), crls=[make_crl(make_ca("CA"))],
             is_loadable=False),
        Case("a list of a CA that may not sign lists", issue(mute, "x"), unsigned.format("Mute CA"),
             cas=[CA.cert, mute.cert], crls=[LIST, make_crl(mute)], is_loadable=False),
        Case("a list of changes only", node, "is a partial one", crls=[delta.sign(CA.key, hashes.SHA256())],
             is_loadable=False),
    ]  # fmt: skip


def usage_cases() -> list[Case]:
    half, halves = "its extended key usage does not let a node {}", "its certificate is not good: "
    served = craft_ca(CA, "Serving CA", (x509.ExtendedKeyUsage([SERVER]), False))
    server_type = (x509.UnrecognizedExtension(NETSCAPE_TYPE, b"\x03\x02\x06\x40"), False)
    unfit = f"{halves}its extended key usage does not fit"
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")
    bound = x509.NameConstraints([x509.DNSName("example.org")], None)
    narrow = craft_ca(CA, "Narrow CA", (bound, True))
    return [
        Case("a key for agreement only", issue(CA, "x", key_type="rsa", can_sign=False),
             "its key usage lacks digitalSignature", openssl="TLS with forward secrecy needs signatures"),
        Case("may accept but not dial", issue(CA, "x", extended_usages=[SERVER]), half.format("dial"),
             early=f"{unfit}|{half.format('dial')}"),
        Case("may dial but not accept", issue(CA, "x", extended_usages=[CLIENT]), half.format("accept links"),
             early=f"{unfit}|{half.format('accept links')}"),
        Case("may sign code", issue(CA, "x", extended_usages=[ExtendedKeyUsageOID.CODE_SIGNING]),
             half.format("accept links or dial"), early=unfit),
        Case("may do anything but TLS by name", issue(CA, "x", extended_usages=[
            ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), half.format("accept links or dial"), early=unfit),
        Case("a CA for servers only", issue(served, "x"), f'its CA "Serving CA" .*{half.format("dial")}', [served.cert],
             early=f"{halves}|{half.format('dial')}"),
        Case("a server by its Netscape type", craft(CA, "x", server_type), "its Netscape certificate type",
             early=f"{unfit}|its Netscape certificate type"),
        Case("an unknown extension that is critical", craft(CA, "x", (unknown, True)), "1.2.3.4 is critical",
             early=f"{halves}unhandled critical extension"),
        Case("a CA bound to names", craft(narrow, "x"), r'its CA "Narrow CA" .*nameConstraints is critical',
             [narrow.cert], openssl="nodes go by no host names, so the bounds could not be heeded"),
    ]  # fmt: skip


def authority_cases() -> list[Case]:
    no_ca = "it is the certificate of a CA, not of a node"
    node = Issuer(*issue(CA, "node"))
    mute = craft_ca(CA, "Mute CA", usage("crl_sign"))
    plain = Issuer(*craft(CA, "Plain CA"))
    short = make_ca("Short CA")
    short = Issuer(short.key, certify(short, "Short CA", short.key.public_key(), is_ca=True, path_length=0))
    middle = Issuer(*issue(short, "Middle CA", is_ca=True))
    own, lone = craft_ca(None, "Self CA"), craft(None, "lone")
    ancient = Issuer(*craft(None, "Ancient CA", usage("key_cert_sign")))
    key, any_use = craft(CA, "x", (x509.BasicConstraints(ca=True, path_length=None), True))
    not_good = "its certificate is not good: "
    invalid = f"{not_good}invalid CA certificate"
    return [
        Case("the root as a node", (CA.key, CA.cert), no_ca, early=f"{not_good}|the peer "),
        Case("an intermediate as a node", (SUB.key, SUB.cert), no_ca, early=f"{not_good}|the peer "),
        Case("a CA without key usage as a node", (key, any_use), no_ca, openssl="a CA's key belongs on no node"),
        Case("a self-signed CA that is loaded, as a node", (own.key, own.cert), no_ca, cas=[CA.cert, own.cert],
             openssl="a CA's key belongs on no node"),
        Case("a node of a node", issue(node, "x"), 'its CA "node" .*it is not a CA', [node.cert], early=invalid),
        Case("a CA that may not sign", issue(mute, "x"), 'its CA "Mute CA" .*it is not a CA', [mute.cert],
             early=invalid),
        Case("a CA that does not say so", issue(plain, "x"), 'its CA "Plain CA" .*it is not a CA', [plain.cert],
             early=invalid),
        Case("a root without basicConstraints", issue(ancient, "x"), '"Ancient CA" .* is not a CA', is_loadable=False,
             cas=[CA.cert, ancient.cert], crls=[], openssl="without it no CA can be told from a node"),
        Case("a self-signed node that is loaded as a CA", lone, '"lone" .* is not a CA', is_loadable=False,
             cas=[CA.cert, lone[1]], crls=[], openssl="who may join is decided by CAs, which can revoke"),
        Case("too many CAs below one", issue(middle, "x"), 'its CA "Short CA" .*it may have 0 CAs below it',
             [middle.cert], [CA.cert, short.cert], early=f"{not_good}there are more CAs"),
    ]  # fmt: skip


def strength_cases() -> list[Case]:
    short = rsa.generate_private_key(65537, 1024)
    sub = craft_ca(RSA_CA, "Old Sub")
    old_sub = Issuer(sub.key, sign_with_sha1(sub.cert, RSA_CA))
    key, node = craft(RSA_CA, "x")
    weak_sub, weak_root = craft_ca(CA, "Weak CA", key=short), craft_ca(None, "Weak Root", key=short)
    not_good, too_weak = "its certificate is not good: ", "too weak"
    weak_ca = f"{not_good}the key of a CA in its chain is {too_weak}"
    curves: list[ec.EllipticCurve] = [ec.SECP224R1(), ec.SECP256K1()]
    return [
        Case("SHA-1", (key, sign_with_sha1(node, RSA_CA)), "it is signed with SHA1, which is too weak",
             cas=[CA.cert, RSA_CA.cert], early=f"{not_good}.*digest that is {too_weak}"),
        Case("SHA-1 of an intermediate", issue(old_sub, "x"), 'its CA "Old Sub" .*it is signed with SHA1',
             [old_sub.cert], [CA.cert, RSA_CA.cert], early=f"{not_good}.*digest that is {too_weak}"),
        Case("SHA-1 of an intermediate that is loaded", issue(old_sub, "x"),
             'its CA "Old Sub" .*it is signed with SHA1', cas=[CA.cert, RSA_CA.cert, old_sub.cert]),
        Case("SHA-1 of an intermediate that is loaded without its root", issue(old_sub, "x"),
             'its CA "Old Sub" .*it is signed with SHA1', cas=[CA.cert, old_sub.cert],
             openssl="a node of it could not show its chain: OpenSSL refuses to send it"),
        Case("RSA 1024", craft(CA, "x", key=short), r"its key \(RSA 1024\) is too weak",
             early=f"{not_good}its key is {too_weak}"),
        Case("RSA 1024 of an intermediate", issue(weak_sub, "x"), r'its CA "Weak CA" .*its key \(RSA 1024\)',
             [weak_sub.cert], early=weak_ca),
        Case("RSA 1024 of a root", issue(weak_root, "x"), r'its CA "Weak Root" .*its key \(RSA 1024\)',
             cas=[CA.cert, weak_root.cert], early=weak_ca),
        Case("DSA 1024", craft(CA, "x", key=dsa.generate_private_key(1024)), r"its key \(DSA 1024\) is too weak",
             is_playable=False),
        Case("192 bits", craft(CA, "x", key=ec.generate_private_key(ec.SECP192R1())),
             r"its key \(ECDSA secp192r1\) is too weak", is_playable=False),
        *(Case(f"the curve {curve.name}", craft(CA, "x", key=ec.generate_private_key(curve)),
               rf"its key \(ECDSA {curve.name}\) is too weak or of a kind that TLS does not take", is_playable=False,
               openssl="TLS 1.3 has no signatures on it, and TLS 1.2 does not offer it")
          for curve in curves),
    ]  # fmt: skip


def good_cases() -> list[Case]:
    renewed_from = make_ca("CA", key=CA.key, **OLD).cert
    ed25519 = make_ca("ed25519 CA", key_type="ed25519")
    leaf = issue(CA, "x", days=9)
    return [
        Case("an ecdsa node", issue(CA, "x")),
        Case("an rsa node", issue(CA, "x", key_type="rsa")),
        Case("an ed25519 node", issue(CA, "x", key_type="ed25519")),
        Case("an rsa node of an rsa CA", issue(RSA_CA, "x", key_type="rsa"), cas=[CA.cert, RSA_CA.cert]),
        Case("an ed25519 node of an ed25519 CA", issue(ed25519, "x", key_type="ed25519"),
             cas=[CA.cert, ed25519.cert]),
        Case("a P-521 node", craft(CA, "x", key=make_key("ecdsa", 521))),
        Case("a chain", issue(SUB, "x"), "", [SUB.cert], [CA.cert, SUB.cert], [LIST, SUB_LIST]),
        Case("an intermediate that is loaded without its root", issue(RSA_SUB, "x"), cas=[CA.cert, RSA_SUB.cert]),
        Case("a chain whose intermediate is shown only", issue(SUB, "x"), above=[SUB.cert]),
        Case("a chain whose intermediate is loaded only", issue(SUB, "x"), cas=[CA.cert, SUB.cert]),
        Case("a node of the other of two CAs", issue(OTHER, "x"), cas=[CA.cert, OTHER.cert], crls=[LIST]),
        Case("no extended key usage", issue(CA, "x", extended_usages=None)),
        Case("no extension at all", craft(CA, "x")),
        Case("a renewed CA beside its old certificate", issue(CA, "x"), cas=[renewed_from, CA.cert]),
        Case("no list", issue(CA, "x"), crls=[]),
        Case("the last second of a node", leaf, now=leaf[1].not_valid_after_utc, is_playable=False,
             openssl="RFC 5280 counts the last second in"),
        Case("a list that is not valid yet", issue(CA, "x"), crls=[make_crl(CA, last_update=NOW + DAY)],
             openssl="a CA's clock that is ahead must not cut off its mesh"),
    ]  # fmt: skip


GOOD: Final = good_cases()
BAD: Final = [
    case for cases in (stranger_cases, date_cases, list_cases, usage_cases, authority_cases, strength_cases)
    for case in cases()
]  # fmt: skip
