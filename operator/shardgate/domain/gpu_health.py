"""Whether a GPU can be given to a pod, by what its driver told."""

from shardgate.domain.driver_reading import GpuState, Health, MemoryErrors

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Errors of the program that ran, after which the GPU is as good as before: those that NVIDIA's device plugin passes over
(NVIDIA/k8s-device-plugin v0.18.0, ``internal/rm/health.go``)."""

NO_ACTION = "None"


def health_of(
    *, is_answering: bool, needs_reset: bool, errors: MemoryErrors, xids: tuple[int, ...], recovery_action: str | None
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
    if recovery_action != NO_ACTION:
        reasons += [f"Xid{xid}" for xid in xids if xid not in APPLICATION_XIDS]
    if reasons:
        return Health(state=GpuState.UNHEALTHY, reasons=tuple(reasons))
    return Health(state=GpuState.HEALTHY if is_answering else GpuState.UNKNOWN)


LOST = Health(state=GpuState.LOST)
