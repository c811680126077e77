"""Several replicas behind a balancer, on a control plane of their own."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from live import create_node, until

from builders import a_body, a_node
from controlplane.installation import Installation
from controlplane.plane import ControlPlane
from controlplane.processes import Guarded, free_ports


@contextmanager
def fleet_on(plane: ControlPlane, replicas: int, **settings: object) -> Iterator[list[Installation]]:
    """That many replicas, with eight GPUs, the namespace ``serving``, and webhooks that reach those that are ready."""
    with ExitStack() as stack:
        found = [Installation(plane, **settings) for _ in range(replicas)]  # type: ignore[arg-type]  # as named
        found[0].install()
        plane.kubectl("create", "namespace", "serving")
        create_node(plane, a_node().body)
        for each in found:
            each.connect()
            stack.callback(each.stop)
            each.start()
        (port,) = free_ports(1)
        behind = [f"{each.webhook_port}/{each.metrics_port}" for each in found]
        command = [sys.executable, str(Path(__file__).with_name("balancer.py")), str(port), *behind]
        stack.callback(Guarded("balancer", command, plane.folder / "balancer.log", {}).kill)
        own, found[0].webhook_port = found[0].webhook_port, port
        plane.apply(*found[0].webhooks())
        found[0].webhook_port = own

        def is_asked() -> bool:
            wrong = a_body("probe", strategy={"tensor": 3})
            return "HeadsUneven" in plane.apply(wrong, options=("--dry-run=server",), check=False).stderr

        until("the API server calls them", is_asked, timeout=30)
        yield found
