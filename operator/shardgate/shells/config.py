"""The operator's own configuration: ``SHARDGATE_CONFIG`` (a YAML file) and, over it, ``SHARDGATE_*`` variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from shardgate.adapters.node_reports import STALE_AFTER_SECONDS

_VARIABLES = {
    "SHARDGATE_WEBHOOK_PORT": "webhookPort",
    "SHARDGATE_METRICS_PORT": "metricsPort",
    "SHARDGATE_BIND_ADDRESS": "bindAddress",
    "SHARDGATE_TLS_CERT": "tlsCert",
    "SHARDGATE_TLS_KEY": "tlsKey",
    "SHARDGATE_CERTIFICATE_HOSTS": "certificateHosts",
    "SHARDGATE_CLIENT_CA": "clientCa",
    "SHARDGATE_CLIENT_NAMES": "clientNames",
    "SHARDGATE_NAMESPACE": "namespace",
    "SHARDGATE_EXEMPT_NAMESPACES": "exemptNamespaces",
    "SHARDGATE_DRAIN_SECONDS": "drainSeconds",
    "SHARDGATE_NODE_AGENTS": "nodeAgents",
    "SHARDGATE_REPORT_STALE_AFTER_SECONDS": "reportStaleAfterSeconds",
    "SHARDGATE_PROMETHEUS_URL": "prometheusUrl",
    "SHARDGATE_PROMETHEUS_TOKEN_FILE": "prometheusTokenFile",
    "SHARDGATE_PROMETHEUS_CA": "prometheusCa",
}


_LISTS = ("exemptNamespaces", "clientNames", "certificateHosts")


class ConfigError(Exception):
    """The configuration is not valid; the message names the source and the field."""


class OperatorConfig(BaseModel):
    """How this process serves. Field names in the file are camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    webhook_port: Annotated[int, Field(ge=1, le=65535)] = 9443
    metrics_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    bind_address: str = "0.0.0.0"  # noqa: S104  # a webhook is called from other machines
    tls_cert: Path | None = None
    """Certificate file of the webhook server, PEM; read again when it changes. Unset: we keep certificates of our own."""
    tls_key: Path | None = None
    service_name: Annotated[str, Field(min_length=1)] = "shardgate-webhook"
    """The Service that the API server calls: certificates of our own are for it."""
    certificate_hosts: tuple[str, ...] = ()
    """Names and addresses that certificates of our own are for, besides the Service's."""
    client_ca: Path | None = None
    """Certificates of authorities, PEM: only clients with a certificate of theirs are answered. Unset: anyone is."""
    client_names: frozenset[str] = frozenset()
    """Common names of those clients, as ``kube-apiserver``; empty: all that the authority signed."""
    namespace: Annotated[str, Field(min_length=1)] = "shardgate-system"
    """Where the operator runs: never judged, and where its Lease is."""
    exempt_namespaces: tuple[str, ...] = ()
    """Namespaces that are never judged, besides ``kube-*`` and our own."""
    drain_seconds: Annotated[float, Field(ge=0, le=60)] = 10
    """How long to go on answering after SIGTERM, while endpoints forget us."""
    node_agents: bool = False
    """Whether agents run on nodes: their GpuNodeReports, and their Leases in our namespace, are followed."""
    report_stale_after_seconds: Annotated[float, Field(ge=5, le=3600)] = STALE_AFTER_SECONDS
    """How long after its agent was last heard a node's report counts. Agents renew their Leases every 10 s."""
    prometheus_url: Annotated[str, Field(pattern=r"^https?://[^\s/?#]+[^\s?#]*$")] | None = None
    """A Prometheus that scrapes the engines, as ``http://prometheus.monitoring:9090``: predictions of memory are compared with
    what runs. Unset: they are not."""
    prometheus_token_file: Path | None = None
    """A file with a bearer token for it; read anew each time."""
    prometheus_ca: Path | None = None
    """Certificates of authorities that its own is checked by, PEM. Unset: the system's."""

    @field_validator("prometheus_url", "prometheus_token_file", "prometheus_ca", mode="before")
    @classmethod
    def _or_none(cls, value: Any) -> Any:
        """A chart's empty value is unset."""
        return None if value == "" else value

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            problem = "tlsCert and tlsKey go together"
            raise ValueError(problem)
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """What certificates of our own are for."""
        service = f"{self.service_name}.{self.namespace}.svc"
        return (service, f"{service}.cluster.local", *self.certificate_hosts)

    def is_exempt(self, namespace: str) -> bool:
        """Whether objects of this namespace are let in unseen."""
        return namespace.startswith("kube-") or namespace == self.namespace or namespace in self.exempt_namespaces


def read_config(environment: Mapping[str, str]) -> OperatorConfig:
    """Raises ``ConfigError``."""
    values: dict[str, Any] = {}
    path = environment.get("SHARDGATE_CONFIG")
    if path:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            problem = f"SHARDGATE_CONFIG {path}: {error}"
            raise ConfigError(problem) from error
        if loaded is not None and not isinstance(loaded, dict):
            problem = f"SHARDGATE_CONFIG {path}: needs a mapping at the top"
            raise ConfigError(problem)
        values = dict(loaded or {})
    for variable, field in _VARIABLES.items():
        if variable in environment:
            value = environment[variable]
            values[field] = [part.strip() for part in value.split(",") if part.strip()] if field in _LISTS else value
    try:
        return OperatorConfig.model_validate(values)
    except ValidationError as error:
        variables = {field: variable for variable, field in _VARIABLES.items()}
        problems = "; ".join(
            f"{field} (file) or {variables.get(field, '-')} (environment): {each['msg']}"
            for each in error.errors()
            for field in [".".join(str(part) for part in each["loc"])]
        )
        raise ConfigError(problems) from error
