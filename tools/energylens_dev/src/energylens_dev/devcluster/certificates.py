"""The cluster's own certificate authority, the certificates it signs, and the key of service account tokens.

Elliptic-curve keys (P-256): made in milliseconds, where RSA keys take a second each on a busy machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from energylens.clock import Clock

_VALID = timedelta(days=3650)
_SKEW = timedelta(hours=1)


class Authority:
    """A certificate authority whose key and certificates are files in one folder.

    Files that exist are kept, so that a kubeconfig stays valid when the cluster is started again.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Load the authority from `folder`, or make it there.

        Args:
            folder: Where the .crt and .key files are; made when missing, readable by its owner only.
            clock: Gives the validity's start.
        """
        self._folder = folder
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.certificate_file = folder / "ca.crt"
        key_file = folder / "ca.key"
        if not (self.certificate_file.exists() and key_file.exists()):
            self._create(key_file)
        self._key = _load_key(key_file)
        self._certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())

    def issue(
        self, name: str, common_name: str, *, organizations: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Return the certificate and key files of one subject, making them on first use.

        Args:
            name: File name without its ending.
            common_name: The Kubernetes user name.
            organizations: The Kubernetes groups.
            hosts: DNS names and IP addresses that a server answers under; the certificate is a client's in any case.
        """
        certificate_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        if certificate_file.exists() and key_file.exists():
            return certificate_file, key_file
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            self._builder(x509.Name(names), self._certificate.subject, key.public_key(), self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        _write_private(key_file, _key_pem(key))
        _write(certificate_file, builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return certificate_file, key_file

    def _create(self, key_file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "energylens-dev-ca")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            self._builder(name, name, key.public_key(), key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_private(key_file, _key_pem(key))
        _write(self.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        """Return what all certificates have; Python 3.13 refuses chains without the key identifiers."""
        now: datetime = self._clock.now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        )


def service_account_keys(folder: Path) -> tuple[Path, Path]:
    """Return the files of the public and the private key that sign service account tokens, making them on first use.

    Args:
        folder: An existing folder.
    """
    public_file, private_file = folder / "service-account.pub", folder / "service-account.key"
    if not (public_file.exists() and private_file.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        _write_private(private_file, _key_pem(key))
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        _write(public_file, key.public_key().public_bytes(encoding, form))
    return public_file, private_file


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is no elliptic-curve key")
    return key


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f"{path.suffix}.tmp")
    partial.write_bytes(content)
    partial.rename(path)


def _write_private(path: Path, content: bytes) -> None:
    partial = path.with_suffix(f"{path.suffix}.tmp")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    partial.rename(path)
