"""Who signed a certificate is checked before anything of it is read or run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from marks import needs_backend
from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance import certificate as certificates
from triptych.conformance import signature, verification
from triptych.utils.errors import TriptychError

pytest.importorskip("cryptography", reason="cryptography is not installed: pip install 'triptych[sign]'")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

PRIVATE, PUBLIC = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
PEM = serialization.Encoding.PEM


def private(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, PRIVATE, locked)


@pytest.fixture
def keys(here: Path) -> Path:
    """A folder with two pairs of keys, and one of another kind."""
    for name in ("mine", "another"):
        key = ed25519.Ed25519PrivateKey.generate()
        (here / f"{name}.pem").write_bytes(private(key))
        (here / f"{name}.pub").write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    curve = ec.generate_private_key(ec.SECP256R1())
    (here / "curve.pem").write_bytes(private(curve))
    (here / "curve.pub").write_bytes(curve.public_key().public_bytes(PEM, PUBLIC))
    (here / "locked.pem").write_bytes(private(ed25519.Ed25519PrivateKey.generate(), b"word"))
    (here / "empty").touch()
    return here


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate without a signature."""
    file = tmp_path_factory.mktemp("made") / "lenet.json"
    names = ("--arch", "lenet", "--backends", registry.installed()[0], "--precision", "fp64")
    with pytest.raises(SystemExit, match="0"):
        main(["conform", *names, "--certificate", str(file)])
    return file


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(str(stopped.value.code))


@needs_backend
def test_a_signed_certificate_is_verified(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("--arch", "lenet", "--backends", registry.installed()[0], "--precision", "fp64")
    assert run("conform", *names, "--certificate", "c.json", "--sign", "mine.pem") == 0
    assert run("verify", "c.json", "--signed-by", "mine.pub") == 0
    assert "verified: lenet" in capsys.readouterr().out


CHANGED = {
    "another key": (lambda here: None, "another.pub"),
    "a byte of the certificate": (lambda here: flip(here / "c.json"), "mine.pub"),
    "a byte of the signature": (lambda here: flip(here / "c.json.sig"), "mine.pub"),
    "a short signature": (lambda here: (here / "c.json.sig").write_bytes(b"x" * 63), "mine.pub"),
    "no certificate at all": (lambda here: (here / "c.json").write_text("[" * 100_000), "mine.pub"),
    "a digest made anew": (lambda here: forge(here / "c.json"), "mine.pub"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def forge(path: Path) -> None:
    from triptych.conformance import certificate
    from triptych.spec import records

    value = json.loads(path.read_text())
    value["created"] = "2020-02-02T02:02:02Z"
    forged = records.decode(value, certificate.Certificate)
    value["digest"] = certificate.own_digest(forged)
    path.write_text(json.dumps(value))


@needs_backend
@pytest.mark.parametrize("what", CHANGED)
def test_what_another_signed_or_wrote_is_refused_and_not_run(what, keys, certified, monkeypatch, capsys) -> None:
    shutil.copy(certified, keys / "c.json")
    signature.sign((keys / "c.json").read_bytes(), keys / "c.json", signature.private_key(keys / "mine.pem"))
    change, key = CHANGED[what]
    change(keys)
    monkeypatch.setattr(verification, "verify", lambda _: pytest.fail("it was run"))
    assert run("verify", "c.json", "--signed-by", key) == 1
    assert "refused: c.json is not what the holder of the key signed in c.json.sig; nothing was run" in (
        capsys.readouterr().out
    )


@needs_backend
def test_what_is_verified_is_what_was_signed(keys: Path, certified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody changes the file as soon as its signature is checked."""
    shutil.copy(certified, keys / "c.json")
    signature.sign((keys / "c.json").read_bytes(), keys / "c.json", signature.private_key(keys / "mine.pem"))
    check, verified = signature.check, []

    def checked(content: bytes, file: Path, key: ed25519.Ed25519PublicKey) -> None:
        check(content, file, key)
        forge(file)

    monkeypatch.setattr(signature, "check", checked)
    monkeypatch.setattr(verification, "verify", lambda of: verified.append(of.created) or verification.Verification())
    run("verify", "c.json", "--signed-by", "mine.pub")
    assert verified == [json.loads(certified.read_text())["created"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["conform", "--sign", "mine.pem"], "give --certificate FILE too"),
        (["conform", "--certificate", "c.json", "--sign", "nothing"], "--sign nothing cannot be read"),
        (["conform", "--certificate", "c.json", "--sign", "empty"], "no key that can be used"),
        (["conform", "--certificate", "c.json", "--sign", "mine.pub"], "no key that can be used"),
        (["conform", "--certificate", "c.json", "--sign", "locked.pem"], "no key that can be used"),
        (["conform", "--certificate", "c.json", "--sign", "curve.pem"], "is no Ed25519 key; make one with: openssl"),
        (["verify", "empty", "--signed-by", "nothing"], "--signed-by nothing cannot be read"),
        (["verify", "empty", "--signed-by", "mine.pem"], "give the public one, made with: openssl pkey"),
        (["verify", "empty", "--signed-by", "curve.pub"], "is no Ed25519 key"),
        (["verify", "empty", "--signed-by", "mine.pub"], "the signature empty.sig cannot be read"),
    ],
)
@pytest.mark.usefixtures("keys")
def test_what_is_no_key_is_said_before_the_work(arguments, message, monkeypatch, capsys) -> None:
    monkeypatch.setattr("triptych.conformance.suite.run", lambda *_, **__: pytest.fail("the work was begun"))
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_signature_file_that_is_too_long_is_refused(keys: Path) -> None:
    (keys / "c.json").write_text("{}")
    (keys / "c.json.sig").write_bytes(bytes(65))
    with pytest.raises(TriptychError, match="more than the 64 bytes"):
        signature.check(b"{}", keys / "c.json", signature.public_key(keys / "mine.pub"))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_makes_the_keys_and_checks_the_signature(here: Path) -> None:
    def openssl(*arguments: str) -> str:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub")
    (here / "c.json").write_text("{}")
    signature.sign(b"{}", here / "c.json", signature.private_key(here / "key.pem"))
    signature.check(b"{}", here / "c.json", signature.public_key(here / "key.pub"))
    checked = ("pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "c.json", "-sigfile", "c.json.sig")
    assert "Verified Successfully" in openssl(*checked)


@needs_backend
def test_what_is_signed_is_what_was_written_and_not_what_lies_there_by_then(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = certificates.write

    def replaced(path: Path, made: certificates.Certificate) -> bytes:
        content = write(path, made)
        path.write_text("another's")
        return content

    monkeypatch.setattr(certificates, "write", replaced)
    names = ("--arch", "lenet", "--backends", registry.installed()[0], "--precision", "fp64")
    assert run("conform", *names, "--certificate", "d.json", "--sign", "mine.pem") == 0
    with pytest.raises(signature.SignatureError):
        signature.check((keys / "d.json").read_bytes(), keys / "d.json", signature.public_key(keys / "mine.pub"))
