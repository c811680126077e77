"""GPUs that are promised and not held yet, kept as pods that are not there: whoever asks finds them taken."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from shardgate.adapters.pods import PodRecord, promised_to
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Owner
from shardgate.domain.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedPod:
    """One pod that is to come: where it is planned to go, and what it will ask for."""

    node: str
    requests: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is promised to one object."""

    uid: str
    """Of the object."""
    generation: int
    owners: tuple[Owner, ...]
    """By whom its pods say that they are declared."""
    pods: tuple[ClaimedPod, ...]
    """All of them, those that have come among them."""


def planned(declaration: Declaration, placement: Placement) -> tuple[ClaimedPod, ...]:
    """Every pod of the example placement: where it goes, with all that it asks for."""
    asked = declaration.placement.requests
    return tuple(
        ClaimedPod(node=pod.node, requests={**asked, declaration.gpus.resource: len(pod.local_gpus), "pods": 1})
        for pod in placement.pods
    )


PodGpus = tuple[str, int]
"""What one pod asks for: resource, GPUs."""


def gpus_of_pods(declaration: Declaration) -> tuple[PodGpus, ...] | None:
    """Of every pod that is declared; ``None`` where that is not stated, and rests on the nodes that there are."""
    gpus = declaration.gpus
    if gpus.per_pod is None or gpus.pods_per_replica is None:
        return None
    first = gpus.per_pod if gpus.leader is None else gpus.leader.gpus
    replica = ((gpus.resource, first), *((gpus.resource, gpus.per_pod),) * (gpus.pods_per_replica - 1))
    return replica * declaration.replicas


def still_asked(pods: Sequence[ClaimedPod], asked: Iterable[PodGpus]) -> tuple[ClaimedPod, ...]:
    """What of these pods is asked for: one for each, and of one that asked for more what is asked for now."""
    needed = Counter(asked)
    kept: list[ClaimedPod] = []
    left: list[ClaimedPod] = []
    for pod in pods:
        gpus = next((each for each in pod.requests.items() if needed[each] > 0), None)
        if gpus is None:
            left.append(pod)
        else:
            needed[gpus] -= 1
            kept.append(pod)
    for resource, amount in needed.elements():
        larger = next((each for each in left if each.requests.get(resource, 0) > amount), None)
        if larger is not None:
            left.remove(larger)
            kept.append(replace(larger, requests={**larger.requests, resource: amount}))
    return tuple(kept)


class Book(Protocol):
    """Where pods are kept."""

    def put_pod(self, pod: PodRecord) -> None:
        """Added or changed."""

    def drop_pod(self, uid: str) -> None:
        """Gone."""

    def own_pods(self, owner: Owner) -> Iterable[PodRecord]:
        """Those that are declared by it."""

    @property
    def pods(self) -> Mapping[str, PodRecord]:
        """By uid."""


class ClaimedPods:
    """Claims in a book. Each shrinks as its own pods come, so that nothing counts twice."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._claims: dict[str, Claim] = {}
        self._of_owner: dict[Owner, set[str]] = {}
        self._standing: dict[str, set[str]] = {}
        """uid of a claim -> uids of its pods that are in the book."""

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, uid: str) -> Claim | None:
        """The claim of an object."""
        return self._claims.get(uid)

    def put(self, claim: Claim) -> None:
        """Promise this, in the place of what was promised to the object before."""
        if self._claims.get(claim.uid) == claim:
            return
        self.drop(claim.uid)
        at_admission = self._claims.get(ledger_key(claim.uid))
        if at_admission is not None and claim.generation >= at_admission.generation and len(claim.pods) >= len(at_admission.pods):
            self.drop(at_admission.uid)  # its promise stands for what it was promised at admission
        self._claims[claim.uid] = claim
        for owner in claim.owners:
            self._of_owner.setdefault(owner, set()).add(claim.uid)
        self._settle(claim)

    def drop(self, uid: str) -> None:
        """Nothing is promised to the object any more."""
        claim = self._claims.pop(uid, None)
        if claim is None:
            return
        for owner in claim.owners:
            uids = self._of_owner[owner]
            uids.discard(uid)
            if not uids:
                del self._of_owner[owner]
        for each in self._standing.pop(uid, ()):
            self._book.drop_pod(each)

    def settle(self, changed: Iterable[Owner]) -> None:
        """Pods of these owners came or went."""
        for uid in {uid for owner in changed for uid in self._of_owner.get(owner, ())}:
            self._settle(self._claims[uid])

    def came(self, uid: str) -> None:
        """A pod of this uid is here: it may be what was promised."""
        claim = self._claims.get(ledger_key(uid))
        if claim is not None:
            self._settle(claim)

    def missing(self, claim: Claim) -> tuple[ClaimedPod, ...]:
        """Its pods that have not come. One that came elsewhere than was planned, or waits for a node, stands for any.

        A pod that waits is counted as one that waits: others of its priority find it before them.
        """
        came = {record.uid: record.node for owner in claim.owners for record in self._book.own_pods(owner)}
        itself = self._book.pods.get(claim.uid.removeprefix(AT_ADMISSION))
        if itself is not None:  # a bare pod
            came[itself.uid] = itself.node
        left = list(claim.pods)
        for node in (node for uid, node in came.items() if not uid.startswith(PREFIX)):
            if left:
                left.remove(next((each for each in left if each.node == node), left[-1]))
        return tuple(left)

    def _settle(self, claim: Claim) -> None:
        wanted = {f"{PREFIX}{claim.uid}/{number}": each for number, each in enumerate(self.missing(claim))}
        for uid in self._standing.get(claim.uid, set()) - set(wanted):
            self._book.drop_pod(uid)
        for uid, each in wanted.items():
            owner, promised = claim.owners[0], tuple(map(promised_to, claim.owners))
            self._book.put_pod(
                PodRecord(
                    uid=uid, namespace=owner.namespace, name=f"{owner.name} (promised)", node=each.node,
                    requests=tuple(sorted(each.requests.items())), ready=False,
                    owners=claim.owners + promised, is_promised=True,
                )
            )  # fmt: skip
        self._standing[claim.uid] = set(wanted)


def ledger_key(uid: str) -> str:
    """What an object was promised at admission, among the claims; its own uid names what it is promised since it stands."""
    return f"{AT_ADMISSION}{uid}"


AT_ADMISSION = "ledger/"
PREFIX = "promised/"
"""Of uids that no pod has."""
