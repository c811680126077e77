"""The only API client: credentials as the ``kubernetes`` package finds them, requests over aiohttp."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from shardgate import __version__
from shardgate.shells.failures import ClusterFailed

CLI, OPERATOR = "shardgate-cli", "shardgate-operator"
REQUEST_SECONDS = 30
MOST_RETRY_AFTER_SECONDS = 60.0
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class ClusterUnreachable(ClusterFailed):
    """No answer from the API server, or no way to it is configured."""


@dataclass(eq=False)  # not frozen: Python itself sets an exception's traceback
class ApiError(ClusterFailed):
    """The API server answered with an error."""

    status: int
    reason: str
    message: str
    retry_after_seconds: float = 0.0
    """How long it asks to be left alone, at most ``MOST_RETRY_AFTER_SECONDS``."""

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"


def _is_in_a_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


def own_namespace() -> str:
    """That of the kubeconfig's current context; ``default`` where it says none, or in a pod. Raises ``ClusterUnreachable``."""
    if _is_in_a_pod():
        return "default"
    try:
        _, current = kubernetes_config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))  # type: ignore[no-untyped-call]  # the package has no types
    except (kubernetes_config.ConfigException, OSError, TypeError, ValueError, AttributeError) as error:
        problem = f"no cluster is configured: {error}"
        raise ClusterUnreachable(problem) from error
    return str((current.get("context") or {}).get("namespace") or "default")


class Cluster:
    """A session with one API server. Use as an async context manager."""

    def __init__(self, configuration: kubernetes_client.Configuration, agent: str = CLI) -> None:
        """``agent``: who asks, as the API server's audit log tells it."""
        self._configuration, self._agent = configuration, agent
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def from_environment(cls, agent: str = CLI) -> "Cluster":
        """In a pod its ServiceAccount, else the kubeconfig. Raises ``ClusterUnreachable`` when there is neither."""
        configuration = kubernetes_client.Configuration()
        try:
            if _is_in_a_pod():
                kubernetes_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # the package has no types
            else:
                kubernetes_config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)  # type: ignore[no-untyped-call]  # same
        except (kubernetes_config.ConfigException, OSError, TypeError, ValueError, AttributeError) as error:
            problem = f"no cluster is configured: {error}"
            raise ClusterUnreachable(problem) from error
        return cls(configuration, agent)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._configuration.host).rstrip("/")

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._ssl())
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": f"{self._agent}/{__version__}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    def _ssl(self) -> ssl.SSLContext | bool:
        configuration = self._configuration
        if not self.server.startswith("https"):
            return False
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
        if not configuration.verify_ssl:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context

    def _headers(self) -> dict[str, str]:
        token = self._configuration.get_api_key_with_prefix("BearerToken")  # refreshes an aging token
        return {"Authorization": token} if token else {}

    @asynccontextmanager
    async def stream(
        self, path: str, parameters: Mapping[str, str], limits: aiohttp.ClientTimeout, accept: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET; the caller reads the body and handles the client's exceptions. ``accept``: forms of it. Raises ``ApiError``."""
        if self._session is None:
            problem = "the session is not open"
            raise RuntimeError(problem)
        async with self._session.get(
            self.server + path, params=dict(parameters), headers=self._headers() | ({"Accept": accept} if accept else {}),
            timeout=limits,
        ) as response:  # fmt: skip
            if response.status >= 400:  # noqa: PLR2004  # HTTP
                raise _error(response, await response.read())
            yield response

    async def request(  # keyword-only: the parts of a request
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Any = None,  # JSON
        content_type: str = "application/json",
    ) -> Any:  # JSON
        """One request, decoded. Raises ``ApiError`` and ``ClusterUnreachable``."""
        return (await self.answered(method, path, parameters=parameters, body=body, content_type=content_type))[0]

    async def answered(  # keyword-only: the parts of a request
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Any = None,  # JSON
        content_type: str = "application/json",
    ) -> tuple[Any, list[str]]:  # JSON
        """The same, with the warnings that came with it, as the headers say them."""
        if self._session is None:
            problem = "the session is not open"
            raise RuntimeError(problem)
        headers = self._headers() | ({"Content-Type": content_type} if body is not None else {})
        try:
            async with self._session.request(
                method,
                self.server + path,
                params=dict(parameters or {}),
                data=None if body is None else json.dumps(body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                content = await response.read()
                if response.status >= 400:  # noqa: PLR2004  # HTTP
                    raise _error(response, content)
                return json.loads(content), response.headers.getall("Warning", [])
        except _UNREACHABLE as error:
            problem = f"{self.server}: {error or type(error).__name__}"
            raise ClusterUnreachable(problem) from error

    async def list_all(self, path: str, page: int = 500, *, selector: str = "") -> list[dict[str, Any]]:
        """All objects, page by page; ``selector``: with these labels alone."""
        items: list[dict[str, Any]] = []
        parameters = {"limit": str(page)} | ({"labelSelector": selector} if selector else {})
        while True:
            answer = await self.request("GET", path, parameters=parameters)
            items += answer.get("items") or []
            if not (token := (answer.get("metadata") or {}).get("continue")):
                return items
            parameters["continue"] = token
            await asyncio.sleep(0)


def _error(response: aiohttp.ClientResponse, content: bytes) -> ApiError:
    asked = response.headers.get("Retry-After", "")  # the API server gives seconds; HTTP's dates are none of its ways
    pause = min(float(asked), MOST_RETRY_AFTER_SECONDS) if asked.isdecimal() else 0.0
    try:
        answer = json.loads(content)
        return ApiError(response.status, str(answer.get("reason", "")), str(answer.get("message", "")), pause)
    except (ValueError, AttributeError):
        return ApiError(response.status, "", content[:200].decode(errors="replace"), pause)
