"""Keys and certificates, made for the test that needs them. They are valid for some days."""

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
_AUTHORITY = "test authority"


@dataclass(frozen=True)
class KafkaCertificates:
    """Paths of PEM files for mutual TLS.

    ``broker`` holds key and certificate, as Kafka's PEM key store wants it.
    """

    ca: Path
    broker: Path
    client: Path
    client_key: Path


def self_signed(
    folder: Path, name: str, host: str, password: bytes | None = None, expired: bool = False
) -> tuple[Path, Path]:
    """Write ``name``.pem, a certificate for ``host`` and 127.0.0.1 that is its own authority; one
    that is ``expired`` was valid until yesterday.

    Returns its path and that of its key, ``name``.key, which ``password`` encrypts.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    chain, private = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(_signed(host, key, host, key, hosts=(host,), authority=True, expired=expired))
    private.write_bytes(_pem(key, password))
    return chain, private


def tls_secret(folder: Path, host: str) -> None:
    """Write a certificate for ``host`` under the names that a Kubernetes secret gives its files:
    ``tls.crt``, ``tls.key`` and ``ca.crt``."""
    chain, key = self_signed(folder, "tls", host)
    (folder / "ca.crt").write_bytes(chain.read_bytes())
    chain.rename(folder / "tls.crt")
    assert key == folder / "tls.key"


class Authority:
    """An authority that signs certificates; ``ca`` is the path of its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(_signed(name, self._key, name, self._key, authority=True))

    def issue(self, name: str, host: str = "localhost") -> tuple[Path, Path]:
        """Write ``name``.pem, a certificate for ``host`` and 127.0.0.1, and ``name``.key; returns
        their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain, private = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        chain.write_bytes(_signed(name, key, self._name, self._key, hosts=(host,)))
        private.write_bytes(_pem(key))
        return chain, private


def kafka_certificates(folder: Path) -> KafkaCertificates:
    """Write an authority and what it signed for a broker and a client into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, broker, client = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    names = ("ca.pem", "broker.pem", "client.pem", "client.key")
    files = KafkaCertificates(*(folder / name for name in names))
    files.ca.write_bytes(_signed(_AUTHORITY, ca, _AUTHORITY, ca, authority=True))
    hosts = ("localhost",)
    files.broker.write_bytes(_pem(broker) + _signed("broker", broker, _AUTHORITY, ca, hosts))
    files.client.write_bytes(_signed("client", client, _AUTHORITY, ca, hosts))
    files.client_key.write_bytes(_pem(client))
    return files


def _signed(
    subject: str,
    key: _Key,
    issuer: str,
    issuer_key: _Key,
    hosts: tuple[str, ...] = (),
    authority: bool = False,
    expired: bool = False,
) -> bytes:
    """A PEM certificate of ``subject``, for ``hosts`` and 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3 * expired)
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(own, critical=False)
        .add_extension(signer, critical=False)
    )
    if hosts:
        alternatives = [
            *(x509.DNSName(host) for host in hosts),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: _Key, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
