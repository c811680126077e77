"""Certificates of our own: what a Secret should hold, by the wall clock."""

import datetime
from collections.abc import Mapping

import pytest
from cryptography import x509

from shardgate.adapters.certificates import (
    AUTHORITY_DAYS,
    CA,
    CA_KEY,
    LEAF_DAYS,
    NEXT_CA,
    NEXT_CA_KEY,
    OVERLAP,
    PREVIOUS_CA,
    TLS,
    TLS_KEY,
    bundle,
    decoded,
    renewed,
)  # fmt: skip

HOSTS = ("shardgate-webhook.shardgate-system.svc", "127.0.0.1")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def certificate(files: Mapping[str, bytes], name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files[name])


def made(now: datetime.datetime = START) -> dict[str, bytes]:
    files = renewed(None, HOSTS, now)
    assert files is not None
    return files


def is_trusted(files: Mapping[str, bytes], by: bytes) -> bool:
    """Whether the leaf that is served is one of an authority in the bundle."""
    leaf = certificate(files, TLS)
    for authority in x509.load_pem_x509_certificates(by):
        try:
            leaf.verify_directly_issued_by(authority)
        except (ValueError, TypeError, Exception):  # noqa: BLE001  # InvalidSignature is none of ValueError
            continue
        return True
    return False


def test_a_pair_is_made_and_left_alone_until_it_is_due() -> None:
    files = made()
    assert is_trusted(files, bundle(files, START))
    for days in (0, 1, 59):
        assert renewed(files, HOSTS, START + days * DAY) is None
    names = certificate(files, TLS).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOSTS[0]]


def test_a_leaf_is_renewed_at_two_thirds_of_its_life_by_the_same_authority() -> None:
    files = made()
    later = renewed(files, HOSTS, START + LEAF_DAYS * DAY * 2 / 3)
    assert later is not None
    assert (later[CA], later[TLS] == files[TLS]) == (files[CA], False)
    assert is_trusted(later, bundle(files, START)), "whoever trusted the old one trusts the new one"


def test_a_new_authority_is_trusted_before_its_first_leaf_is_served() -> None:
    now = START + AUTHORITY_DAYS * DAY * 2 / 3
    files = made()
    while certificate(files, TLS).not_valid_after_utc <= now:  # leaves come and go meanwhile
        files = renewed(files, HOSTS, certificate(files, TLS).not_valid_after_utc - DAY) or files
    published = renewed(files, HOSTS, now)
    assert published is not None
    assert (published[CA], NEXT_CA in published) == (files[CA], True)
    assert len(x509.load_pem_x509_certificates(bundle(published, now))) == 2
    assert renewed(published, HOSTS, now + 10 * OVERLAP) is None, "nobody was seen to trust it"
    assert renewed(published, HOSTS, now + OVERLAP, OVERLAP / 2) is None
    switched = renewed(published, HOSTS, now + OVERLAP, OVERLAP)
    assert switched is not None
    assert (switched[CA], switched[PREVIOUS_CA], NEXT_CA_KEY in switched) == (published[NEXT_CA], files[CA], False)
    assert is_trusted(switched, bundle(published, now)), "API servers that heard of it in time trust the new leaf"
    assert is_trusted(published, bundle(switched, now)), "replicas that still serve the old leaf are trusted"
    assert renewed(switched, HOSTS, now + 2 * OVERLAP, OVERLAP) is None


@pytest.mark.parametrize("broken", [{TLS: b"half"}, {TLS_KEY: b"x"}, {TLS: made()[TLS]}], ids=["half", "no key", "another's"])
def test_a_leaf_that_is_no_good_is_made_by_the_same_authority(broken: dict[str, bytes]) -> None:
    files = made()
    mended = renewed({**files, **broken}, HOSTS, START)
    assert mended is not None
    assert mended[CA] == files[CA]
    assert is_trusted(mended, bundle(files, START))


def test_an_authority_that_is_lost_stays_in_the_bundle() -> None:
    files = made()
    mended = renewed({**files, CA_KEY: b"x"}, HOSTS, START)
    assert mended is not None
    assert is_trusted(files, bundle(mended, START)), "replicas that serve the old leaf are trusted"
    assert is_trusted(mended, bundle(mended, START))


@pytest.mark.parametrize("jump", [LEAF_DAYS + 1, 10 * AUTHORITY_DAYS], ids=["past the leaf", "past everything"])
def test_a_clock_that_jumped_past_the_renewal_gets_a_pair_at_once(jump: int) -> None:
    now = START + jump * DAY
    files = renewed(made(), HOSTS, now)
    assert files is not None
    assert certificate(files, TLS).not_valid_after_utc > now
    assert is_trusted(files, bundle(files, now))


@pytest.mark.parametrize(
    "broken",
    [{}, {TLS: b"half a certif"}, {TLS_KEY: b""}, {CA: b"-----BEGIN CERTIFICATE-----"}, {TLS: made()[TLS]}],
    ids=["empty", "half", "no key", "cut", "a leaf of another authority"],
)
def test_what_cannot_be_served_is_made_anew(broken: dict[str, bytes]) -> None:
    files = renewed({**made(), **broken} if broken else {}, HOSTS, START)
    assert files is not None
    assert is_trusted(files, bundle(files, START))


def test_other_hosts_need_another_leaf() -> None:
    assert renewed(made(), ("another.svc",), START) is not None


def test_a_secret_that_is_no_base64_is_left_out() -> None:
    assert decoded({"a": "YQ==", "b": "*", "c": 7}) == {"a": b"a"}
