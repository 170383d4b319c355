"""The cluster's certificate authority, and the certificates that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 30
"""A cluster does not live that long."""


def write_key(path: Path) -> rsa.RSAPrivateKey:
    """A new RSA key, kept at ``path`` for its owner alone, and its public half beside it (``.pub``)."""
    key = rsa.generate_private_key(65537, 2048)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    path.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return key


class Authority:
    """Signs certificates for one cluster.

    Args:
        folder: Where ``ca.crt``, ``ca.key`` and everything that is signed are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = write_key(folder / "ca.key")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "understudy-cluster")])
        certificate = (
            self._started(self._name, self._key)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._write("ca", certificate)

    @staticmethod
    def _started(name: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
        )

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        encoded = certificate.public_bytes(serialization.Encoding.PEM)
        (self.folder / f"{name}.crt").write_bytes(encoded)

    def sign(self, name: str, *others: str, group: str = "") -> None:
        """Write ``NAME.crt`` and ``NAME.key`` for a server or client.

        Args:
            name: Its common name.
            others: Host names and addresses that a server is reached by.
            group: The group of a client in Kubernetes; empty for none.
        """
        key = write_key(self.folder / f"{name}.key")
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        subject = x509.Name(parts)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names: list[x509.GeneralName] = []
        for other in others:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(other)))
            except ValueError:
                names.append(x509.DNSName(other))
        certificate = (
            self._started(subject, key)
            .issuer_name(self._name)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._write(name, certificate)
