"""The API server over the standard library's HTTP: one connection, a token that is read anew each time."""

import http.client
import json
import os
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardgate import __version__

Json = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_SECONDS = 10
MOST_BYTES = 4 << 20
MOST_RETRY_AFTER_SECONDS = 60.0
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


@dataclass(eq=False)  # not frozen: Python itself sets an exception's traceback
class Refused(Exception):
    """The API server answered with an error; ``retry_after_seconds`` is how long it asks to be left alone."""

    status: int
    message: str
    retry_after_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.status} {self.message}"


class Unreachable(Exception):
    """No answer, or none that makes sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where it is, and how it is spoken to."""

    server: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT) -> "Access | None":
        """That of a pod's ServiceAccount; ``None`` outside of one."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            return None
        name = f"[{host}]" if ":" in host else host
        return cls(server=f"https://{name}:{port}", token_file=folder / "token", ca_file=folder / "ca.crt")


class ApiServer:
    """Requests, one at a time; the connection is kept, and made anew when it broke. Not for several threads at once."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._url = urllib.parse.urlsplit(access.server)
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Json:
        """One request, decoded. Raises ``Refused`` and ``Unreachable``."""
        is_kept = self._connection is not None
        try:
            return self._request(method, path, body, content_type)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            # A server closes connections that nobody uses: what was sent on one may be sent again, as all we send may.
            if is_kept and isinstance(error, http.client.RemoteDisconnected | ConnectionError | http.client.CannotSendRequest):
                return self.request(method, path, body, content_type)
            problem = f"{self._access.server}: {error or type(error).__name__}"
            raise Unreachable(problem) from error
        except ValueError as error:  # no JSON, or more than we take
            self.close()
            problem = f"{self._access.server}: {error}"
            raise Unreachable(problem) from error

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: object, content_type: str) -> Json:
        if self._connection is None:
            self._connection = self._connect()
        headers = {"Accept": "application/json", "User-Agent": f"shardgate-agent/{__version__}"}
        if self._access.token_file is not None:
            headers["Authorization"] = f"Bearer {self._access.token_file.read_text(encoding='ascii').strip()}"
        if body is not None:
            headers["Content-Type"] = content_type
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        content = response.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            problem = f"more than {MOST_BYTES} bytes in answer to {method} {path}"
            raise ValueError(problem)
        if response.status >= 400:  # noqa: PLR2004  # HTTP
            asked = response.getheader("Retry-After", "")
            pause = min(float(asked), MOST_RETRY_AFTER_SECONDS) if asked.isdecimal() else 0.0
            raise Refused(response.status, _message(content), pause)
        answer = json.loads(content)
        if not isinstance(answer, dict):
            problem = f"no object in answer to {method} {path}"
            raise ValueError(problem)  # noqa: TRY004  # as for any other answer that makes no sense
        return answer

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port or 80, timeout=TIMEOUT_SECONDS)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self._access.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=str(self._access.ca_file))
        return http.client.HTTPSConnection(host, port or 443, timeout=TIMEOUT_SECONDS, context=context)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
