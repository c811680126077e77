"""Predictions of memory against engines that run here, as a Prometheus tells of them. Optional, and of the replica that leads.

The reading has a task of its own: no verdict and no other write waits for a Prometheus. What is found stands in the
``CapacityLedger``'s status, where every replica and the command line read it.
"""

import asyncio
import datetime
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from shardgate.adapters.accuracy import accuracies_in, entries
from shardgate.adapters.engine_measurements import (
    METRIC,
    CacheSeries,
    UnreadableAnswer,
    compared,
    left_out_text,
    series_in,
)
from shardgate.adapters.pods import PodRecord
from shardgate.adapters.rollouts import SETTLED_SECONDS, SeenForms, is_rolling_out
from shardgate.api import GROUP, VERSION
from shardgate.domain.calibration import Accuracy, Comparison, accuracies
from shardgate.domain.declaration import Declaration
from shardgate.domain.inventory import Owner
from shardgate.domain.units import count
from shardgate.shells.config import OperatorConfig
from shardgate.shells.judge import Judge
from shardgate.shells.lease import Lease
from shardgate.shells.ledger import NAME, PLURAL, Ledger
from shardgate.shells.metrics import Metrics
from shardgate.shells.writer import Writer

log = logging.getLogger(__name__)

Json = dict[str, Any]
READ_SECONDS, FOLLOWING_SECONDS = 60.0, 2.0
"""Between two looks of the replica that leads; and until another one looks whether it leads."""
REQUEST_SECONDS = 10.0
MOST_BYTES = 32 << 20
STATUS = "capacityledgers/status"
HTTP_OK = 200


class PrometheusError(Exception):
    """It did not answer, or with something else."""


class Calibration:
    """Of one replica; only the one that leads reads and writes."""

    def __init__(
        self, writer: Writer, ledger: Ledger, lease: Lease, judge: Judge, metrics: Metrics, config: OperatorConfig,
        declarations: Callable[[], Iterable[Declaration]],
    ) -> None:  # fmt: skip
        """``declarations``: all that stand."""
        self._writer, self._ledger, self._lease, self._judge = writer, ledger, lease, judge
        self._metrics, self._config, self._declarations = metrics, config, declarations
        self._found: tuple[tuple[Accuracy, ...], datetime.datetime] | None = None
        """What was found last, and when; of a replica that leads."""
        self._forms = SeenForms()
        self._said = ""

    async def run(self) -> None:
        """Until cancelled."""
        led, due = False, 0.0
        while True:
            leads = self._lease.is_held()
            if not leads:
                self._found = None  # another one reads now: what was found here would be written over what it finds
            if leads != led or time.monotonic() >= due:
                led, due = leads, time.monotonic() + READ_SECONDS
                try:
                    if leads:
                        await self.look()
                    else:
                        self._forms.see(self._declarations(), time.monotonic())  # whoever leads next knows what changed
                except Exception:  # what is optional ends nothing else
                    self._metrics.internal_errors.inc()
                    log.exception("calibration failed")
            await asyncio.sleep(FOLLOWING_SECONDS)

    async def look(self) -> None:
        """Once. A Prometheus that does not answer leaves what was found before."""
        try:
            series = await self._read()
        except PrometheusError as error:
            self._metrics.accuracy_reads.labels("failed").inc()
            self._say(f"{self._config.prometheus_url}: {error}")
            return
        self._metrics.accuracy_reads.labels("read").inc()
        read_at = datetime.datetime.now(datetime.UTC)
        found, left_out = self.compare(series)
        self._found = accuracies(found), read_at
        self._say(
            f"{count(len(found), 'engine')} compared" + (f", {len(left_out)} not: {left_out_text(left_out)}" if left_out else "")
        )

    def _say(self, text: str) -> None:
        if text != self._said:
            log.warning("calibration: %s", text)
            self._said = text

    def compare(self, series: Iterable[CacheSeries]) -> tuple[list[Comparison], list[str]]:
        """(engines beside their predictions, why others are not)."""
        pods = {(each.namespace, each.name): each for each in self._judge.book.pods.values()}
        standing = list(self._declarations())
        self._forms.see(standing, time.monotonic())
        declared: dict[Owner, Declaration] = {}
        for declaration in standing:
            for owner in declaration.owners:
                declared.setdefault(owner, declaration)
        workloads = self._judge.workloads.by_owner()
        nodes = {node.name: node for node in self._judge.inventory().nodes}
        found: list[Comparison] = []
        left_out: list[str] = []
        for each in series:
            pod = pods.get((each.namespace, each.pod))
            if pod is None or not pod.ready or pod.is_terminating:
                left_out.append("no pod of its name is Ready with GPUs")
                continue
            declared_by, node = _declaration_of(pod, declared), nodes.get(pod.node)
            if declared_by is None or node is None:
                left_out.append("its node is not known" if node is None else "nothing that is judged declares its pod")
                continue
            result = self._of_another_form(pod, declared_by, workloads) or compared(
                each, declared_by, node.shape.unit(declared_by.gpus.resource)
            )
            if isinstance(result, Comparison):
                found.append(result)
            else:
                left_out.append(result)
        return found, left_out

    def _of_another_form(self, pod: PodRecord, declaration: Declaration, workloads: Mapping[Owner, Json]) -> str:
        """Why the pod may run with what was declared before; empty where it runs with what is declared now."""
        for owner in (*pod.owners, *declaration.owners):
            if owner in workloads and is_rolling_out(workloads[owner]):
                return f"a roll-out of its {owner.kind} is under way"
        subject = declaration.subject
        tells = subject.owner in workloads and is_rolling_out(workloads[subject.owner]) is not None
        if not tells and self._forms.is_new(subject, time.monotonic()):
            minutes = f"{SETTLED_SECONDS / 60:.0f} min"
            return f"what it declares changed less than {minutes} ago, and its {subject.kind} does not count what runs with it"
        return ""

    async def upkeep(self) -> None:
        """Write what changed; what is left of a Prometheus that is read no more goes. Raises as ``Writer.write``."""
        stands = self._ledger.status.get("accuracy") or []
        if self._config.prometheus_url is None:
            wanted: list[Json] = []
        elif self._found is None:
            return
        else:
            found, read_at = self._found
            wanted = entries(found, self._ledger.status, datetime.datetime.now(datetime.UTC), read_at)
        if not self._ledger.version or wanted == stands:
            return
        path = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{NAME}/status"
        patch = {"metadata": {"resourceVersion": self._ledger.version}, "status": {"accuracy": wanted or None}}
        self._ledger.put(await self._writer.write("PATCH", path, STATUS, patch))
        for lost in accuracies_in({"accuracy": wanted}):
            if not lost.may_refuse and lost.key not in {each.key for each in accuracies_in({"accuracy": stands})}:
                log.warning("calibration: %s on %s refuses nothing for memory: %s", lost.engine_version, lost.product, lost.text)

    async def _read(self) -> list[CacheSeries]:
        """Raises ``PrometheusError``."""
        url = f"{(self._config.prometheus_url or '').rstrip('/')}/api/v1/query"
        try:
            headers = await asyncio.to_thread(self._headers)
            connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(self._ssl))
            limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limits) as session,
                session.get(url, params={"query": METRIC}, headers=headers, allow_redirects=False) as response,
            ):
                content = await response.content.read(MOST_BYTES + 1)
                while not response.content.at_eof() and len(content) <= MOST_BYTES:
                    content += await response.content.read(MOST_BYTES + 1 - len(content))
                if response.status != HTTP_OK:
                    problem = f"HTTP {response.status}: {content[:200].decode(errors='replace').strip()}"
                    raise PrometheusError(problem)
            if len(content) > MOST_BYTES:
                problem = f"the answer is longer than {MOST_BYTES >> 20} MiB"
                raise PrometheusError(problem)
            return series_in(json.loads(content))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError, UnreadableAnswer) as error:
            raise PrometheusError(str(error) or type(error).__name__) from error

    def _headers(self) -> dict[str, str]:
        token = _text(self._config.prometheus_token_file)
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _ssl(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._config.prometheus_ca)


def _text(path: Path | None) -> str:
    return "" if path is None else path.read_text(encoding="utf-8").strip()


def _declaration_of(pod: PodRecord, declared: dict[Owner, Declaration]) -> Declaration | None:
    """The first of the pod's owners that declares something."""
    return next((declared[owner] for owner in pod.owners if owner in declared), None)
