"""Whether a GPU can be given to a pod, by what its driver told."""

from shardgate.domain.driver_reading import Fabric, GpuState, Health, MemoryErrors, NvLink, RemoteKind

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Errors of the program that ran, after which the GPU is as good as before: those that NVIDIA's device plugin passes over
(NVIDIA/k8s-device-plugin v0.18.0, ``internal/rm/health.go``)."""

NO_ACTION = "None"

_FABRIC_AWAITED = ("NotStarted", "InProgress")


def is_fabric_awaited(fabric: Fabric | None, nvlink: NvLink | None) -> bool:
    """Whether the fabric manager has yet to set up the switches that the GPU's NVLinks lead to: until then CUDA does not start."""
    is_meant = nvlink is not None and any(each.remote is RemoteKind.SWITCH for each in nvlink.groups)
    return is_meant and fabric is not None and fabric.state in _FABRIC_AWAITED


def health_of(  # all that bears on it
    *,
    is_answering: bool,
    needs_reset: bool,
    errors: MemoryErrors,
    xids: tuple[int, ...],
    recovery_action: str | None,
    fabric: Fabric | None = None,
    nvlink: NvLink | None = None,
) -> Health:
    """Of a GPU that the driver can reach.

    A critical Xid counts until the driver says that nothing need be done: an older driver, which cannot tell, never does.
    """
    reasons = []
    if needs_reset:
        reasons.append("ResetRequired")
    if recovery_action not in (None, NO_ACTION):
        reasons.append(f"RecoveryAction{recovery_action}")
    if errors.row_remap is not None and errors.row_remap.is_pending:
        reasons.append("RowRemapPending")
    if errors.row_remap is not None and errors.row_remap.has_failed:
        reasons.append("RowRemapFailed")
    if errors.are_retired_pages_pending:
        reasons.append("RetiredPagesPending")
    if is_fabric_awaited(fabric, nvlink):
        reasons.append("FabricNotReady")
    if recovery_action != NO_ACTION:
        reasons += [f"Xid{xid}" for xid in xids if xid not in APPLICATION_XIDS]
    if reasons:
        return Health(state=GpuState.UNHEALTHY, reasons=tuple(reasons))
    return Health(state=GpuState.HEALTHY if is_answering else GpuState.UNKNOWN)


LOST = Health(state=GpuState.LOST)
