"""Node objects and ResourceSlices -> what a pod can be given there, and where each fact comes from.

``objects`` and ``slices`` decode what the API server sends; ``statements`` asks each source what it says of the GPUs
(one function a source); ``reading`` takes the best statement of each fact and names contradictions; ``shapes`` makes
inventory nodes of it. Placement and what is free are not decided here.
"""

from shardgate.adapters.nodes.objects import NodeObject, node_from
from shardgate.adapters.nodes.reading import NodeReading, read_gpus
from shardgate.adapters.nodes.shapes import Shapes, read_node, read_node_without_gpus, with_device_classes
from shardgate.adapters.nodes.slices import API_VERSION as SLICES_VERSION
from shardgate.adapters.nodes.slices import ClaimObject, Device, DeviceClass, DeviceClassObject, SliceObject, devices_of, slice_from

__all__ = [
    "SLICES_VERSION",
    "ClaimObject",
    "Device",
    "DeviceClass",
    "DeviceClassObject",
    "NodeObject",
    "NodeReading",
    "Shapes",
    "SliceObject",
    "devices_of",
    "node_from",
    "read_gpus",
    "read_node",
    "read_node_without_gpus",
    "slice_from",
    "with_device_classes",
]
