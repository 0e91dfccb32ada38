"""Makes keys and signs tokens by PyJWT, which has nothing in common with what verifies them here.

    signer.py keys DIRECTORY NAME...      a key of each name there; prints their JWK set. The name begins with its kind:
                                          rsa, small (RSA of 1024 bits), p256, p384, ed.
    signer.py token DIRECTORY NAME HEADER CLAIMS
                                          prints the claims signed with that key; HEADER has at least "alg". With the
                                          algorithm HS256 the secret is the public key, as whoever confuses the two
                                          would have it; with none there is no signature.
"""

import base64
import hashlib
import hmac
import json
import sys

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

KINDS = {
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "small": lambda: rsa.generate_private_key(65537, 1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed": ed25519.Ed25519PrivateKey.generate,
}
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def public(name, key):
    """The public key as RFC 7517 and RFC 8037 have it."""
    out = {"kid": name, "use": "sig"}
    if name.startswith(("rsa", "small")):
        numbers = key.public_key().public_numbers()
        return {**out, "kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    if name.startswith("ed"):
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {**out, "kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
    numbers, size = key.public_key().public_numbers(), key.curve.key_size // 8
    curve = {32: "P-256", 48: "P-384"}[size]
    return {**out, "kty": "EC", "crv": curve, "x": number(numbers.x, size), "y": number(numbers.y, size)}


def make(directory, names):
    keys = []
    for name in names:
        key = next(make for kind, make in KINDS.items() if name.startswith(kind))()
        with open(f"{directory}/{name}", "wb") as file:
            file.write(key.private_bytes(*PEM))
        keys.append(public(name, key))
    print(json.dumps({"keys": keys}))


def token(directory, name, header, claims):
    with open(f"{directory}/{name}", "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    if header["alg"] in ("HS256", "none"):
        said = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        secret = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        signature = hmac.digest(secret, said.encode(), hashlib.sha256) if header["alg"] == "HS256" else b""
        return f"{said}.{b64(signature)}"
    return jwt.encode(claims, key, algorithm=header["alg"], headers=header)


if sys.argv[1] == "keys":
    make(sys.argv[2], sys.argv[3:])
else:
    print(token(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), json.loads(sys.argv[5])), end="")
