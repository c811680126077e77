"""The chart on a real API server: every set of values is taken; a release is installed, upgraded and uninstalled by the real helm.

There is no kubelet: what the hooks' Jobs and the test's pod would run is run as a process, with a token of the account that the chart
gives it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults import Measured, fault
from live import serving, until
from published import fetched

from builders import a_body, a_vllm_deployment
from charts import SETS, Objects, say
from controlplane.chart import CHART, NAMESPACE, HelmError, helm, hooks_of, rendered
from controlplane.installation import Installation
from controlplane.plane import ControlPlane, control_plane
from shardgate.api.crd import crds

Json = dict[str, Any]
CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.21.1"
NOT_SERVED = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Their project publishes its CRDs in no Go module that can be had: of these kinds, only what `tests/chart` looks at is checked."""
STRICT = ("--server-side", "--field-manager=helm", "--force-conflicts", "--dry-run=server", "--validate=strict")


# ---- every object is taken


@pytest.fixture(scope="module")
def cert_manager(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """Its CRDs, as it publishes them."""
    try:
        return fetched(tmp_path_factory.mktemp("cert-manager"), [CERT_MANAGER])
    except subprocess.CalledProcessError as error:
        if "dial tcp" in error.stderr or "no such host" in error.stderr:
            pytest.skip(f"the Go module proxy is not reachable from here: {error.stderr.strip()[-200:]}")
        raise


@pytest.fixture
def ready(clean: ControlPlane, cert_manager: list[Json]) -> Iterator[ControlPlane]:
    """What the sets refer to is there."""
    there = [
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "runsc"},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
    ]
    clean.apply(*there)
    yield from serving(clean, cert_manager)
    clean.kubectl("delete", "runtimeclass", "gvisor")


@pytest.mark.parametrize("values", SETS, ids=lambda each: each.name)
def test_the_api_server_takes_every_object_of_a_set(ready: ControlPlane, values: Path) -> None:
    objects = [each for each in rendered("--values", str(values), say=say) if each["kind"] not in NOT_SERVED]
    taken = ready.apply(*objects, options=STRICT, check=False)
    assert (taken.returncode, taken.stderr) == (0, "")
    assert len(taken.stdout.splitlines()) == len(objects)


def test_its_pods_may_run_where_pod_security_is_restricted(clean: ControlPlane) -> None:
    clean.apply({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    })  # fmt: skip
    rendering = Objects(rendered(say=say))
    specs = [each["spec"]["template"]["spec"] for each in (*rendering.find("Deployment"), *rendering.find("Job"))]
    specs += [each["spec"] for each in rendering.find("Pod")]
    assert len(specs) == 4

    def tried(number: int, spec: Json) -> str:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}", "namespace": "restricted"}, "spec": spec}
        return clean.apply(pod, options=("--dry-run=server",), check=False).stderr

    for number, spec in enumerate(specs):
        assert tried(number, spec) == ""
        assert "violates PodSecurity" in tried(number, {**spec, "hostNetwork": True}), "the namespace is not restricted at all"


# ---- the life of a release


class Release:
    """One, on a control plane of its own: nothing of the other tests is helm's."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.installation = Installation(plane, keeps_certificates=True)
        self.values: Json = {
            "webhooks": {"url": f"https://127.0.0.1:{self.installation.webhook_port}", "failurePolicy": "Fail"},
            "config": {"certificateHosts": ["127.0.0.1"], "bindAddress": "127.0.0.1", "drainSeconds": 0},
            "ports": {"webhook": self.installation.webhook_port, "metrics": self.installation.metrics_port},
        }

    def helm(self, *arguments: str, values: Json | None = None) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str(self.plane.kubeconfig)}
        if "SHARDGATE_TOOLS" in os.environ:
            environment["SHARDGATE_TOOLS"] = os.environ["SHARDGATE_TOOLS"]
        return helm(*arguments, "--namespace", NAMESPACE, say=say, values=values, environment=environment)

    def objects(self) -> Objects:
        """As the release was last made, hooks among them."""
        text = self.helm("get", "manifest", "shardgate") + "\n---\n" + self.helm("get", "hooks", "shardgate")
        return Objects([each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each])

    def start_operator(self) -> None:
        """By the ConfigMap that helm made, with the rights that helm granted."""
        config = self.folder / "config.yaml"
        config.write_text(self.plane.get("configmap", "shardgate", "-n", NAMESPACE)["data"]["config.yaml"])
        self.installation.connect()
        self.installation.environment = lambda: {  # type: ignore[method-assign]  # the rendered file alone
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str(self.installation.kubeconfig),
            "SHARDGATE_CONFIG": str(config),
        }  # fmt: skip
        self.installation.start()

    def hook(self, objects: Sequence[Json], moment: str, container: str = "uninstall") -> "subprocess.CompletedProcess[str]":
        """What helm and a kubelet would do: make what the hook needs, run its command with its account's token."""
        *needed, last = hooks_of(objects, moment)
        self.plane.apply(*needed)
        spec = last["spec"]["template"]["spec"] if last["kind"] == "Job" else last["spec"]
        (run,) = [each for each in spec["containers"] if each["name"] == container]
        token = self.plane.kubectl("-n", NAMESPACE, "create", "token", spec["serviceAccountName"]).stdout.strip()
        kubeconfig = self.plane.token_kubeconfig(token, f"hook-{moment}")
        mounted = self.folder / "declarations"
        mounted.mkdir(exist_ok=True)
        for each in needed:
            if each["kind"] == "ConfigMap":
                for name, text in each["data"].items():
                    (mounted / name).write_text(text)
        return subprocess.run(
            [*run["command"], *run["args"]], capture_output=True, text=True, check=False, timeout=120,
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder), "KUBECONFIG": str(kubeconfig),
                "DECLARATIONS": str(mounted),
            },
        )  # fmt: skip

    def forget(self, objects: Sequence[Json], moment: str) -> None:
        """What helm deletes once the hook has succeeded."""
        for each in hooks_of(objects, moment)[:-1]:
            where = ("-n", each["metadata"]["namespace"]) if "namespace" in each["metadata"] else ()
            self.plane.kubectl("delete", each["kind"].lower(), each["metadata"]["name"], *where)

    def remove(self) -> None:
        """Whatever of it a test that failed has left."""
        self.plane.kubectl("delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all")
        with suppress(HelmError):
            self.helm("uninstall", "shardgate", "--no-hooks")

    def everything(self) -> set[str]:
        """All objects of the cluster, but for what Kubernetes itself makes and drops."""
        kinds = self.plane.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
        passing = ("events", "leases.coordination.k8s.io", "endpointslices", "endpoints", "componentstatuses", "apiservices")
        asked = ",".join(each for each in kinds if not each.startswith(passing))
        found = self.plane.kubectl("get", asked, "-A", "-o", "json").stdout
        found_here = [each for each in json.loads(found)["items"] if each["metadata"]["name"] != "kube-root-ca.crt"]
        ours = self.plane.get("leases", "-n", NAMESPACE)["items"]
        return {
            f"{each['kind']} {each['metadata'].get('namespace', '')}/{each['metadata']['name']}" for each in (*found_here, *ours)
        }


@pytest.fixture(scope="module")
def own_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    with control_plane(failed=lambda: request.session.testsfailed > 0) as plane:
        for name in (NAMESPACE, "serving"):
            plane.kubectl("create", "namespace", name)
        yield plane


@pytest.fixture
def release(own_plane: ControlPlane, tmp_path: Path) -> Iterator[Release]:
    made = Release(own_plane, tmp_path)
    yield made
    made.installation.kill()
    made.remove()


def refuses(plane: ControlPlane) -> Callable[[], bool]:
    uneven = a_body("probe", strategy={"tensor": 3})
    return lambda: "HeadsUneven" in plane.apply(uneven, options=("--dry-run=server",), check=False).stderr


def older_chart(folder: Path) -> Path:
    """A version that was never released: this one, with a CRD that lacks its short names."""
    older = folder / "older"
    shutil.copytree(CHART, older)
    about = older / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.0.9", 1))
    crd = older / "templates/crds/modelprofiles.yaml"
    text = crd.read_text()
    assert "    shortNames:\n    - modelprof\n" in text
    crd.write_text(text.replace("    shortNames:\n    - modelprof\n", ""))
    return older


def short_names(plane: ControlPlane) -> Any:
    return plane.get("crd", "modelprofiles.shardgate.io")["spec"]["names"].get("shortNames")


@fault(
    47, what="uninstall, also with the operator dead and failurePolicy Fail",
    criterion="configurations go first; creates succeed at once; nothing is left but the CRDs, their objects and the namespace",
)  # fmt: skip
@pytest.mark.parametrize("ends", ["alive", "dead"])
def test_install_upgrade_and_uninstall_leave_nothing_and_block_nothing(release: Release, ends: str, measured: Measured) -> None:
    plane = release.plane
    before = release.everything()
    notes = release.helm("install", "shardgate", str(older_chart(release.folder)), values=release.values)
    assert f"every namespace but kube-*, {NAMESPACE}." in notes
    assert "What it judges is refused" in notes.replace("When it does not answer, what", "What")
    assert short_names(plane) is None or ends == "dead", "the CRDs of the first release stayed"
    release.start_operator()
    until("it refuses", refuses(plane), 30)

    tried = release.hook(release.objects().all, "test", "test")
    assert (tried.returncode, tried.stderr) == (0, ""), tried.stdout
    release.forget(release.objects().all, "test")

    bundle = plane.get("validatingwebhookconfiguration", "shardgate")["webhooks"][0]["clientConfig"]["caBundle"]
    changed = {**release.values, "webhooks": {**release.values["webhooks"], "timeoutSeconds": 5}, "replicas": 3}
    release.helm("upgrade", "shardgate", str(CHART), values=changed)
    webhook = plane.get("validatingwebhookconfiguration", "shardgate")["webhooks"][0]
    assert (webhook["timeoutSeconds"], webhook["clientConfig"]["caBundle"]) == (5, bundle)
    assert plane.get("deployment", "shardgate", "-n", NAMESPACE)["spec"]["replicas"] == 3
    assert short_names(plane) == ["modelprof"], "an upgrade brings the CRDs of its version"
    assert refuses(plane)()

    plane.apply(a_vllm_deployment("wrong", tensor=8, gpus=4))
    until("a verdict stands", lambda: bool(plane.get("workloadverdicts", "-A")["items"]), 30)
    until("the ledger stands", lambda: plane.kubectl("get", "capacityledger", "shardgate", check=False).returncode == 0, 30)
    kept = a_body("kept", replicas=0)
    plane.apply(kept)
    made = release.everything() - before
    assert {f"Secret {NAMESPACE}/shardgate-webhook-tls", f"Lease {NAMESPACE}/shardgate", "CapacityLedger /shardgate"} <= made

    objects = release.objects().all
    if ends == "dead":
        release.installation.kill()
        refused = plane.apply(a_body("other", replicas=0), check=False)
        assert "failed calling webhook" in refused.stderr, "it fails closed"
    first = release.hook(objects, "pre-delete")
    assert (first.returncode, first.stderr) == (0, "")
    seconds = until("nothing is held up", lambda: plane.apply(a_body("other", replicas=0), check=False).returncode == 0, 10)
    release.forget(objects, "pre-delete")
    release.helm("uninstall", "shardgate", "--no-hooks")
    last = release.hook(objects, "post-delete")
    assert (last.returncode, last.stderr) == (0, "")
    release.forget(objects, "post-delete")
    if ends == "alive":
        time.sleep(3)  # it has no more rights, and writes nothing again
        release.installation.stop()

    plane.kubectl("delete", "deployment", "wrong", "-n", "serving")
    stay = {f"CustomResourceDefinition /{plural}.shardgate.io" for plural in crds()}
    stay |= {f"InferenceDeployment serving/{name}" for name in ("kept", "other")}
    until("nothing else is left", lambda: release.everything() - before - stay == set(), 20)
    assert stay - before <= release.everything()
    measured(f"operator {ends}: a create passes {seconds:.1f} s after the first hook; nothing else is left")
    plane.kubectl("delete", "infd", "--all", "-n", "serving")


def test_without_webhooks_the_releases_test_fails_and_says_what_to_look_at(release: Release) -> None:
    values = {"webhooks": {"create": False}}
    release.helm("install", "shardgate", str(CHART), values=values)
    objects = release.objects().all
    tried = release.hook(objects, "test", "test")
    assert tried.returncode == 1
    assert "are the webhooks in place" in tried.stdout
    release.forget(objects, "test")
    release.helm("uninstall", "shardgate", "--no-hooks")


def test_hooks_that_run_twice_or_find_nothing_are_content(release: Release) -> None:
    release.helm("install", "shardgate", str(CHART), values=release.values)
    objects = release.objects().all
    for _ in range(2):
        for moment in ("pre-delete", "post-delete"):
            result = release.hook(objects, moment)
            assert (result.returncode, result.stderr) == (0, "")
    for moment in ("pre-delete", "post-delete"):
        release.forget(objects, moment)
    release.helm("uninstall", "shardgate", "--no-hooks")


def test_a_second_installation_is_refused_by_helm(release: Release) -> None:
    """It would fight the first for the webhook configurations."""
    release.helm("install", "shardgate", str(CHART), values=release.values)
    with pytest.raises(Exception, match='WebhookConfiguration "shardgate" in namespace "" exists and cannot be imported'):
        release.helm("install", "another", str(CHART), values={**release.values, "crds": {"install": False}})
    release.helm("uninstall", "shardgate", "--no-hooks")
