from pathlib import Path

import pytest

from shardgate.shells.config import ConfigError, read_config

TLS = {"SHARDGATE_TLS_CERT": "/tls/tls.crt", "SHARDGATE_TLS_KEY": "/tls/tls.key"}


def test_variables_alone_are_enough() -> None:
    config = read_config({**TLS, "SHARDGATE_WEBHOOK_PORT": "10443", "SHARDGATE_EXEMPT_NAMESPACES": "a, b,"})
    assert (config.webhook_port, config.metrics_port, config.namespace) == (10443, 8080, "shardgate-system")
    assert config.exempt_namespaces == ("a", "b")


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("webhookPort: 1\nmetricsPort: 2\ntlsCert: a\ntlsKey: b\nexemptNamespaces: [c]\n")
    config = read_config({"SHARDGATE_CONFIG": str(file), "SHARDGATE_WEBHOOK_PORT": "3"})
    assert (config.webhook_port, config.metrics_port, config.exempt_namespaces) == (3, 2, ("c",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("webhookPort: many", "SHARDGATE_WEBHOOK_PORT"),
        ("nonsense: 1", "nonsense"),
        ("- 1", "mapping"),
        ("a: [", "SHARDGATE_CONFIG"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_config({**TLS, "SHARDGATE_CONFIG": str(file)})


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_config({**TLS, "SHARDGATE_CONFIG": "nowhere.yaml"})


def test_a_certificate_without_its_key_is_no_pair() -> None:
    with pytest.raises(ConfigError, match="tlsCert and tlsKey go together"):
        read_config({"SHARDGATE_TLS_CERT": "cert.pem"})


def test_without_a_pair_certificates_are_our_own() -> None:
    config = read_config({"SHARDGATE_NAMESPACE": "gates", "SHARDGATE_CERTIFICATE_HOSTS": "127.0.0.1, gate.example"})
    assert config.tls_cert is None
    assert config.hosts == (
        "shardgate-webhook.gates.svc", "shardgate-webhook.gates.svc.cluster.local", "127.0.0.1", "gate.example",
    )  # fmt: skip
