"""One control plane: started, handed out, stopped. Everything that it writes is in one temporary folder."""

import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.binaries import Binaries, find
from controlplane.processes import Guarded, StartError, free_ports

START_ATTEMPTS = 3
"""A free port may be taken by someone else before we bind it; then all is started again on others."""


class Authority:
    """A certificate authority of our own, for one plane."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shardgate-local")])
        self.certificate = self._sign(self._name, self._key.public_key(), is_authority=True, hosts=())
        self.path = folder / "ca.crt"
        self.path.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        days: tuple[float, float] = (-0.01, 2),
    ) -> tuple[Path, Path]:  # fmt: skip
        """A certificate and key, for a server on these hosts or a client of this name and these groups.

        ``days``: from now, between which it is valid.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        certificate = self._sign(x509.Name(attributes), key.public_key(), is_authority=False, hosts=hosts, days=days)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        paths[1].touch(mode=0o600)
        paths[1].write_bytes(pem)
        return paths

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool, hosts: Sequence[str],
        days: tuple[float, float] = (-0.01, 2),
    ) -> x509.Certificate:  # fmt: skip
        now = datetime.datetime.now(datetime.UTC)
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


class KubectlError(Exception):
    """kubectl ended with an error; ``stderr`` is what it said."""

    def __init__(self, command: Sequence[str], code: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(command)} ended with {code}: {stderr.strip()}")
        self.code, self.stderr = code, stderr


class ControlPlane:
    """etcd, kube-apiserver, kube-scheduler and kube-controller-manager on free ports of 127.0.0.1."""

    def __init__(
        self, binaries: Binaries, folder: Path, *, audit_policy: Mapping[str, Any] | None = None, large: bool = False
    ) -> None:
        self.binaries, self.folder = binaries, folder
        self.audit_policy, self.large = audit_policy, large
        self.authority = Authority(folder)
        self.admin = self.authority.issue("admin", groups=["system:masters"])
        self._serving = self.authority.issue("kube-apiserver", hosts=("127.0.0.1", "localhost", "kubernetes.default.svc"))
        self._etcd: Guarded | None = None
        self.api_server: Guarded | None = None
        self._controllers: list[Guarded] = []
        self._etcd_port = self.port = 0
        self.kubeconfig = folder / "kubeconfig"
        self.audit_log = folder / "audit.log"

    @property
    def url(self) -> str:
        """Of the API server."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start all; raises ``StartError`` with the end of the log of what did not come up."""
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once()
            except StartError:
                self.stop()
                if attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def _start_once(self) -> None:
        self._etcd_port, peer_port, self.port = free_ports(3)
        etcd_url, peer_url = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{peer_port}"
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        self._etcd = self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync=true", "--log-level=warn", f"--quota-backend-bytes={8 << 30}",
        )  # fmt: skip
        self._etcd.wait_until(lambda: _answers(f"{etcd_url}/health"), 30)
        self.start_api_server()
        self._write_kubeconfig(self.kubeconfig, {"client-certificate": str(self.admin[0]), "client-key": str(self.admin[1])})
        self._start_controllers()

    def start_api_server(self) -> None:
        """Start it on its port; also after ``stop_api_server``, where its clients look for it."""
        self.api_server = self._run_api_server(self.port, audited=True)

    def stop_api_server(self) -> None:
        """Kill it: its port is free again at once."""
        if self.api_server is not None:
            self.api_server.kill()
            self.api_server = None

    @contextlib.contextmanager
    def etcd_stopped(self) -> Iterator[None]:
        """While this lasts etcd does nothing, as one whose machine hangs: its connections stay open."""
        if self._etcd is None:
            problem = "etcd does not run"
            raise StartError(problem)
        self._etcd.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._etcd.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def another_api_server(self) -> Iterator[Callable[..., object]]:
        """A second API server on the same etcd, on a port of its own: what is yielded runs kubectl against it."""
        (port,) = free_ports(1)
        server = self._run_api_server(port, audited=False)
        try:
            yield lambda *arguments: self.kubectl("--server", f"https://127.0.0.1:{port}", *arguments)
        finally:
            server.kill()

    def _run_api_server(self, port: int, *, audited: bool) -> Guarded:
        key = self.folder / "service-account.key"
        if not key.exists():
            shutil.copyfile(self._serving[1], key)
        flags = [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={port}", f"--tls-cert-file={self._serving[0]}", f"--tls-private-key-file={self._serving[1]}",
            f"--client-ca-file={self.authority.path}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=TaintNodesByCondition,ServiceAccount", f"--cert-dir={self.folder}",
            "--shutdown-delay-duration=0s", "--profiling=false", "--endpoint-reconciler-type=none",
        ]  # fmt: skip
        if self.large:
            flags += ["--max-requests-inflight=3000", "--max-mutating-requests-inflight=1000"]
        if self.audit_policy is not None and audited:
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(self.audit_policy))
            flags += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        server = self._run("kube-apiserver", *flags)
        try:
            server.wait_until(lambda: self._is_ready(port), 60)
        except StartError:
            server.kill()
            raise
        return server

    def _start_controllers(self) -> None:
        common = ["--bind-address=127.0.0.1", "--secure-port=0", "--leader-elect=false"]
        qps = ["--kube-api-qps=2000", "--kube-api-burst=4000"]
        self._controllers = [
            self._run("kube-scheduler", *self._identity("kube-scheduler"), *common, *qps),
            self._run(
                "kube-controller-manager", *self._identity("kube-controller-manager"), *common, *qps,
                "--use-service-account-credentials=false",
                # Nodes here have no kubelet: their controllers would mark them Unknown and evict their pods.
                "--controllers=*,-node-lifecycle-controller,-node-ipam-controller,-cloud-node-lifecycle-controller,"
                "-taint-eviction-controller,-device-taint-eviction-controller",
            ),
        ]  # fmt: skip

    def _identity(self, name: str) -> list[str]:
        """Flags by which a controller is who it is in every cluster: who asks is told to webhooks."""
        certificate, key = self.authority.issue(f"system:{name}", groups=["system:masters"])
        config = self.folder / f"{name}.kubeconfig"
        self._write_kubeconfig(config, {"client-certificate": str(certificate), "client-key": str(key)})
        return [f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}"]

    def stop(self) -> None:
        """Stop all, clients before servers."""
        for each in [*self._controllers, self.api_server, self._etcd]:
            if each is not None:
                each.kill()
        self._controllers, self.api_server, self._etcd = [], None, None

    def _run(self, name: str, *flags: str) -> Guarded:
        return Guarded(name, [self.binaries[name], *flags], self.folder / f"{name}.log", {"PATH": os.environ.get("PATH", "")})

    def _is_ready(self, port: int) -> bool:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.load_cert_chain(*self.admin)
        return _answers(f"https://127.0.0.1:{port}/readyz", context)

    def _write_kubeconfig(self, path: Path, user: Mapping[str, str], server: str = "") -> None:
        cluster = {"server": server or self.url, "certificate-authority": str(self.authority.path)}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "local",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "user", "user": dict(user)}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
        }  # fmt: skip
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))

    def token_kubeconfig(self, token: str, name: str, server: str = "") -> Path:
        """A kubeconfig for the holder of a token; ``server``: the URL of what stands before the API server."""
        path = self.folder / f"{name}.kubeconfig"
        self._write_kubeconfig(path, {"token": token}, server)
        return path

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl as admin; raises ``KubectlError`` unless told not to check."""
        result = subprocess.run(
            [self.binaries["kubectl"], f"--kubeconfig={kubeconfig or self.kubeconfig}", *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=120,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
        )  # fmt: skip
        if check and result.returncode:
            raise KubectlError(arguments, result.returncode, result.stderr)
        return result

    def get(self, *arguments: str) -> Any:  # whatever the object is
        """``kubectl get ... -o json``, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def wait_for_kinds(self, *names: str, seconds: float = 60) -> None:
        """Until these CustomResourceDefinitions are served, or all that there are. Raises ``StartError``.

        ``kubectl wait`` ends with an error for one that has no status yet.
        """
        over = time.monotonic() + seconds
        while True:
            found = self.get("customresourcedefinitions", *names)
            waiting = [each["metadata"]["name"] for each in found.get("items", [found]) if not _is_established(each)]
            if not waiting:
                return
            if time.monotonic() > over:
                problem = f"not served within {seconds:.0f} s: {', '.join(waiting)}"
                raise StartError(problem)
            time.sleep(0.1)

    def apply(
        self, *objects: Mapping[str, Any], options: Sequence[str] = (), check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """``kubectl apply -f -`` of these objects."""
        documents = "\n---\n".join(json.dumps(each) for each in objects)  # in a List, kubectl checks less, and differently
        return self.kubectl("apply", "-f", "-", *options, stdin=documents, check=check)


def _is_established(definition: Mapping[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2, context=context) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def control_plane(
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),  # progress
    *,
    audit_policy: Mapping[str, Any] | None = None,
    large: bool = False,
    failed: Callable[[], bool] = lambda: False,
) -> Iterator[ControlPlane]:
    """A running control plane. Its folder goes with it, unless something failed: then the logs are kept and named.

    ``failed`` is asked at the end, for callers whose failures do not come as exceptions.
    """
    binaries = find(say)
    folder = Path(tempfile.mkdtemp(prefix="shardgate-plane-"))
    plane = ControlPlane(binaries, folder, audit_policy=audit_policy, large=large)
    try:
        plane.start()
        yield plane
    except BaseException as error:
        plane.stop()
        shutil.rmtree(folder / "etcd", ignore_errors=True)
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"the control plane's logs are kept in {folder}")
        raise
    else:
        plane.stop()
        if failed():
            shutil.rmtree(folder / "etcd", ignore_errors=True)
            say(f"the control plane's logs are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
