"""Every finding code: its class, and the worst that it may do.

Codes are stable: the same in messages, events, metric labels and documentation anchors.
"""

from types import MappingProxyType

from shardgate.domain.verdict import Finding, FindingClass, Outcome

_WORST_BY_CLASS: dict[FindingClass, tuple[Outcome, str]] = {
    FindingClass.SHAPE: (
        Outcome.UNSOUND,
        (
            "WorldSizeMismatch HeadsUneven KvHeadsUneven VocabularyUneven WidthUnsupported ExpertsUneven LayersTooFew "
            "QuantizationBlockUneven PipelineUnsupported ContextTooLong DeclarationContradicts"
        ),
    ),
    FindingClass.MEMORY: (
        Outcome.UNSOUND,
        "WeightsDoNotFit NoRoomForKvCache ContextDoesNotFit UtilizationTooHigh PrecisionUnsupported",
    ),
    FindingClass.CAPACITY: (
        Outcome.UNSOUND,
        "GpuCountTooLow NodesDoNotFit GpuProductNotAccepted ModelExceedsCluster",
    ),
    FindingClass.HOST: (Outcome.RISKY, "TensorAcrossNodes"),
    FindingClass.QUALITY: (
        Outcome.WASTEFUL,
        ("GpusLeftOver MemoryMostlyUnused StagesUneven TensorOverPcie PipelineBubble ThroughputTooLow LatencyTooHigh"),
    ),
    FindingClass.UNKNOWN: (
        Outcome.UNDECIDED,
        (
            "ModelUnknown EngineUnknown DeclarationOpaque GpuFactsMissing GpuFactsContradict ConstraintNotModelled "
            "SearchBudgetSpent InventoryStale InventoryEmpty InternalError"
        ),
    ),
}

_WAITING_CODES = ("GpusBusy", "NodesUnavailable", "NodesToProvision", "QuotaTooSmall")

_RISKY_CAPACITY_CODES = ("WouldPreempt", "GroupsMayDeadlock", "SurgeDoesNotFit", "AutoscaleMaximumDoesNotFit")

CLASS_OF_CODE = MappingProxyType(
    {code: each for each, (_, codes) in _WORST_BY_CLASS.items() for code in codes.split()}
    | dict.fromkeys(("MemoryTight", "GpuMemoryHeld", "MemoryNotModelled"), FindingClass.MEMORY)
    | dict.fromkeys(_RISKY_CAPACITY_CODES, FindingClass.CAPACITY)
    | {"GpuShared": FindingClass.UNKNOWN}
    | dict.fromkeys(_WAITING_CODES, FindingClass.CAPACITY)
)

WORST_OF_CODE = MappingProxyType(
    {code: worst for worst, codes in _WORST_BY_CLASS.values() for code in codes.split()}
    | dict.fromkeys(("MemoryTight", "GpuMemoryHeld", "MemoryNotModelled"), Outcome.UNDECIDED)
    | dict.fromkeys(_RISKY_CAPACITY_CODES, Outcome.RISKY)
    | {"GpuShared": Outcome.UNSOUND}
    | dict.fromkeys(_WAITING_CODES, Outcome.WAITING)
)


def finding(  # keyword-only: the fields of a finding
    code: str,
    *,
    where: str,
    outcome: Outcome,
    message: str,
    remedy: str = "",
    source: str = "",
    bears_on: tuple[FindingClass, ...] = (),
) -> Finding:
    """A finding, held to what its code's class allows."""
    if outcome > WORST_OF_CODE[code]:
        problem = f"{code} may be {WORST_OF_CODE[code].label} at worst, not {outcome.label}"
        raise ValueError(problem)
    return Finding(
        code=code,
        finding_class=CLASS_OF_CODE[code],
        where=where,
        outcome=outcome,
        message=message,
        remedy=remedy,
        source=source,
        bears_on=bears_on,
    )
