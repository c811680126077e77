"""Whose a process is, by its control group: a pod's, or started beside Kubernetes."""

import re

from shardgate.domain.driver_reading import Ownership

_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?:/|$)")
"""The kubelet's names: ``kubepods/burstable/pod<uid>`` of its own driver, ``..-pod<uid with underscores>.slice`` of systemd's.
Static pods' are 32 hexadecimal digits."""
_SIBLING = re.compile(r"^/\.\./(cri-containerd-|crio-|docker-|[0-9a-f]{64})")
"""Seen from a container with a control group namespace of its own: another container of the same pod."""


def owner_of(control_groups: str) -> tuple[Ownership, str | None]:
    """Of the content of ``/proc/<pid>/cgroup``: a pod and its uid, or the host.

    The lines of version 1 (``5:memory:/kubepods/..``) and version 2 (``0::/kubepods.slice/..``) alike; a path may be relative
    to the reader's own namespace (``/../../kubepods-besteffort-pod<uid>.slice/..``).
    """
    paths = [line.split(":", 2)[2] for line in control_groups.splitlines() if line.count(":") > 1]
    for path in paths:
        if found := _POD.search(path):
            return Ownership.POD, found[1].replace("_", "-")
    if not paths:
        return Ownership.UNKNOWN, None
    if any(_SIBLING.match(path) or "kubepods" in path for path in paths):
        return Ownership.POD, None
    return Ownership.HOST, None
