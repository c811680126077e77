"""Shardgate on the run's control plane."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live import remove_everything, until

from builders import a_body
from controlplane.installation import Installation
from controlplane.plane import ControlPlane

NAMESPACES = ("serving", "unseen")
"""``unseen`` never reaches the webhooks: what stands there slipped through admission."""

ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@pytest.fixture(scope="session")
def installed(plane: ControlPlane) -> ControlPlane:
    """CRDs, RBAC and namespaces."""
    Installation(plane).install()
    for name in NAMESPACES:
        plane.kubectl("create", "namespace", name)
    return plane


@pytest.fixture
def clean(installed: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster without nodes, pods and declarations, before and after."""
    installed.kubectl("delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all")
    remove_everything(installed)
    yield installed
    installed.kubectl("delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all")


@pytest.fixture
def karpenter(clean: ControlPlane) -> Iterator[ControlPlane]:
    """Karpenter's kinds are served."""
    definitions = [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{kind.lower()}s.karpenter.sh"},
            "spec": {
                "group": "karpenter.sh",
                "scope": "Cluster",
                "names": {"kind": kind, "plural": f"{kind.lower()}s"},
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": ANYTHING}}],
            },
        }
        for kind in ("NodePool", "NodeClaim")
    ]
    clean.apply(*definitions)
    until("NodePools are served", lambda: clean.kubectl("get", "nodepools,nodeclaims", check=False).returncode == 0)
    yield clean
    clean.kubectl("delete", "customresourcedefinitions", *(each["metadata"]["name"] for each in definitions))


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
        each["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"].append("unseen")
    installation.plane.apply(*configurations)
    uneven = a_body("probe", strategy={"tensor": 3})

    def validated() -> bool:
        return "HeadsUneven" in installation.plane.apply(uneven, options=("--dry-run=server",), check=False).stderr

    def mutated() -> bool:
        shown = installation.plane.apply(a_body("probe", replicas=0), options=("--dry-run=server", "-o", "yaml")).stdout
        return "shardgate.io/verdict: " in shown

    until("the API server calls validate", validated)
    until("the API server calls mutate", mutated)
