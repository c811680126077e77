"""Reads the driver of ``LD_LIBRARY_PATH`` twice, in a process of its own, and prints the second status as JSON."""

import json

from shardgate.adapters.gpu_node_reports import status_of
from shardgate.shells.agent.processes import Processes
from shardgate.shells.nvml.probe import NvmlProbe

if __name__ == "__main__":
    probe = NvmlProbe(Processes(is_host=False))
    probe.gpus()  # errors that the driver tells of are known from the second on
    print(json.dumps(status_of(probe.gpus(), changed_at="", agent_version="")))
