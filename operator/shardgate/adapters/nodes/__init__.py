"""Node objects, agents' reports and ResourceSlices -> what a pod can be given there, and where each fact comes from.

``objects``, ``reports`` and ``slices`` decode what the API server sends; ``statements`` asks each source what it says of the
GPUs (one function a source); ``reading`` takes the best statement of each fact and names contradictions
(``report_differences``: those between a driver and the others); ``shapes`` makes inventory nodes of it, and ``health`` takes away
what a driver says is out of use. Placement and what is free are not decided here.
"""

from shardgate.adapters.nodes.health import with_health
from shardgate.adapters.nodes.objects import NodeObject, node_from
from shardgate.adapters.nodes.reading import NodeReading, read_gpus
from shardgate.adapters.nodes.reports import HeartbeatObject, NodeFacts, ReportObject, heartbeat_from, report_from
from shardgate.adapters.nodes.shapes import Shapes, read_node, read_node_without_gpus, with_device_classes
from shardgate.adapters.nodes.slices import API_VERSION as SLICES_VERSION
from shardgate.adapters.nodes.slices import ClaimObject, Device, DeviceClass, DeviceClassObject, SliceObject, devices_of, slice_from

__all__ = [
    "SLICES_VERSION",
    "ClaimObject",
    "Device",
    "DeviceClass",
    "DeviceClassObject",
    "HeartbeatObject",
    "NodeFacts",
    "NodeObject",
    "NodeReading",
    "ReportObject",
    "Shapes",
    "SliceObject",
    "devices_of",
    "heartbeat_from",
    "node_from",
    "read_gpus",
    "read_node",
    "read_node_without_gpus",
    "report_from",
    "slice_from",
    "with_device_classes",
    "with_health",
]
