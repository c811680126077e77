"""``why KIND/NAME``: what is known of a live object, looked up in the user's own name. What may not be read is said."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.explanation import Explanation, Observed, explain
from shardgate.adapters.inference_deployments import is_inference_deployment
from shardgate.adapters.pods import OWN_KIND as OWN_KIND_NAME
from shardgate.adapters.pods import owners_of, pod_from
from shardgate.adapters.referred_workloads import groups_in, read_declaration
from shardgate.adapters.report import reference_of, report
from shardgate.adapters.standing_workloads import referred_to
from shardgate.adapters.workload_declarations import GroupDeclaration, declare
from shardgate.adapters.workload_verdict_objects import PLURAL as VERDICTS
from shardgate.adapters.workload_verdict_objects import name_of
from shardgate.adapters.workload_verdicts import judged_groups, workload_report
from shardgate.adapters.workloads.kinds import JUDGED_KINDS, MADE_BY, JudgedKind, controller_of
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.registry import read_workload
from shardgate.adapters.workloads.values import dicts, mapping
from shardgate.api import GROUP, VERSION
from shardgate.domain.inventory import Owner
from shardgate.domain.policy import FOREIGN_KIND, OWN_KIND
from shardgate.domain.verify import verify
from shardgate.shells.cluster import ApiError, Cluster
from shardgate.shells.failures import NotFound
from shardgate.shells.snapshot import Snapshot, live

Json = dict[str, Any]
HTTP_NOT_FOUND = 404
MAY_NOT = (401, 403)
OWN = JudgedKind(
    group=GROUP, versions=(VERSION,), plural="inferencedeployments", kind=OWN_KIND_NAME, gpus="elsewhere", is_followed=False
)
KUEUE = tuple(f"/apis/kueue.x-k8s.io/{version}" for version in ("v1beta2", "v1beta1"))
SHORT = {
    "infd": OWN_KIND_NAME, "deploy": "Deployment", "sts": "StatefulSet", "rs": "ReplicaSet", "po": "Pod", "lws": "LeaderWorkerSet",
    "isvc": "InferenceService", "llmisvc": "LLMInferenceService", "dgd": "DynamoGraphDeployment",
}  # fmt: skip
"""As kubectl knows them."""


class NoSuchObject(NotFound):
    """It is not there, or of no kind that is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The explanation, and the report where it was judged now."""

    body: Json
    explanation: Explanation
    report: Json | None

    def json(self) -> Json:
        """As it is printed."""
        metadata, found = self.body["metadata"], self.explanation
        return {
            "apiVersion": f"{GROUP}/{VERSION}", "kind": "Explanation",
            "subject": {
                "apiVersion": self.body["apiVersion"], "kind": self.body["kind"], "namespace": metadata["namespace"],
                "name": metadata["name"],
            },
            "cause": found.cause, "answer": found.answer,
            "evidence": [{"part": part, "text": text} for part, text in found.evidence],
            "unread": [{"part": part, "why": text} for part, text in found.unread],
            "report": self.report,
        }  # fmt: skip


def kind_named(text: str) -> JudgedKind:
    """``deploy``, ``Deployment``, ``deployments``, ``deployment.apps``. Raises ``NoSuchObject``."""
    name, _, group = text.lower().partition(".")
    full = SHORT.get(name, name).lower()
    for each in (OWN, *JUDGED_KINDS):
        if full in (each.kind.lower(), each.plural) and (not group or each.group in (group, group.partition(".")[2])):
            return each
    known = ", ".join(each.kind for each in (OWN, *JUDGED_KINDS))
    problem = f"{text} is no kind that is judged: {known}"
    raise NoSuchObject(problem)


def why_live(kind: str, name: str, namespace: str) -> Answer:
    """Raises ``NoSuchObject``, ``ClusterUnreachable``, and ``ApiError`` where the object itself may not be read."""
    return asyncio.run(_why(kind_named(kind), name, namespace))


@dataclass(slots=True)
class _LookUp:
    """One object and what belongs to it, as far as it may be read."""

    cluster: Cluster
    namespace: str
    unread: list[tuple[str, str]] = field(default_factory=list)

    async def list(self, part: str, paths: Sequence[str]) -> list[Json] | None:
        """All of a kind in the namespace, of the first path that is served; ``None`` where they may not be read."""
        for path in paths:
            root, _, plural = path.rpartition("/")
            try:
                return await self.cluster.list_all(f"{root}/namespaces/{self.namespace}/{plural}")
            except ApiError as error:
                if error.status in MAY_NOT:
                    self.unread.append((part, f"{plural} may not be read"))
                    return None
                if error.status != HTTP_NOT_FOUND:
                    raise
        return []

    async def one(self, kind: JudgedKind, name: str) -> Json | None:
        """``None`` where there is none, or the kind is not served."""
        for path in kind.paths:
            root, _, plural = path.rpartition("/")
            try:
                found: Json = await self.cluster.request("GET", f"{root}/namespaces/{self.namespace}/{plural}/{name}")
            except ApiError as error:
                if error.status != HTTP_NOT_FOUND:
                    raise
            else:
                return found
        return None


async def _why(kind: JudgedKind, name: str, namespace: str) -> Answer:
    async with Cluster.from_environment() as cluster:
        look = _LookUp(cluster, namespace)
        body = await look.one(kind, name)
        if body is None:
            problem = f"no {kind.kind} {namespace}/{name}"
            raise NoSuchObject(problem)
        heads = [body, *await _named_by(look, body)]
        made = await _made_for(look, heads)
        pods = await _pods(look, [*heads, *made]) if kind.kind != "Pod" else [body]
        uids = {_uid(each) for each in (*heads, *made, *(pods or ()))}
        events = await look.list("events", ["/api/v1/events"])
        queued = await look.list("queue", [f"{root}/workloads" for root in KUEUE])
        quotas = await look.list("quota", ["/api/v1/resourcequotas"])
        owners = tuple(Owner(namespace, str(each["kind"]), str(each["metadata"]["name"])) for each in made)
        verdict, verdict_is, document = await _verdict(look, body, owners)
    seen = Observed(
        body=body, verdict=verdict, verdict_is=verdict_is, quotas=quotas, pods=pods,
        events=None if events is None else [each for each in events if mapping(each.get("involvedObject")).get("uid") in uids],
        queued=None if queued is None else [each for each in queued if not uids.isdisjoint(_owner_uids(each))],
        unread=tuple(look.unread),
    )  # fmt: skip
    return Answer(body=body, explanation=explain(seen), report=document)


async def _named_by(look: _LookUp, body: Json) -> list[Json]:
    """The workload that an InferenceDeployment is about."""
    group, kind, _, name = referred_to(body) or ("", "", "", "")
    found = next((each for each in JUDGED_KINDS if (each.group, each.kind) == (group, kind)), None)
    if found is None:
        return []
    try:
        named = await look.one(found, name)
    except ApiError as error:
        if error.status not in MAY_NOT:
            raise
        look.unread.append(("pods", f"{found.kind} {name} may not be read"))
        return []
    return [] if named is None else [named]


async def _made_for(look: _LookUp, heads: Sequence[Json]) -> list[Json]:
    """What controllers made for these, and for what they made; pods are looked for apart."""
    made: list[Json] = []
    waiting, uids = [str(each["kind"]) for each in heads], {_uid(each) for each in heads}
    for above in waiting:
        for below in MADE_BY.get(above, ()):
            kind = next((each for each in JUDGED_KINDS if each.kind == below and each.kind != "Pod"), None)
            if kind is None or below in waiting:
                continue
            waiting.append(below)
            for each in await look.list("pods", kind.paths) or ():
                owner = controller_of(each)
                if owner is not None and owner.get("uid") in uids:
                    made.append({"apiVersion": kind.api_version, "kind": kind.kind, **each})
                    uids.add(_uid(each))
    return made


async def _pods(look: _LookUp, objects: Sequence[Json]) -> list[Json] | None:
    """Those of any of them: by controller, or as they say themselves whose they are."""
    uids = {_uid(each) for each in objects}
    owners = {Owner(look.namespace, str(each["kind"]), str(each["metadata"]["name"])) for each in objects}
    listed = await look.list("pods", ["/api/v1/pods"])
    if listed is None:
        return None
    return [
        each
        for each in listed
        if not uids.isdisjoint(_owner_uids(each)) or not owners.isdisjoint(owners_of(pod_from(each).metadata))
    ]  # fmt: skip


async def _verdict(look: _LookUp, body: Json, owners: tuple[Owner, ...]) -> tuple[Json | None, str, Json | None]:
    """(outcome, findings and required pods; where they are from; the report): judged now, else as it stands."""
    try:
        snapshot = await live([body])
    except ApiError as error:
        if error.status not in MAY_NOT:
            raise
        look.unread.append(("verdict", "not judged now: that needs to list nodes and pods of all namespaces"))
    else:
        return _judged_now(look, snapshot, body, owners)
    if is_inference_deployment(body):
        status = mapping(body.get("status"))
        if not status:
            look.unread.append(("verdict", "it has no status: it was not judged yet"))
            return None, "", None
        return status, f"as of generation {status.get('observedGeneration')}", None
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{look.namespace}/{VERDICTS}/{name_of(body)}"
    try:
        status = mapping((await look.cluster.request("GET", path)).get("status"))
    except ApiError as error:
        if error.status == HTTP_NOT_FOUND:
            look.unread.append(("verdict", "no WorkloadVerdict stands beside it: nothing was found, or it was not judged"))
        elif error.status in MAY_NOT:
            look.unread.append(("verdict", f"{VERDICTS} may not be read"))
        else:
            raise
        return None, "", None
    return status, f"as of generation {status.get('observedGeneration')}", None


def _judged_now(
    look: _LookUp, snapshot: Snapshot, body: Json, owners: tuple[Owner, ...]
) -> tuple[Json | None, str, Json | None]:  # fmt: skip
    library, profiles = Library.of([body], snapshot.references), snapshot.book.rules.known_profiles
    inventory, spec = snapshot.inventory(), body.get("spec") or {}
    if is_inference_deployment(body):
        try:
            declaration = read_declaration(body, profiles, groups_in(library, profiles))
        except ExceptionGroup as problems:
            look.unread.append(("verdict", f"it cannot be read: {'; '.join(map(str, mistakes_in(problems)))}"))
            return None, "", None
        declaration = replace(declaration, makes=(*declaration.makes, *owners))
        policy = snapshot.book.rules.policy_for(declaration.subject.namespace, declaration.subject.kind_and_group, OWN_KIND)
        verdict = verify(declaration, inventory, policy)
        document = report(declaration, verdict, reference=reference_of(spec, verdict, policy))
    else:
        workload = read_workload(body, library)
        groups = (
            [_with(each, owners) for each in declare(workload, profiles)] if workload is not None and workload.is_judged else []
        )
        if workload is None or not groups:
            look.unread.append(("verdict", "nothing in it that is judged: it asks for no GPUs, or starts no engine that is known"))
            return None, "", None
        subject = workload.subject
        policy = snapshot.book.rules.policy_for(subject.namespace, subject.kind_and_group, FOREIGN_KIND)
        found = judged_groups(subject, groups, inventory, policy)
        if found is None:
            return None, "", None
        verdict = found.verdict
        document = workload_report(found, reference=reference_of(spec, verdict, policy))
    each, gpus = verdict.required.pods_per_replica, verdict.required.gpus_per_replica
    pods = None if each is None or not gpus or len(document.get("groups", ())) > 1 else each * (verdict.required.gpus // gpus)
    return {"outcome": verdict.outcome.label, "findings": document["findings"], "required": {"pods": pods}}, "judged now", document


def _with(group: GroupDeclaration, owners: tuple[Owner, ...]) -> GroupDeclaration:
    if group.declaration is None:
        return group
    return replace(group, declaration=replace(group.declaration, makes=(*group.declaration.makes, *owners)))


def _uid(body: Mapping[str, Any]) -> str:
    return str(mapping(body.get("metadata")).get("uid"))


def _owner_uids(body: Mapping[str, Any]) -> set[str]:
    return {str(each.get("uid")) for each in dicts(mapping(body.get("metadata")).get("ownerReferences"))}
