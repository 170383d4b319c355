"""An authority of the tests and certificates by it, as PEM files: for the broker and for a client."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Certificates:
    """Paths: the authority, the broker's key with its certificate, the client's two."""

    ca: Path
    broker: Path
    client: Path
    client_key: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _signed(subject: str, key: _Key, issuer: str, by: _Key, authority: bool) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
        )
    )
    if not authority:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def make(folder: Path) -> Certificates:
    """Write them into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "broker", "client")}
    made = Certificates(*(folder / f for f in ("ca.pem", "broker.pem", "client.pem", "client.key")))
    made.ca.write_bytes(_signed("ca of the tests", keys["ca"], "ca of the tests", keys["ca"], True))
    signed = {
        name: _signed(name, keys[name], "ca of the tests", keys["ca"], False)
        for name in ("broker", "client")
    }
    made.broker.write_bytes(_pem(keys["broker"]) + signed["broker"])
    made.client.write_bytes(signed["client"])
    made.client_key.write_bytes(_pem(keys["client"]))
    return made
