"""``shardgate agent``: its options, and the process."""

import argparse
import json
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from shardgate import __version__
from shardgate.adapters.gpu_node_reports import KIND, status_of, status_of_problem
from shardgate.domain.driver_reading import GpuProbe, ProbeError
from shardgate.shells.agent import memory
from shardgate.shells.agent.agent import Agent
from shardgate.shells.agent.api_server import Access, ApiServer
from shardgate.shells.agent.node_metrics import NodeMetrics
from shardgate.shells.agent.processes import Processes
from shardgate.shells.agent.publisher import Publisher, now
from shardgate.shells.agent.recorded_probe import RecordedProbe
from shardgate.shells.agent.watched_probe import HUNG_SECONDS, WatchedProbe
from shardgate.shells.agent.web import Web
from shardgate.shells.nvml.probe import NvmlProbe

USAGE, UNAVAILABLE, INTERNAL = 64, 69, 70
LEAST_SECONDS, MOST_SECONDS = 0.05, 3600
MOST_PORT = 65535
HEARTBEATS_A_LEASE = 4
"""A Lease holds for so many heartbeats, as the kubelet's does."""

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """Ends as the rest of the command line does."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.format_usage()}{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="shardgate agent",
        description="Read this node's GPU driver. With --once, print what it says; else keep the node's GpuNodeReport.",
        epilog="Exit code: 0; 64 usage, 69 the driver cannot be read (--once), 70 internal.",
    )
    parser.add_argument("--once", action="store_true", help="read once and print; no cluster is needed")
    parser.add_argument("-o", dest="output", choices=["table", "json"], default="table", help="form of --once (table)")
    parser.add_argument("--node-name", default=os.environ.get("NODE_NAME"), help="of this node ($NODE_NAME)")
    parser.add_argument(
        "--namespace", default=os.environ.get("SHARDGATE_NAMESPACE", "shardgate-system"),
        help="where the Lease is ($SHARDGATE_NAMESPACE, shardgate-system)",
    )  # fmt: skip
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between readings (2)")
    parser.add_argument("--heartbeat", type=_seconds, default=10.0, metavar="SECONDS", help="between renewals of the Lease (10)")
    parser.add_argument(
        "--hung-after", type=_seconds, default=HUNG_SECONDS, metavar="SECONDS", help="when a call into the driver is given up (10)"
    )
    parser.add_argument("--bind-address", default="0.0.0.0", help="of /metrics, /healthz and /readyz (0.0.0.0)")  # noqa: S104  # probes come from the node
    parser.add_argument("--port", type=_port, default=8080, help="their port (8080); 0: any that is free")
    parser.add_argument("--server", metavar="URL", help="API server (that of the pod)")
    parser.add_argument("--token-file", type=Path, help="its bearer token, read anew for each request")
    parser.add_argument("--ca-file", type=Path, help="authorities of its certificate, PEM")
    parser.add_argument("--recording", type=Path, metavar="FILE", help="a file of --once -o json in the driver's place")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not LEAST_SECONDS <= value <= MOST_SECONDS:
        problem = f"'{text}' is no number of seconds from {LEAST_SECONDS} to {MOST_SECONDS}"
        raise argparse.ArgumentTypeError(problem)
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_PORT:
        problem = f"'{text}' is no port from 0 to {MOST_PORT}"
        raise argparse.ArgumentTypeError(problem)
    return int(text)


def run(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    metrics = NodeMetrics()
    probe: GpuProbe = (
        RecordedProbe(options.recording) if options.recording else NvmlProbe(Processes(), on_error=metrics.count_error)
    )
    watched = WatchedProbe(probe, options.hung_after)
    return _once(watched, options) if options.once else _serve(watched, metrics, options)


def _once(probe: WatchedProbe, options: argparse.Namespace) -> int:
    code = 0
    try:
        status = status_of(probe.gpus(), changed_at=now(), agent_version=__version__)
    except ProbeError as error:
        sys.stderr.write(f"the driver cannot be read: {error}\n")
        status, code = status_of_problem(error, since=now(), changed_at=now(), agent_version=__version__), UNAVAILABLE
    if options.output == "json":
        from shardgate.api import API_VERSION  # noqa: PLC0415  # the models take 10 MiB, which the serving agent does without
        from shardgate.api.gpu_node_report import GpuNodeReportStatus  # noqa: PLC0415  # same

        full: dict[str, Any] = GpuNodeReportStatus.model_validate(status).model_dump(mode="json", by_alias=True)
        report = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": options.node_name}, "status": full}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    elif code == 0:
        from shardgate.shells.agent.table import table  # noqa: PLC0415  # only people need it

        sys.stdout.write(table(status))
    return code


def _serve(probe: WatchedProbe, metrics: NodeMetrics, options: argparse.Namespace) -> int:
    memory.share_one_arena()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    access = (
        Access(server=options.server, token_file=options.token_file, ca_file=options.ca_file) if options.server else Access.of_pod()
    )
    if not options.node_name or access is None:
        missing = "--server" if options.node_name else "--node-name"
        sys.stderr.write(f"shardgate agent: {missing} is needed outside of a pod; --once needs neither\n")
        return USAGE
    lease_seconds = round(options.heartbeat * HEARTBEATS_A_LEASE)
    publisher = Publisher(ApiServer(access), options.node_name, namespace=options.namespace, lease_seconds=max(1, lease_seconds))
    agent = Agent(probe, publisher, metrics, interval=options.interval, heartbeat=options.heartbeat)
    try:
        web = Web(
            options.bind_address, options.port,
            {"/metrics": lambda: (200, metrics.text()), "/healthz": agent.liveness, "/readyz": agent.readiness},
        )  # fmt: skip
    except OSError as error:
        sys.stderr.write(f"shardgate agent: port {options.port} of {options.bind_address}: {error.strerror or error}\n")
        return USAGE
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("agent %s of node %s, metrics on port %d", __version__, options.node_name, web.port)
    stop.wait(random.random() * options.interval)  # noqa: S311  # nodes that start together need not write together
    agent.turn()
    memory.give_back()
    agent.run(stop)
    log.info("stopped")
    return 0
