"""``doctor``: whether a live installation is healthy, looked at with the rights of the person who asks.

What may not be read is a check that could not be told. Nothing is written: what is asked of admission is a dry run.
"""

import asyncio
import datetime
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from shardgate.adapters.checkup import answers, installation, operation, surroundings
from shardgate.adapters.checkup.answers import Answer
from shardgate.adapters.checkup.check import Check, Found, Json, Listed, State, Unread, is_healthy
from shardgate.adapters.checkup.installation import Right
from shardgate.adapters.warning_headers import warnings_in
from shardgate.adapters.webhook_registrations import expected
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import API_VERSION, GROUP, VERSION
from shardgate.api.crd import crds
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.documents import Document
from shardgate.shells.ledger import NAME as LEDGER
from shardgate.shells.ledger import PATH as LEDGERS
from shardgate.shells.snapshot import Snapshot
from shardgate.shells.webhook_registrations import NAME as CONFIGURATION
from shardgate.shells.webhook_registrations import PLURALS
from shardgate.shells.webhook_registrations import ROOT as REGISTRATION

AT_ONCE = 8
"""Requests in flight: a person's credentials may be throttled, and the API server has others to serve."""
SECOND_LOOK_SECONDS = 5.0
"""A Lease is renewed every two seconds."""
EXPOSITION_SECONDS = 20.0
TLS_SECONDS = 5
DRY = {"dryRun": "All", "fieldManager": "shardgate-doctor"}
HTTP_NOT_FOUND = 404
MAY_NOT = (401, 403)
REVIEWS = "/apis/authorization.k8s.io/v1"
ALERTS = "/apis/monitoring.coreos.com/v1/prometheusrules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """All checks, in a fixed order."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool | None:
        """``None`` where something essential could not be told."""
        return is_healthy(self.checks)

    def json(self) -> Json:
        """As it is printed."""
        counts = {state.value: sum(each.state is state for each in self.checks) for state in State}
        return {
            "apiVersion": API_VERSION, "kind": "Checkup", "healthy": self.healthy, "counts": counts,
            "checks": [each.json() for each in self.checks],
        }  # fmt: skip


def check_up(namespace: str, operator_namespace: str, account: str = "shardgate") -> Checkup:
    """``namespace``: where admission is asked; ``account``: the operator's, if none is read. Raises ``ClusterUnreachable``."""
    return asyncio.run(_look(namespace, operator_namespace, account))


async def _look(namespace: str, operator_namespace: str, account: str) -> Checkup:
    async with Cluster.from_environment() as cluster:
        return Checkup(checks=tuple(await _Doctor(cluster, namespace, operator_namespace, account).checks()))


class _Doctor:
    """One look at everything."""

    def __init__(self, cluster: Cluster, namespace: str, operator_namespace: str, account: str) -> None:
        self._cluster, self._namespace, self._home, self._account = cluster, namespace, operator_namespace, account
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def checks(self) -> list[Check]:
        """In a fixed order."""
        version = await self._one("/version", "the API server's version")  # nothing else is asked where nobody answers
        configurations = await self._configurations()
        is_exempt = installation.is_exempt(self._namespace, configurations) or self._namespace == self._home
        deployments, pods, ledger, rules = await asyncio.gather(
            self._listed(f"/apis/apps/v1/namespaces/{self._home}/deployments", "deployments", operation.NAME_LABEL),
            self._listed(f"/api/v1/namespaces/{self._home}/pods", "pods", operation.NAME_LABEL),
            self._one(f"{LEDGERS}/{LEDGER}", "the CapacityLedger"),
            self._listed(ALERTS, "prometheusrules"),
        )
        asked = [f(self._namespace) for f in (answers.question_body, answers.allowed_body, answers.refused_body)]
        question, allowed, refused = [await self._dry_run(body) for body in asked]
        reached = answers.reached(question, self._namespace, is_exempt=is_exempt)
        served = await self._served(configurations)
        lease = await self._lease()
        is_led = lease.state in (State.OK, State.WARNING, State.UNKNOWN)
        return [
            installation.kubernetes_version(version),
            await self._definitions(),
            installation.webhooks(configurations),
            *installation.slow_webhooks(configurations),
            reached,
            answers.let_in(allowed, self._namespace, is_exempt=is_exempt),
            answers.turned_away(refused, self._namespace, is_exempt=is_exempt),
            operation.certificate(configurations, served, _now(), is_trusted=reached.state is State.OK),
            await self._access(deployments),
            operation.deployment(deployments, pods, self._home),
            lease,
            *operation.conditions(ledger, is_led=is_led),
            await self._nodes(),
            surroundings.policies(await self._listed(f"/apis/{GROUP}/{VERSION}/verificationpolicies", "verificationpolicies")),
            surroundings.alerts(None if rules == [] and not await self._serves(ALERTS) else rules, self._home),
            surroundings.failing_open(await self._exposition()),
            *operation.predictions(ledger),
        ]

    # ---- reading

    async def _read(self, what: str, ask: Callable[[], Awaitable[Any]], missing: Any) -> Any:
        """What ``ask`` returns; ``missing`` for a 404; why not for any other error. ``ClusterUnreachable`` is not caught."""
        async with self._slots:
            try:
                return await ask()
            except ApiError as error:
                if error.status == HTTP_NOT_FOUND:
                    return missing
                if error.status in MAY_NOT:
                    return Unread(f"you may not read {what}")
                return Unread(f"{what}: the API server said {error}")

    async def _one(self, path: str, what: str) -> Found:
        found: Found = await self._read(what, lambda: self._cluster.request("GET", path), None)
        return found

    async def _listed(self, path: str, what: str, labels: str = "") -> Listed:
        async def ask() -> list[Json]:
            if not labels:
                return await self._cluster.list_all(path)
            return dicts((await self._cluster.request("GET", path, parameters={"labelSelector": labels})).get("items"))

        found: Listed = await self._read(what, ask, [])
        return found

    async def _serves(self, path: str) -> bool:
        """Whether a kind is served at all: its list is empty either way."""
        group, _, plural = path.rpartition("/")
        listed = await self._one(group, "the API's groups")
        return any(each.get("name") == plural for each in dicts(mapping(listed).get("resources")))

    async def _configurations(self) -> dict[str, Found]:
        found = await asyncio.gather(*(
            self._one(f"{REGISTRATION}/{PLURALS[kind]}/{CONFIGURATION}", PLURALS[kind]) for kind in expected()
        ))  # fmt: skip
        return dict(zip(expected(), found, strict=True))

    async def _definitions(self) -> Check:
        names = list(crds())
        root = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        found = await asyncio.gather(*(self._one(f"{root}/{name}.{GROUP}", "customresourcedefinitions") for name in names))
        served = await self._one(f"/apis/{GROUP}/{VERSION}", "the API's groups")
        return installation.definitions(dict(zip(names, found, strict=True)), served)

    # ---- asking

    async def _dry_run(self, body: Json) -> Answer:
        plural = {"InferenceDeployment": "inferencedeployments", "DecisionReview": "decisionreviews"}[body["kind"]]
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/{plural}"
        try:
            stands, headers = await self._cluster.answered("POST", path, parameters=DRY, body=body)
        except ApiError as error:
            return Answer(status=error.status, message=error.message)
        return Answer(stands=stands, warnings=warnings_in(headers))

    async def _access(self, deployments: Listed) -> Check:
        templates = [mapping(mapping(mapping(each.get("spec")).get("template")).get("spec")) for each in _objects(deployments)]
        named = next((str(each["serviceAccountName"]) for each in templates if each.get("serviceAccountName")), self._account)
        user = f"system:serviceaccount:{self._home}:{named}"
        me = await self._read(
            "who you are",
            lambda: self._cluster.request(
                "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            ),
            None,
        )  # fmt: skip
        asks_for_itself = isinstance(me, dict) and mapping(mapping(me.get("status")).get("userInfo")).get("username") == user
        first, *others = installation.rights(self._home)
        granted = [await self._may(first, user, for_itself=asks_for_itself)]
        if isinstance(granted[0], bool):  # who may not ask once may not ask a hundred times
            granted += await asyncio.gather(*(self._may(each, user, for_itself=asks_for_itself) for each in others))
        unread = next((each for each in granted if isinstance(each, Unread)), None)
        account = f"ServiceAccount {self._home}/{named}"
        if unread is not None:
            return installation.access(account, unread)
        return installation.access(account, {right: bool(each) for right, each in zip((first, *others), granted, strict=True)})

    async def _may(self, right: Right, user: str, *, for_itself: bool) -> bool | Unread:
        who: Json = {} if for_itself else {"user": user, "groups": _groups_of(user)}
        kind = "SelfSubjectAccessReview" if for_itself else "SubjectAccessReview"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": {**who, "resourceAttributes": right.attributes}}

        async def ask() -> bool:
            status = mapping((await self._cluster.request("POST", f"{REVIEWS}/{kind.lower()}s", body=body)).get("status"))
            return bool(status.get("allowed")) and not status.get("denied")

        what, nowhere = f"what {user} may do (subjectaccessreviews)", Unread("access cannot be reviewed here")
        found: bool | Unread = await self._read(what, ask, nowhere)
        return found

    # ---- looking

    async def _lease(self) -> Check:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self._home}/leases/shardgate"
        first, at = await self._one(path, "the Lease"), _now()
        later: Found = None
        if operation.looks_old(first, at):
            await asyncio.sleep(SECOND_LOOK_SECONDS)
            later = await self._one(path, "the Lease")
        return operation.lease(first, later, at, self._home)

    async def _nodes(self) -> Check:
        snapshot = Snapshot()
        for path, version, kind in (
            ("/apis/resource.k8s.io/v1/resourceslices", "resource.k8s.io/v1", "ResourceSlice"), ("/api/v1/nodes", "v1", "Node"),
        ):  # fmt: skip
            listed = await self._listed(path, f"{kind.lower()}s")
            if isinstance(listed, Unread):
                if kind == "Node":
                    return surroundings.gpu_nodes(listed, ())
                continue  # nodes' labels tell most
            snapshot.add(Document(self._cluster.server, {"apiVersion": version, "kind": kind, **each}) for each in listed)
        return surroundings.gpu_nodes(snapshot.nodes(), [each.problem for each in snapshot.unreadable])

    async def _served(self, configurations: Mapping[str, Found]) -> bytes | Unread:
        """The serving certificate, where a URL is called that answers from here. No Secret is read: it holds a key."""
        url = _url(configurations)
        if url is None:
            return Unread("a Service is called")
        parts = urllib.parse.urlsplit(url)
        try:
            address = (parts.hostname or "", parts.port or 443)
            pem = await asyncio.to_thread(ssl.get_server_certificate, address, timeout=TLS_SECONDS)
        except (OSError, ValueError) as error:
            return Unread(f"{parts.hostname}:{parts.port or 443}: {error}")
        return pem.encode()

    async def _exposition(self) -> str | Unread:
        """The API server's own metrics."""

        async def ask() -> str:
            async with self._cluster.stream("/metrics", {}, aiohttp.ClientTimeout(total=EXPOSITION_SECONDS)) as response:
                return (await response.read()).decode(errors="replace")

        try:
            found: str | Unread = await self._read("the API server's metrics", ask, Unread("the API server has no metrics"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Unread(f"the API server's metrics: {error or type(error).__name__}")
        return found


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _objects(found: Listed) -> list[Json]:
    return [] if isinstance(found, Unread) else found


def _groups_of(user: str) -> list[str]:
    """As the API server counts a ServiceAccount."""
    namespace = user.split(":")[2]
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def _url(configurations: Mapping[str, Found]) -> str | None:
    """Of a webhook that is called by URL rather than by its Service."""
    for stands in configurations.values():
        for each in dicts(stands.get("webhooks")) if isinstance(stands, dict) else ():
            url = mapping(each.get("clientConfig")).get("url")
            if url:
                return str(url)
    return None
