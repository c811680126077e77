"""Shardgate on the run's control plane."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from audit import granted, used
from faults import Measured, properties
from live import remove_everything, serving, until

from builders import a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from shardgate.adapters.manifests import GUARDS

NAMESPACES = ("serving", "unseen")
"""``unseen`` never reaches the webhooks: what stands there slipped through admission."""

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A fault test's report says which fault it was."""
    for item in items:
        item.user_properties.extend(properties(item))


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Measured:
    """Keeps a figure for the page."""
    return lambda text: record_property("measured", text)


@pytest.fixture(scope="session")
def installed(plane: ControlPlane) -> Iterator[ControlPlane]:
    """CRDs, RBAC and namespaces. Whatever tests did to operators here, none asked for what its roles do not name."""
    Installation(plane).install()
    for name in NAMESPACES:
        plane.kubectl("create", "namespace", name)
    yield plane
    assert used(plane) - granted(keeps_certificates=True, follows_agents=True) == set()


@pytest.fixture
def clean(installed: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster without nodes, pods and declarations, before and after."""
    installed.kubectl("delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all")
    remove_everything(installed)
    yield installed
    installed.kubectl("delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all")


def definition(group: str, kind: str, versions: Sequence[str], *, scope: str = "Namespaced", plural: str = "") -> dict[str, Any]:
    """A CRD of somebody else's kind, that takes anything."""
    names = {"kind": kind, "plural": plural or f"{kind.lower()}s"}
    served = [
        {"name": version, "served": True, "storage": index == 0, "schema": {"openAPIV3Schema": ANYTHING}}
        for index, version in enumerate(versions)
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "scope": scope, "names": names, "versions": served},
    }


@pytest.fixture
def karpenter(clean: ControlPlane) -> Iterator[ControlPlane]:
    """Karpenter's kinds are served."""
    yield from serving(clean, [definition("karpenter.sh", kind, ["v1"], scope="Cluster") for kind in ("NodePool", "NodeClaim")])


REFERRED_TO = (
    definition("serving.kserve.io", "ServingRuntime", ["v1alpha1"]),
    definition("serving.kserve.io", "ClusterServingRuntime", ["v1alpha1"], scope="Cluster"),
    definition("serving.kserve.io", "LLMInferenceServiceConfig", ["v1alpha2"]),
    definition("apps.nvidia.com", "NIMCache", ["v1alpha1"]),
    definition("kueue.x-k8s.io", "LocalQueue", ["v1beta2"]),
    definition("kueue.x-k8s.io", "ClusterQueue", ["v1beta2"], scope="Cluster"),
    definition("kueue.x-k8s.io", "Cohort", ["v1beta2"], scope="Cluster"),
)


@pytest.fixture
def referred_to(clean: ControlPlane) -> Iterator[ControlPlane]:
    """Kinds that workloads of others refer to are served."""
    yield from serving(clean, REFERRED_TO)


OTHER_KINDS = (
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet", ["v1"]),
    ("serving.kserve.io", "LLMInferenceService", ["v1alpha2", "v1alpha1"]),
    ("serving.kserve.io", "InferenceService", ["v1beta1"]),
    ("nvidia.com", "DynamoGraphDeployment", ["v1alpha1", "v1beta1"]),
    ("apps.nvidia.com", "NIMService", ["v1alpha1"]),
    ("ray.io", "RayService", ["v1"]),
    ("ray.io", "RayCluster", ["v1"]),
    ("kaito.sh", "Workspace", ["v1beta1"]),
    ("argoproj.io", "Rollout", ["v1alpha1"]),
)


@pytest.fixture
def other_kinds(clean: ControlPlane) -> Iterator[ControlPlane]:
    """Kinds of others are served."""
    yield from serving(clean, [definition(*each) for each in OTHER_KINDS])


Start = Callable[..., Installation]


@pytest.fixture
def start(clean: ControlPlane) -> Iterator[Start]:
    """Starts an operator of its own, with no memory of other tests' nodes, and registers its webhooks."""
    with ExitStack() as stack:

        def begin(*, failure_policy: str = "Ignore", webhooks: bool = True) -> Installation:
            installation = Installation(clean, failure_policy=failure_policy)
            installation.connect()
            stack.callback(installation.stop)
            installation.start()
            if webhooks:
                register(installation)
            return installation

        yield begin


def register(installation: Installation) -> None:
    """And wait until the API server calls them: it learns of them by a watch of its own."""
    configurations = installation.webhooks()
    for each in configurations:
        for webhook in each["webhooks"]:
            if webhook["name"] not in GUARDS:
                webhook["namespaceSelector"]["matchExpressions"][0]["values"].append("unseen")
    installation.plane.apply(*configurations)
    uneven = a_body("probe", strategy={"tensor": 3})

    def validated() -> bool:
        return "HeadsUneven" in installation.plane.apply(uneven, options=("--dry-run=server",), check=False).stderr

    def mutated() -> bool:
        shown = installation.plane.apply(a_body("probe", replicas=0), options=("--dry-run=server", "-o", "yaml")).stdout
        return "shardgate.io/verdict: " in shown

    until("the API server calls validate", validated)
    until("the API server calls mutate", mutated)
