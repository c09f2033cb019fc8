# SPDX-License-Identifier: GPL-3.0-or-later
"""cloudvpn-keygen: what each subcommand makes, shows and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudvpn import pki
from cloudvpn.config import load_file
from cloudvpn.tls import KEYS
from tests.unit.keygen_lab import DAY, NOW, bad, cert, contents, crl, good, keygen, make_mesh, needs_openssl, openssl

SUBCOMMANDS = ["ca", "node", "request", "sign", "renew", "revoke", "crl", "list", "show", "verify", "dh", "config"]


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    return make_mesh(tmp_path / "mesh", "alpha")


def extension(one: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType:
    return one.extensions.get_extension_for_class(kind).value


# The command line


def test_help_of_the_tool_and_of_each_subcommand_has_an_example() -> None:
    assert "cloudvpn-keygen node alpha" in good("--help")
    for name in SUBCOMMANDS:
        text = good(name, "--help")
        assert f"example:\n  cloudvpn-keygen {name}" in text and "--dir" in text


@pytest.mark.parametrize(
    "words",
    [[], ["frobnicate"], ["node"], ["ca", "--days", "0"], ["ca", "--days", "36501"], ["ca", "--days", "x"],
     ["ca", "--type", "ed448"], ["dh", "--bits", "1024"], ["ca", "--password", "--password-file", "x"],
     ["node", "a", "--password=secret"], ["revoke", "a", "--reason", "certificateHold"]],
)  # fmt: skip
def test_wrong_words_are_one_line_and_exit_code_1(tmp_path: Path, words: list[str]) -> None:
    bad(*words, *(["--dir", tmp_path] if words else []))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["node", "a"], ["revoke", "a"], ["crl"], ["renew", "a"], ["list"]])
def test_without_a_ca_the_subcommands_say_so(tmp_path: Path, words: list[str]) -> None:
    assert "ca.key" in bad(*words, "--dir", tmp_path) or "ca.crt" in bad(*words, "--dir", tmp_path)
    assert "no folder" in bad("node", "a", "--dir", tmp_path / "nowhere")


def test_the_command_runs_as_a_process(tmp_path: Path) -> None:
    program = "from tests.unit import keygen_lab; from cloudvpn.keygen.cli import main; main()"
    for words, code in ((["ca"], 0), (["ca"], 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, *words, "--dir", str(tmp_path)],
            cwd=Path(__file__).parents[2], capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == code


# ca


@pytest.mark.parametrize("key_type", ["ecdsa", "ed25519", "rsa"])
def test_a_ca_is_four_files(tmp_path: Path, key_type: str) -> None:
    good("ca", "--dir", tmp_path / "new", "--name", "my mesh", "--type", key_type, "--days", 100)
    assert set(contents(tmp_path / "new")) == {"ca.key", "ca.crt", "crl.pem", "index.jsonl"}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    root = cert(tmp_path / "new/ca.crt")
    root.verify_directly_issued_by(root)
    assert pki.is_ca(root) and root.subject.rfc4514_string() == "CN=my mesh"
    assert root.not_valid_after_utc == NOW + 100 * DAY and root.not_valid_before_utc == NOW - pki.SKEW
    assert len(crl(tmp_path / "new")) == 0 and crl(tmp_path / "new").is_signature_valid(root.public_key())


@pytest.mark.parametrize(("bits", "is_good"), [(2047, False), (2048, True), (1024, False), (8193, False)])
def test_rsa_is_refused_below_2048_bits(tmp_path: Path, bits: int, is_good: bool) -> None:
    words = ("request", "a", "--dir", tmp_path, "--type", "rsa", "--bits", bits)
    if not is_good:
        assert "rsa keys have 2048 or 3072" in bad(*words)
    else:
        good(*words)
        key = load_pem_private_key((tmp_path / "a.key").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey) and key.key_size == bits


def test_bits_choose_a_curve_and_ed25519_has_none(tmp_path: Path) -> None:
    good("request", "a", "--dir", tmp_path, "--bits", 384)
    key = load_pem_private_key((tmp_path / "a.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1"
    assert "one size only" in bad("request", "b", "--dir", tmp_path, "--type", "ed25519", "--bits", 256)


def test_dsa_works_and_is_warned_of(tmp_path: Path) -> None:
    result = keygen("ca", "--dir", tmp_path, "--type", "dsa")
    assert result.code == 0 and "warning: DSA" in result.err and "--type ecdsa" in result.err
    good("node", "a", "--dir", tmp_path)
    assert "would be let in" in good("verify", "a.crt", "--dir", tmp_path)
    assert "warning: DSA" in keygen("node", "old", "--dir", tmp_path, "--type", "dsa").err
    assert (keygen("verify", "old.crt", "--dir", tmp_path).code == 0) == (dsa.DSAPrivateKey in KEYS)


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "ü" * 33])
def test_the_name_of_a_ca_is_up_to_64_printable_bytes(tmp_path: Path, name: str) -> None:
    bad("ca", "--dir", tmp_path, "--name", name)
    good("ca", "--dir", tmp_path, "--name", "ü" * 32)


# node


@pytest.mark.parametrize("key_type", ["ecdsa", "ed25519", "rsa"])
def test_a_node_gets_key_and_certificate(mesh: Path, key_type: str) -> None:
    good("node", "beta", "--dir", mesh, "--type", key_type, "--days", 9)
    key, node = load_pem_private_key((mesh / "beta.key").read_bytes(), None), cert(mesh / "beta.crt")
    assert key.public_key() == node.public_key() and not pki.is_ca(node)
    node.verify_directly_issued_by(cert(mesh / "ca.crt"))
    assert node.not_valid_after_utc == NOW + 9 * DAY
    usages = extension(node, x509.ExtendedKeyUsage)
    assert isinstance(usages, x509.ExtendedKeyUsage)
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_the_index_has_a_line_for_each_certificate(mesh: Path) -> None:
    good("node", "beta", "--dir", mesh)
    good("revoke", "beta", "--dir", mesh, "--reason", "keyCompromise")
    alpha, beta = map(json.loads, (mesh / "index.jsonl").read_text().splitlines())
    assert alpha["serial"] == f"{cert(mesh / 'alpha.crt').serial_number:x}"
    assert (alpha["name"], alpha["file"], alpha["state"]) == ("alpha", "alpha.crt", "good")
    assert (beta["state"], beta["reason"], beta["revoked"]) == ("revoked", "keyCompromise", f"{NOW:%Y-%m-%dT%H:%M:%SZ}")


def test_a_certificate_never_outlives_its_ca(tmp_path: Path) -> None:
    good("ca", "--dir", tmp_path, "--days", 10)
    result = keygen("node", "a", "--dir", tmp_path, "--days", 11)
    assert result.code == 0 and "together with the CA" in result.err
    assert cert(tmp_path / "a.crt").not_valid_after_utc == cert(tmp_path / "ca.crt").not_valid_after_utc
    assert "expired" in bad("node", "b", "--dir", tmp_path, now=NOW + 11 * DAY)


def test_a_namesake_is_remarked(mesh: Path) -> None:
    (mesh / "alpha.key").unlink()
    (mesh / "alpha.crt").unlink()
    result = keygen("node", "alpha", "--dir", mesh)
    assert result.code == 0 and "another certificate" in result.err


# request and sign


def wish(folder: Path, name: str, key: object, *extensions: x509.ExtensionType) -> Path:
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    for one in extensions:
        builder = builder.add_extension(one, critical=False)
    path = folder / "wish.csr"
    path.write_bytes(pki.to_pem(builder.sign(key, hashes.SHA256())))  # type: ignore[arg-type]
    return path


def test_a_request_of_another_machine_is_signed_after_showing_it(mesh: Path, tmp_path: Path) -> None:
    good("request", "gamma", "--dir", tmp_path)
    assert "no terminal" in bad("sign", tmp_path / "gamma.csr", "--dir", mesh)
    assert not (mesh / "gamma.crt").exists()
    out = good("sign", tmp_path / "gamma.csr", "--dir", mesh, "--yes")
    assert '"CN=gamma"' in out and "ECDSA" in out and "a node" in out
    key = load_pem_private_key((tmp_path / "gamma.key").read_bytes(), None)
    assert cert(mesh / "gamma.crt").public_key() == key.public_key()
    assert '"name": "gamma"' in (mesh / "index.jsonl").read_text()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("YES", 0), ("", 1), ("n", 1), (EOFError, 1)])
def test_signing_asks_on_a_terminal(mesh: Path, monkeypatch: pytest.MonkeyPatch, answer: object, code: int) -> None:
    def ask(prompt: str) -> str:
        if answer is EOFError:
            raise EOFError
        return str(answer)

    good("request", "gamma", "--dir", mesh)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)
    assert keygen("sign", "gamma.csr", "--dir", mesh).code == code
    assert (mesh / "gamma.crt").exists() == (code == 0)


def test_nothing_dangerous_is_copied_from_a_request(mesh: Path) -> None:
    path = wish(
        mesh, "evil", pki.make_key(), x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("bank.example")]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
    )  # fmt: skip
    assert "basicConstraints" in good("sign", path, "--dir", mesh, "--yes")
    node = cert(mesh / "evil.crt")
    assert not pki.is_ca(node)
    assert ExtendedKeyUsageOID.CODE_SIGNING not in set(extension(node, x509.ExtendedKeyUsage))  # type: ignore[call-overload]
    with pytest.raises(x509.ExtensionNotFound):
        extension(node, x509.SubjectAlternativeName)


def test_bad_requests_are_refused(mesh: Path, tmp_path: Path) -> None:
    assert "can name no files" in bad("sign", wish(tmp_path, "../evil", pki.make_key()), "--dir", mesh, "--yes")
    good("sign", tmp_path / "wish.csr", "--dir", mesh, "--yes", "--name", "tame")
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert "too weak" in bad("sign", wish(tmp_path, "weak", weak), "--dir", mesh, "--yes")
    der = bytearray(x509.load_pem_x509_csr(wish(tmp_path, "forged", pki.make_key()).read_bytes()).public_bytes(
        pki.Encoding.DER))  # fmt: skip
    der[der.index(b"forged")] ^= 1
    (tmp_path / "wish.csr").write_bytes(pki.to_pem(x509.load_der_x509_csr(bytes(der))))
    assert "damaged or forged" in bad("sign", tmp_path / "wish.csr", "--dir", mesh, "--yes")
    assert "holds no CERTIFICATE REQUEST" in bad("sign", mesh / "alpha.crt", "--dir", mesh, "--yes")
    assert "No such file" in bad("sign", tmp_path / "none.csr", "--dir", mesh, "--yes")


# renew


def test_renewing_keeps_the_key_and_the_old_certificate(mesh: Path) -> None:
    old, later = cert(mesh / "alpha.crt"), NOW + 700 * DAY
    good("renew", "alpha", "--dir", mesh, now=later)
    new = cert(mesh / "alpha.crt")
    assert new.public_key() == old.public_key() and new.serial_number != old.serial_number
    assert new.not_valid_after_utc == later + timedelta(days=825)
    kept = mesh / f"alpha.old-{f'{old.serial_number:x}'[:8]}.crt"
    assert cert(kept) == old
    good("crl", "--dir", mesh, now=later)
    for name in (kept.name, "alpha.crt"):
        assert "would be let in" in good("verify", name, "--dir", mesh, now=later)
    good("renew", "alpha", "--dir", mesh, "--revoke-old", now=later)
    assert [one.serial_number for one in crl(mesh)] == [new.serial_number]
    assert "would be let in" in good("verify", "alpha.crt", "--dir", mesh, now=later)


def test_what_is_revoked_or_foreign_is_not_renewed(mesh: Path, tmp_path: Path) -> None:
    good("revoke", "alpha", "--dir", mesh)
    assert "was revoked" in bad("renew", "alpha", "--dir", mesh)
    other = make_mesh(tmp_path / "other", "beta")
    (mesh / "beta.crt").write_bytes((other / "beta.crt").read_bytes())
    assert "not issued by this CA" in bad("renew", "beta", "--dir", mesh)
    assert "No such file" in bad("renew", "nobody", "--dir", mesh)


def test_a_root_renews_itself_and_its_nodes_stay_in(mesh: Path) -> None:
    later = NOW + 800 * DAY
    good("renew", "ca", "--dir", mesh, now=later)
    assert cert(mesh / "ca.crt").not_valid_after_utc == later + 3650 * DAY
    good("crl", "--dir", mesh, now=later)
    assert "would be let in" in good("verify", "alpha.crt", "--dir", mesh, now=later)
    assert "no list can revoke" in bad("renew", "ca", "--dir", mesh, "--revoke-old")


# list, show


def test_the_table_tells_each_state(mesh: Path) -> None:
    for name, days in (("short", 20), ("over", 5), ("out", 99)):
        good("node", name, "--dir", mesh, "--days", days)
    good("revoke", "out", "--dir", mesh)
    rows = {line.split()[0]: line for line in good("list", "--dir", mesh, now=NOW + 6 * DAY).splitlines()}
    assert " good " in rows["alpha"] and " 819 " in rows["alpha"]
    assert " expires in 14 days " in rows["short"]
    assert " expired " in rows["over"]
    assert f" revoked {NOW:%Y-%m-%d} " in rows["out"]
    assert "1 revoked, expires in 359 days" in rows["crl.pem:"]
    assert "EXPIRED" in good("list", "--dir", mesh, now=NOW + 400 * DAY)
    (mesh / "crl.pem").unlink()
    assert "missing" in good("list", "--dir", mesh)


@pytest.mark.parametrize("line", ["{", "[]", "null", '{"serial": "zz"}', "\x00"])
def test_a_damaged_index_is_named_by_its_line(mesh: Path, line: str) -> None:
    with (mesh / "index.jsonl").open("a") as file:
        file.write(line + "\n")
    assert "index.jsonl:2: " in bad("list", "--dir", mesh)
    assert "index.jsonl:2: " in bad("revoke", "alpha", "--dir", mesh)


def test_show_tells_what_a_file_is(mesh: Path) -> None:
    good("request", "gamma", "--dir", mesh)
    good("dh", "--dir", mesh)
    good("revoke", "alpha", "--dir", mesh, "--reason", "superseded")
    node = good("show", "alpha.crt", "--dir", mesh)
    assert "CN=alpha" in node and "a node" in node and "serverAuth, clientAuth" in node
    assert "a root CA" in good("show", mesh / "ca.crt")
    key, request = good("show", mesh / "gamma.key"), good("show", mesh / "gamma.csr")
    assert "private key  ECDSA" in key and "signature    good" in request
    assert next(line for line in key.splitlines() if "key id" in line) in request
    assert "superseded" in good("show", mesh / "crl.pem") and "Diffie-Hellman" in good("show", mesh / "dh.pem")
    assert "PRIVATE" not in key
    (mesh / "gamma.key").chmod(0o644)
    assert "others may read" in good("show", mesh / "gamma.key")


def test_show_survives_any_file(mesh: Path) -> None:
    whole = (mesh / "alpha.crt").read_bytes() + (mesh / "crl.pem").read_bytes() + (mesh / "alpha.key").read_bytes()
    path = mesh / "part"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        assert keygen("show", path).code in (0, 1)
    path.write_bytes(b"\xff\x00" * 99)
    assert "no PEM" in bad("show", path)
    assert "regular file" in bad("show", mesh)


# dh, config


@needs_openssl
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_dh_parameters_are_the_named_groups(tmp_path: Path, bits: int) -> None:
    good("dh", "--dir", tmp_path, "--bits", bits)
    assert f"ffdhe{bits}" in openssl("pkeyparam", "-in", tmp_path / "dh.pem", "-text", "-noout").stdout
    assert "there already" in bad("dh", "--dir", tmp_path)


def test_a_config_passes_the_check_of_the_daemon(mesh: Path) -> None:
    good("config", "alpha", "--dir", mesh, "--listen", "0.0.0.0", "15135", "--listen", "::", "15136",
         "--connect", "b.example.org", "15135", "--address", "10.77.0.1/24", "--address", "fd00::1/64")  # fmt: skip
    loaded = load_file(mesh / "alpha.conf")
    assert loaded.warnings == () and loaded.unused == ()
    config = loaded.config
    assert config.key == mesh / "alpha.key" and config.cert == mesh / "alpha.crt"
    assert config.ca == (mesh / "ca.crt",) and config.crl == (mesh / "crl.pem",)
    assert len(config.listen) == 2 and len(config.connect) == 1 and len(config.iface_address) == 2 and config.iface
    good("config", "relay", "--dir", mesh, "--listen", "::", "1")
    good("node", "relay", "--dir", mesh)
    assert not load_file(mesh / "relay.conf").config.iface


@pytest.mark.parametrize(
    "words",
    [[], ["--listen", "a b", "1"], ["--listen", "::", "99999"], ["--connect", "x", "0"], ["--address", "10.0.0.1"],
     ["--address", "10.0.0.1/24\nuser root"], ["--listen", "::", "1", "--key-pass-file", "a\nuser root"]],
)  # fmt: skip
def test_a_config_with_bad_values_is_not_written(tmp_path: Path, words: list[str]) -> None:
    bad("config", "alpha", "--dir", tmp_path, *words)
    assert not (tmp_path / "alpha.conf").exists()
