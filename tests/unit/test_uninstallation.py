"""``shardgate uninstall``: what it removes, and that it is content with what is gone."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from command_line import Ended, run

VALIDATING = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/shardgate"
MUTATING = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/shardgate"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/own/leases/shardgate"
SECRET = "/api/v1/namespaces/own/secrets/shardgate-webhook-tls"
LEDGER = "/apis/shardgate.io/v1alpha1/capacityledgers/shardgate"
REPORTS = "/apis/shardgate.io/v1alpha1/gpunodereports"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/own/leases"
VERDICTS = "/apis/shardgate.io/v1alpha1/workloadverdicts"
VERDICT = "/apis/shardgate.io/v1alpha1/namespaces/team/workloadverdicts/deployment-llama"


class Api(ThreadingHTTPServer):
    """A server of HTTP that keeps these objects, and forbids what it is told to."""

    def __init__(self, *objects: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.forbidden = set(objects), ""

    kubeconfig: Path

    def uninstall(self, *arguments: str) -> Ended:
        return run("uninstall", *arguments, KUBECONFIG=str(self.kubeconfig))

    def answer(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        if self.forbidden and path.startswith(self.forbidden):
            return 403, {"reason": "Forbidden", "message": f"may not {method} {path}"}
        if method == "GET" and path == VERDICTS and VERDICT in self.objects:
            return 200, {"items": [{"metadata": {"namespace": "team", "name": "deployment-llama"}}]}
        for listed, name in ((REPORTS, "gpu-a"), (LEASES, "gpu-a")):
            if method == "GET" and path == listed and f"{listed}/{name}" in self.objects:
                return 200, {"items": [{"metadata": {"name": name}}]}
        if method == "DELETE" and path in self.objects:
            self.objects.remove(path)
            return 200, {"status": "Success"}
        return 404, {"reason": "NotFound", "message": f"{path} not found"}


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        status, body = self.server.answer(self.command, self.path.partition("?")[0])
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_DELETE = do_GET  # noqa: N815  # as the library calls it

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


POLICY = "/apis/shardgate.io/v1alpha1/verificationpolicies/default"
ALL = (VALIDATING, MUTATING, LEASE, SECRET, LEDGER, VERDICT, POLICY, f"{REPORTS}/gpu-a", f"{LEASES}/gpu-a")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    server = Api(*ALL)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    server.kubeconfig = tmp_path / "kubeconfig"
    server.kubeconfig.write_text(json.dumps(config))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_webhooks_go_and_nothing_else(api: Api) -> None:
    result = api.uninstall("webhooks", "-n", "own")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "ValidatingWebhookConfiguration shardgate removed", "MutatingWebhookConfiguration shardgate removed",
    ]  # fmt: skip
    assert api.objects == set(ALL) - {VALIDATING, MUTATING}


def test_leftovers_go_and_webhooks_are_not_touched(api: Api) -> None:
    result = api.uninstall("leftovers", "-n", "own")
    assert (result.returncode, result.stderr) == (0, "")
    assert "WorkloadVerdict team/deployment-llama removed" in result.stdout.splitlines()
    assert api.objects == {VALIDATING, MUTATING, POLICY}


@pytest.mark.parametrize("what", ["webhooks", "leftovers"])
def test_what_is_gone_already_is_no_error(api: Api, what: str) -> None:
    api.objects.clear()
    result = api.uninstall(what, "-n", "own")
    assert result.returncode == 0
    assert all(line.endswith("was gone already") for line in result.stdout.splitlines())
    assert result.stdout


@pytest.mark.parametrize(("what", "path"), [("webhooks", MUTATING), ("leftovers", VERDICTS), ("leftovers", SECRET)])
def test_what_it_may_not_remove_fails_and_is_named(api: Api, what: str, path: str) -> None:
    api.forbidden = path
    result = api.uninstall(what, "-n", "own")
    assert result.returncode == 69
    assert path in result.stderr


def test_what_to_remove_has_to_be_said(api: Api) -> None:
    assert api.uninstall("webhooks").returncode == 64
    assert api.uninstall("everything", "-n", "own").returncode == 64
    assert api.objects == set(ALL)
