"""Certificates of our own: an authority and a leaf in one Secret, renewed with overlap, so that no call fails.

A new authority is published in the webhook configurations before any leaf of its is served, and the old one stays there
until it ends.
"""

import base64
import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, LEAF_DAYS = 365, 90
RENEW_AT = 2 / 3
"""Of its life."""
OVERLAP = datetime.timedelta(seconds=90)
"""From the making of a new authority to its first leaf: API servers have heard of it by then."""
_BACKDATED = datetime.timedelta(minutes=15)
"""Clocks differ."""

CA, CA_KEY, TLS, TLS_KEY, NEXT_CA, NEXT_CA_KEY, PREVIOUS_CA = (
    "ca.crt", "ca.key", "tls.crt", "tls.key", "next-ca.crt", "next-ca.key", "previous-ca.crt",
)  # fmt: skip
Files = Mapping[str, bytes]
"""What the Secret holds, by name."""


class UnusableError(ValueError):
    """What the Secret holds is no pair that could be served."""


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )  # fmt: skip


def renewed(
    files: Files | None, hosts: Sequence[str], now: datetime.datetime, published: datetime.timedelta = datetime.timedelta(0)
) -> dict[str, bytes] | None:
    """What the Secret should hold now; ``None`` where that is what it holds.

    ``files``: ``None`` where there is no Secret. A leaf that cannot be read, is not for these hosts or has ended is made
    anew by the same authority; an authority that is no good, with the old one still in the bundle. ``published``: for how
    long the API server has been seen to trust the next authority.
    """
    stored = dict(files or {})
    try:
        authority = _pair(stored, CA, CA_KEY)
        _check_time(authority.certificate, now)
    except (UnusableError, ValueError, TypeError):
        kept = {PREVIOUS_CA: stored[CA]} if CA in stored else {}
        return {**kept, **_new(hosts, now)}
    following = _following(stored, now)
    if following is not None and published >= OVERLAP:
        leaf = _leaf(following, hosts, now)
        return {
            CA: following.pem, CA_KEY: following.key_pem, TLS: leaf.pem, TLS_KEY: leaf.key_pem, PREVIOUS_CA: authority.pem,
        }  # fmt: skip
    fresh = dict(stored)
    if following is None and _is_due(authority.certificate, now):
        following = _authority(now)
        fresh |= {NEXT_CA: following.pem, NEXT_CA_KEY: following.key_pem}
    if _needs_leaf(stored, authority, hosts, now):
        leaf = _leaf(authority, hosts, now)
        fresh |= {TLS: leaf.pem, TLS_KEY: leaf.key_pem}
    return None if fresh == stored else fresh


def is_servable(files: Files) -> bool:
    """Whether there is a leaf with its key."""
    try:
        _pair(files, TLS, TLS_KEY)
    except (UnusableError, ValueError, TypeError):
        return False
    return True


def has_authority(files: Files, now: datetime.datetime) -> bool:
    """Whether there is an authority with its key, whose time it is."""
    try:
        _check_time(_pair(files, CA, CA_KEY).certificate, now)
    except (UnusableError, ValueError, TypeError):
        return False
    return True


def _needs_leaf(files: Files, authority: _Pair, hosts: Sequence[str], now: datetime.datetime) -> bool:
    try:
        leaf = _pair(files, TLS, TLS_KEY)
        _check(authority, leaf, hosts, now)
    except (UnusableError, ValueError, TypeError, InvalidSignature):
        return True
    return _is_due(leaf.certificate, now)


def bundle(files: Files, now: datetime.datetime) -> bytes:
    """Every authority whose leaves may be served: PEM, the present one first."""
    found: list[bytes] = []
    for name in (CA, NEXT_CA, PREVIOUS_CA):
        try:
            certificate = x509.load_pem_x509_certificate(files[name])
        except (KeyError, ValueError):
            continue
        if certificate.not_valid_after_utc > now:
            found.append(certificate.public_bytes(serialization.Encoding.PEM))
    return b"".join(dict.fromkeys(found))


def decoded(data: Mapping[str, object]) -> dict[str, bytes]:
    """The ``data`` of a Secret; what is no base64 is left out."""
    found = {}
    for name, value in data.items():
        try:
            found[name] = base64.b64decode(str(value), validate=True)
        except ValueError:
            continue
    return found


def _new(hosts: Sequence[str], now: datetime.datetime) -> dict[str, bytes]:
    authority = _authority(now)
    leaf = _leaf(authority, hosts, now)
    return {CA: authority.pem, CA_KEY: authority.key_pem, TLS: leaf.pem, TLS_KEY: leaf.key_pem}


def _pair(files: Files, certificate: str, key: str) -> _Pair:
    try:
        loaded = serialization.load_pem_private_key(files[key], None)
        found = x509.load_pem_x509_certificate(files[certificate])
    except KeyError as error:
        raise UnusableError(str(error)) from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or found.public_key() != loaded.public_key():
        raise UnusableError(certificate)
    return _Pair(found, loaded)


def _following(files: Files, now: datetime.datetime) -> _Pair | None:
    try:
        found = _pair(files, NEXT_CA, NEXT_CA_KEY)
    except (UnusableError, ValueError, TypeError):
        return None
    return found if found.certificate.not_valid_after_utc > now else None


def _check(authority: _Pair, leaf: _Pair, hosts: Sequence[str], now: datetime.datetime) -> None:
    leaf.certificate.verify_directly_issued_by(authority.certificate)
    names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if set(_names(hosts)) - set(names):
        raise UnusableError(TLS)
    _check_time(leaf.certificate, now)


def _check_time(certificate: x509.Certificate, now: datetime.datetime) -> None:
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise UnusableError(str(certificate.subject))


def _is_due(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * RENEW_AT


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _authority(now: datetime.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shardgate-webhook-ca")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _leaf(authority: _Pair, hosts: Sequence[str], now: datetime.datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shardgate-webhook")])
    builder = (
        _builder(name, authority.certificate.subject, key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )
