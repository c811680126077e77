"""Reviews, start-up scripts and command lines that nobody would write: none may crash, none be let in that is malformed.

``make fuzz`` (N=100000 SEED=1). Prints what broke, with what it takes to see it again, and ends with 1.
"""

import argparse
import asyncio
import copy
import json
import logging
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp.web

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "cluster"), str(TESTS.parent / "deploy" / "local")]

from foreign import of_each_kind

from builders import a_body, a_book, a_node, a_vllm_deployment
from shardgate.adapters.engines.arguments import read_arguments
from shardgate.adapters.tables import table
from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.kinds import JUDGED_KINDS
from shardgate.adapters.workloads.shell import read_script
from shardgate.adapters.workloads.shell_words import ShellSyntaxError
from shardgate.shells.config import OperatorConfig
from shardgate.shells.exception_admission import ExceptionAdmission
from shardgate.shells.judge import Judge
from shardgate.shells.metrics import Metrics
from shardgate.shells.webhook import Admission
from shardgate.shells.webhook_server import review_of

Json = dict[str, Any]

SHELL = (
    "serve", " ", "\n", "'", '"', "$", "{", "}", "(", ")", "((", "))", "$((", "<<A", "A", "if ", "then ", "fi", "; ", "&&", "||", "|",
    "\\", "`", "=", "1", "for ", "do ", "done", "case ", "in ", "esac", ";;", "#", "$TP", "*", "[ ", "]", ">f", "é", "${A:-", "${", "$(",
    "exec ", "set -- ", "export A=", "cat <<'E'\n", "E\n", "[[ ", "]] ", "!", "function f", "f() {", "\t", "2>&1", "$@", "$#", "$0",
    "elif ", "else ", "while ", "until ", "sed -i s/a/b/ f", "echo x > f", "vllm serve m --tp 2",
)  # fmt: skip
VALUES = (
    "1", "0", "-1", "x", "", "8k", "1e9", "{", "}", '{"a":1}', "fp8", "auto", "NaN", "inf", "9" * 400, "é", "1_0",
    Unknown("$X", "why"), Unknown("$X", "why", may_be_many=True), "true", "[1]", "٣",
)  # fmt: skip
ANYTHING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 10**18, 10**400, 1.5, float("1e308"), "", "x", "8", "-1", "8\n", "٣", "1e9", "\ud83d", "\x00",
    "$(VAR)", "a" * 5000, [], [[]], {}, {"a": None}, [1, "x", None], {"limits": 7}, {"nvidia.com/gpu": "x"}, "9" * 400, "nvidia.com/gpu",
)  # fmt: skip


class Fuzz:
    """Counts what happened, and keeps what should not have."""

    def __init__(self, seed: int) -> None:
        self.random, self.seed = random.Random(seed), seed
        self.seen: Counter[str] = Counter()
        self.broken: list[str] = []
        self.slowest, self.slow = 0.0, ""
        judge = Judge(a_book(a_node(), a_node("node-b", gpus=4)), lambda: (0.0, 0.0))
        self.admission = Admission(judge, OperatorConfig(), Metrics())

        async def nobody(review: Json) -> Json:
            return review

        self.exceptions = ExceptionAdmission(nobody)
        engines = table("engine_flags")["engines"].values()
        self.flags = [name for engine in engines for flag in engine["flags"] for name in flag["names"]]
        self.flags += ["--x", "-", "--", "--a.b", "-tp=", "--tp="]
        self.reviews = [*_reviews()]

    def timed(self, what: str, case: object, work: Callable[[], str]) -> None:
        started = time.process_time()
        try:
            self.seen[f"{what}: {work()}"] += 1
        except Exception as error:  # noqa: BLE001  # whatever it is: that is what is looked for
            cause = error.__cause__ or error
            where = traceback.extract_tb(cause.__traceback__)[-1]
            self.broken.append(f"{what}: {type(cause).__name__} {cause!s:.200} ({where.filename}:{where.lineno})\n  {case!r:.2000}")
        spent = time.process_time() - started
        if spent > self.slowest:
            self.slowest, self.slow = spent, f"{what} {case!r:.600}"

    # ---- scripts and command lines

    def script(self) -> None:
        text = "".join(self.random.choices(SHELL, k=self.random.randint(0, 60)))

        def work() -> str:
            try:
                read_script(text, {"TP": "2", "G": Unknown("$G", "w")}, ["sh", "a"])
            except ShellSyntaxError:
                return "refused, as a shell would"
            return "read"

        self.timed("script", text, work)

    def command_line(self) -> None:
        pick = self.random.choice
        words = [
            pick([pick(self.flags), f"{pick(self.flags)}={pick(VALUES)}", pick(VALUES)]) for _ in range(self.random.randint(0, 14))
        ]
        engine = pick(["vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim", "other"])
        environment = {"VLLM_DP_SIZE": pick(VALUES), "MODEL_ID": pick(VALUES)}

        def work() -> str:
            read_arguments(engine, words, environment)
            return "read"

        self.timed("command line", (engine, words, environment), work)

    # ---- reviews

    def review(self) -> None:
        review = copy.deepcopy(self.random.choice(self.reviews))
        inner = review["request"]["object"]
        for _ in range(self.random.randint(0, 4)):
            self._mutate(review if self.random.random() < 0.1 else inner)
        content = json.dumps(review).encode()
        if self.random.random() < 0.1:
            content = self._damaged(content)
        self.timed("review", content, lambda: asyncio.run(self._answered(content)))

    def _mutate(self, value: Any) -> None:
        """Change one thing somewhere in it."""
        at = value
        if not isinstance(at, dict | list):
            return
        for _ in range(self.random.randint(0, 9)):
            inner = [each for each in (at.values() if isinstance(at, dict) else at) if isinstance(each, dict | list) and each]
            if not inner:
                break
            at = self.random.choice(inner)
        if not at:
            return
        key = self.random.choice(list(at) if isinstance(at, dict) else range(len(at)))
        what = self.random.random()
        if what < 0.2:
            del at[key]
        elif what < 0.25:
            at[key] = [copy.deepcopy(at[key])] * self.random.randint(1, 30)
        else:
            at[key] = copy.deepcopy(self.random.choice(ANYTHING))

    def _damaged(self, content: bytes) -> bytes:
        cut = self.random.randrange(len(content) + 1)
        match self.random.randrange(3):
            case 0:
                return content[:cut]
            case 1:
                return content[:cut] + bytes([self.random.randrange(256)]) + content[cut + 1 :]
            case _:
                return content[:cut] + b"[" * self.random.choice([1, 100_000]) + content[cut:]

    async def _answered(self, content: bytes) -> str:
        """As the server answers; anything but a 4xx or an answer is a crash."""
        try:
            request = review_of(content)["request"]
        except aiohttp.web.HTTPException as refused:
            if refused.status >= 500:
                raise
            return f"HTTP {refused.status}"
        resource = request["resource"]
        if (resource["group"], resource["resource"]) == ("shardgate.io", "verificationexceptions"):
            self.exceptions.mutate(request)
            answer = await self.exceptions.validate(request)
            return "let in" if answer["allowed"] else "refused"
        await self.admission.answer(request, "mutate")
        answer = await self.admission.answer(request)
        return "let in" if answer["allowed"] else "refused"


def _reviews() -> list[Json]:
    def of(group: str, resource: str, body: Json, **more: Any) -> Json:
        return {
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "operation": "CREATE", "userInfo": {"username": "jane", "groups": ["g"]}, "name": "llama",
                "namespace": "serving", "resource": {"group": group, "version": "v1alpha1", "resource": resource}, "object": body, **more,
            },
        }  # fmt: skip

    own = a_body(
        traffic={"concurrency": 8}, placement={"nodeSelector": {"a": "b"}, "tolerations": [{"key": "x"}]}, workloadRef=None
    )
    named = {**a_body(), "spec": {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}}}
    exception = {"target": {"kind": "Deployment", "name": "x"}, "codes": ["A"], "reason": "CHG", "expires": "2030-01-01T00:00:00Z"}
    found = [
        of("shardgate.io", "inferencedeployments", own),
        of("shardgate.io", "inferencedeployments", own, operation="UPDATE", oldObject=a_body(strategy={"tensor": 4})),
        of("shardgate.io", "inferencedeployments", named),
        of("shardgate.io", "verificationexceptions", {"metadata": {"name": "e", "namespace": "serving"}, "spec": exception}),
        of("apps", "deployments", {"metadata": {"name": "llama"}, "spec": {"replicas": 3}}, operation="UPDATE", subResource="scale",
           oldObject={"metadata": {}, "spec": {"replicas": 1}}),
        of("apps", "deployments", a_vllm_deployment(gpus=4), operation="UPDATE", oldObject=a_vllm_deployment()),
        of("apps", "daemonsets", a_vllm_deployment()),
    ]  # fmt: skip
    plurals = {each.kind: each for each in JUDGED_KINDS}
    for kind, body in of_each_kind(8, 4).items():
        found.append(of(plurals[kind].group, plurals[kind].plural, body))
    return found


def main() -> int:
    """0 where nothing broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["review", "script", "command_line"])
    parser.add_argument("--slow", action="store_true", help="show the slowest case")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    fuzz = Fuzz(asked.seed)
    kinds = [asked.only] if asked.only else ["review", "review", "script", "command_line"]
    started = time.monotonic()
    for number in range(asked.number):
        getattr(fuzz, kinds[number % len(kinds)])()
        if len(fuzz.broken) >= 20:
            break
    for each in fuzz.broken:
        sys.stdout.write(f"{each}\n")
    for what, count in sorted(fuzz.seen.items()):
        sys.stdout.write(f"{count:>9} {what}\n")
    spent = time.monotonic() - started
    sys.stdout.write(f"seed {fuzz.seed}: {len(fuzz.broken)} broke; slowest {fuzz.slowest * 1000:.1f} ms CPU; {spent:.0f} s\n")
    if asked.slow:
        sys.stdout.write(f"{fuzz.slow}\n")
    return 1 if fuzz.broken else 0


if __name__ == "__main__":
    sys.exit(main())
