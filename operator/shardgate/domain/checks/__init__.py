"""The rules, one module per class of finding, one function per rule; each yields what it finds.

To change a rule, find its code: shape (the declaration against itself and its engine), memory, capacity, quality,
unknown. A rule of an engine is raised only where the engine's table (``data/engine_rules.json``) has it.
"""

from shardgate.domain.checks import capacity, memory, quality, shape, unknown

CHECKS = (
    *shape.CHECKS,
    capacity.pods_fit,
    capacity.groups_find_their_places,
    capacity.roll_out_fits,
    capacity.autoscaled_replicas_fit,
    capacity.quota_allows,
    capacity.queue_may_grant,
    capacity.limits_allow,
    *memory.CHECKS,
    capacity.model_fits_cluster,
    *quality.CHECKS,
    *unknown.CHECKS,
)
"""All rules, in the order in which findings of one outcome are shown: what is missing first, then why it matters."""
