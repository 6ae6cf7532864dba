"""Who says so: an Ed25519 signature beside a certificate, made and checked by the package `cryptography`.

The signature of FILE is `FILE.sig`: the 64 bytes of Ed25519 (RFC 8032) over the file as it is, which OpenSSL makes and
checks too. Keys are OpenSSL's PEM files: `openssl genpkey -algorithm ed25519 -out KEY` and
`openssl pkey -in KEY -pubout -out KEY.pub`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import told, write_atomically
from triptych.utils.reading import read_bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

BYTES = 64
MOST_KEY = 1 << 16  # bytes of a key's file
_MAKE = "openssl genpkey -algorithm ed25519 -out KEY"
_PUBLIC = "openssl pkey -in KEY -pubout -out KEY.pub"


class SignatureError(TriptychError):
    """The file is not what the holder of the key signed."""


def beside(file: Path) -> Path:
    """Where the signature of a file lies."""
    return file.with_name(f"{file.name}.sig")


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key to sign with. Raises TriptychError for a file that is no private Ed25519 key in PEM, or needs a
    password."""
    require_package("cryptography", "sign", "--sign")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as Kind
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    way_out = f"make one with: {_MAKE}"
    key = _loaded(path, lambda content: load_pem_private_key(content, None), f"--sign {path}", way_out)
    if not isinstance(key, Kind):
        raise TriptychError(f"--sign {path} is no Ed25519 key; {way_out}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The key to check with. Raises TriptychError for a file that is no public Ed25519 key in PEM."""
    require_package("cryptography", "sign", "--signed-by")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as Kind
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    way_out = f"give the public one, made with: {_PUBLIC}"
    key = _loaded(path, load_pem_public_key, f"--signed-by {path}", way_out)
    if not isinstance(key, Kind):
        raise TriptychError(f"--signed-by {path} is no Ed25519 key; {way_out}")
    return key


def sign(content: bytes, file: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of `content`, which was written to `file`, beside it; where. The file is not read again: it
    may be another's by now."""
    with told(f"{beside(file)} cannot be written"):
        write_atomically(beside(file), key.sign(content))
    return beside(file)


def check(content: bytes, file: Path, key: Ed25519PublicKey) -> None:
    """Raises SignatureError unless `content`, which was read from `file`, is what the holder of the key signed; and
    TriptychError if the signature cannot be read."""
    from cryptography.exceptions import InvalidSignature

    with told(f"the signature {beside(file)} cannot be read"):
        signature = read_bounded(beside(file), BYTES)
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise SignatureError(f"{file} is not what the holder of the key signed in {beside(file)}") from None


def _loaded(path: Path, load: Callable[[bytes], Any], what: str, way_out: str) -> Any:
    with told(f"{what} cannot be read"):
        content = read_bounded(path, MOST_KEY)
    try:
        return load(content)
    except Exception as error:  # of the library's own kinds, ValueError and TypeError among them
        reason = " ".join(str(error).split())[:120]
        raise TriptychError(f"{what} is no key that can be used ({reason}); {way_out}") from None
