"""Keeps a node's ``GpuNodeReport`` and its Lease: both named as the node, and gone with it."""

import datetime
from typing import Any

from shardgate.adapters.gpu_node_reports import KIND, PLURAL
from shardgate.api import API_VERSION, GROUP, VERSION
from shardgate.shells.agent.api_server import JSON_PATCH, MERGE_PATCH, ApiServer, Refused

Json = dict[str, Any]

REPORTS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
LABELS = {"app.kubernetes.io/name": "shardgate", "app.kubernetes.io/component": "agent"}
NOT_FOUND, CONFLICT = 404, 409


def now() -> str:
    """As Kubernetes writes times."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Publisher:
    """Writes for one node. Raises the API client's ``Refused`` and ``Unreachable``; every call may be made again."""

    def __init__(self, api: ApiServer, node: str, *, namespace: str, lease_seconds: int) -> None:
        self._api, self._node = api, node
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._lease_seconds = lease_seconds
        self._owner: Json | None = None
        self._has_report = self._has_lease = False

    def publish(self, status: Json) -> None:
        """Write a report's whole status."""
        if not self._has_report:
            self._make_report()
        patch = [{"op": "add", "path": "/status", "value": status}]
        try:
            self._api.request("PATCH", f"{REPORTS}/{self._node}/status", patch, JSON_PATCH)
        except Refused as error:
            if error.status == NOT_FOUND:
                self.forget()
            raise

    def published(self) -> Json | None:
        """The status that stands there; ``None`` where there is none."""
        try:
            report = self._api.request("GET", f"{REPORTS}/{self._node}")
        except Refused as error:
            if error.status != NOT_FOUND:
                raise
            self.forget()
            return None
        return report.get("status") or None

    def beat(self) -> None:
        """Tell that the agent lives."""
        if self._has_lease:
            try:
                self._api.request("PATCH", f"{self._leases}/{self._node}", {"spec": {"renewTime": now()}}, MERGE_PATCH)
            except Refused as error:
                if error.status == NOT_FOUND:
                    self.forget()
                raise
            return
        self._make_lease()

    def forget(self) -> None:
        """What we made is gone, perhaps with the node, and another of its name may be there: look again."""
        self._owner, self._has_report, self._has_lease = None, False, False

    def _owned(self) -> Json:
        """Metadata of what goes with the node."""
        if self._owner is None:
            node = self._api.request("GET", f"/api/v1/nodes/{self._node}")
            self._owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node["metadata"]["uid"]}
        return {"name": self._node, "labels": LABELS, "ownerReferences": [self._owner]}

    def _make_report(self) -> None:
        self._make(REPORTS, {"apiVersion": API_VERSION, "kind": KIND, "metadata": self._owned()})
        self._has_report = True

    def _make_lease(self) -> None:
        spec = {"holderIdentity": self._node, "leaseDurationSeconds": self._lease_seconds, "renewTime": now()}
        self._make(self._leases, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": self._owned(), "spec": spec})
        self._has_lease = True

    def _make(self, collection: str, body: Json) -> None:
        """Create it; one that is there already is made ours."""
        try:
            self._api.request("POST", collection, body)
        except Refused as error:
            if error.status != CONFLICT:
                raise
            known = {key: value for key, value in body.items() if key not in ("apiVersion", "kind")}
            self._api.request("PATCH", f"{collection}/{self._node}", known, MERGE_PATCH)
