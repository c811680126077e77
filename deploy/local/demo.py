"""The demo: both reference deployments, offline and on a real control plane, as a tutorial that prints what it runs.

``--keep`` leaves the control plane and the operator running at the end, until Ctrl-C.
"""

import argparse
import contextlib
import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent))

from controlplane.binaries import Binaries, find
from controlplane.go_build import BuildError
from controlplane.installation import NAMESPACE, ROOT, Installation
from controlplane.plane import ControlPlane, KubectlError, control_plane
from controlplane.processes import StartError
from controlplane.prometheus import Prometheus
from controlplane.tools import found_tool

EXAMPLES = Path("deploy/examples")
DECLARATION = EXAMPLES / "llama3-70b-tp2-pp4.yaml"
SHARDGATE = str(Path(sys.executable).with_name("shardgate"))
H100, T4 = EXAMPLES / "node-8x-h100.yaml", EXAMPLES / "node-1x-t4.yaml"

RULES = Path("deploy/monitoring/rules.yaml")
ALERT, ALERT_SECONDS = "ShardgateDeclarationMismatch", 5

console = Console(highlight=False, soft_wrap=True)


class DemoError(Exception):
    """Something did not come out as it should."""


def title(text: str) -> None:
    """A new step."""
    console.print(f"\n[bold]{text}[/]")


def tell(text: str) -> None:
    """What the next commands show."""
    console.print(text)


def shown(command: list[str], *, expect: int = 0, environment: dict[str, str] | None = None) -> str:
    """Print a command as one would type it, run it, print what it says."""
    console.print(f"[cyan]$ {shlex.join([Path(command[0]).name, *command[1:]])}[/]", markup=True)
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=120)
    console.print((result.stdout + result.stderr).rstrip(), markup=False)
    if result.returncode != expect:
        problem = f"{shlex.join(command)} ended with {result.returncode}, expected {expect}"
        raise DemoError(problem)
    return result.stdout + result.stderr


class Builder:
    """Looks for the control plane's programs, or builds them, while the demo already talks."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._lock = threading.Lock()
        self._speaks = False
        self._result: Binaries | Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = find(self._say)
        except Exception as error:  # noqa: BLE001  # handed over to the waiting thread
            self._result = error

    def _say(self, text: str) -> None:
        with self._lock:
            if self._speaks:
                console.print(f"[dim]{text}[/]")
            else:
                self._said.append(text)

    def wait(self) -> Binaries:
        """From now on progress is shown; returns when the programs are there."""
        with self._lock:
            self._speaks = True
            for text in self._said:
                console.print(f"[dim]{text}[/]")
        while self._thread.is_alive():
            self._thread.join(0.2)
        if isinstance(self._result, Exception):
            raise self._result
        if self._result is None:
            problem = "the build ended without a result"
            raise DemoError(problem)
        return self._result


def offline() -> None:
    """Both verdicts without a cluster."""
    title("1. Without a cluster: the same decision on two node files")
    tell("One Tesla T4. The declaration asks for two tensor ranks on each of four pipeline stages:")
    shown([SHARDGATE, "verify", "-f", str(DECLARATION), "--cluster", str(T4)], expect=1)
    tell("An HGX node with eight H100:")
    shown([SHARDGATE, "verify", "-f", str(DECLARATION), "--cluster", str(H100)])


class Scene:
    """A live cluster with Shardgate in it."""

    def __init__(self, plane: ControlPlane, installation: Installation) -> None:
        self.plane, self.installation = plane, installation
        self._kubectl = [plane.binaries["kubectl"]]
        self._environment = {"KUBECONFIG": str(plane.kubeconfig), "HOME": str(plane.folder), "PATH": "/usr/bin:/bin"}

    def kubectl(self, *arguments: str, expect: int = 0) -> str:
        """Shown to the reader."""
        return shown([*self._kubectl, *arguments], expect=expect, environment=self._environment)

    def node(self, file: Path) -> str:
        """Create a node with its status, as a kubelet would."""
        self.kubectl("create", "-f", str(file))
        self.kubectl("replace", "--subresource=status", "-f", str(file))
        return str(yaml.safe_load((ROOT / file).read_text())["metadata"]["name"])

    def start_operator(self) -> None:
        """With a token of its own ServiceAccount, which may do what charts/shardgate/files/rbac.yaml says and no more."""
        console.print(
            f"[cyan]$ SHARDGATE_WEBHOOK_PORT={self.installation.webhook_port} "
            f"SHARDGATE_METRICS_PORT={self.installation.metrics_port} .. kopf run -A -m shardgate.main &[/]"
        )
        seconds = self.installation.start()
        tell(f"The operator is ready after {seconds:.1f} s: every node and pod was read before its webhook port opened.")

    def verify_live(self) -> None:
        """The command line on the live cluster."""
        shown([SHARDGATE, "verify", "-f", str(DECLARATION)], environment=self._environment)

    def series(self, having: str) -> list[str]:
        """Mismatches and GPU counts, once a series has this in it: gauges are published at the end of a pass."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = [
                line
                for line in self.installation.fetch("/metrics")[1].splitlines()
                if line.startswith(("shardgate_declaration_mismatches", "shardgate_gpus")) and not line.endswith(" 0.0")
            ]
            if any(having in line for line in lines):
                return lines
            time.sleep(0.1)
        problem = f"no series says {having}"
        raise DemoError(problem)

    def until(self, what: str, *arguments: str, is_so: str) -> None:
        """Wait until a kubectl jsonpath gives this."""
        deadline = time.monotonic() + 10
        while self.plane.kubectl(*arguments, check=False).stdout.strip() != is_so:
            if time.monotonic() > deadline:
                problem = f"{what} did not become {is_so} within 10 s"
                raise DemoError(problem)
            time.sleep(0.05)


OUTCOME = ("get", "infd", "llama3-70b", "-n", "serving", "-o", "jsonpath={.status.outcome}")


def scene_t4(scene: Scene) -> None:
    """Refused."""
    title("2. A live cluster with a single Tesla T4: the declaration is refused")
    scene.node(T4)
    scene.start_operator()
    scene.installation.register_webhooks()
    tell("The webhooks are registered (as the chart has them, here by URL). Now the declaration:")
    scene.kubectl("create", "namespace", "serving")
    said = scene.kubectl("apply", "-f", str(DECLARATION), expect=1)
    for code in ("score 0/100", "GpuCountTooLow", "WeightsDoNotFit", "ModelExceedsCluster"):
        if code not in said:
            problem = f"the refusal does not say {code}"
            raise DemoError(problem)
    tell("Nothing was created, nothing was pulled:")
    scene.kubectl("get", "infd", "-n", "serving")


def scene_h100(scene: Scene) -> None:
    """Admitted, then one GPU fails."""
    title("3. Eight H100 in its place: the declaration is admitted, and the verdict follows the node")
    scene.kubectl("delete", "node", "g4dn-0")
    name = scene.node(H100)
    scene.kubectl("apply", "-f", str(DECLARATION))
    scene.until("the outcome", *OUTCOME, is_so="Sound")
    scene.kubectl("get", "infd", "-n", "serving")
    scene.kubectl("get", "infd", "llama3-70b", "-n", "serving", "-o", "jsonpath={.status.summary}")
    scene.verify_live()
    tell("One of the eight GPUs turns unhealthy: the device plugin reports 7 allocatable of 8.")
    patch = json.dumps({"status": {"allocatable": {"nvidia.com/gpu": "7"}}})
    started = time.monotonic()
    scene.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)
    scene.until("the outcome", *OUTCOME, is_so="Waiting")
    tell(f"Judged again {time.monotonic() - started:.1f} s later. Status, annotation, event and metrics:")
    scene.kubectl("get", "infd", "-n", "serving")
    annotations = "jsonpath={.metadata.annotations.shardgate\\.io/verdict} {.metadata.annotations.shardgate\\.io/findings}"
    scene.kubectl("get", "infd", "llama3-70b", "-n", "serving", "-o", annotations)
    event = ("get", "events", "-n", "serving", "--field-selector", "reason=NodesUnavailable", "-o", "jsonpath={.items[*].reason}")
    scene.until("the event", *event, is_so="NodesUnavailable")
    scene.kubectl("get", "events", "-n", "serving")
    series = scene.series("NodesUnavailable")
    console.print(f"[cyan]$ curl -s 127.0.0.1:{scene.installation.metrics_port}/metrics | grep -e mismatches -e _gpus[/]")
    console.print("\n".join(series), markup=False)


def scene_alert(scene: Scene, stack: contextlib.ExitStack) -> None:
    """The mismatch becomes an alert."""
    title("4. Prometheus: what stands and would not start again is an alert")
    program = found_tool("prometheus")
    if program is None:
        tell("There is no Prometheus here. With one on the PATH, this step starts it and shows the alert firing.")
        tell("The pinned one is built, once, in about 5 minutes on 2 cores, by")
        tell("  PYTHONPATH=deploy/local .venv/bin/python -m controlplane.tools prometheus")
        return
    rules = yaml.safe_load((ROOT / RULES).read_text())
    (rule,) = (each for group in rules["groups"] for each in group["rules"] if each.get("alert") == ALERT)
    usual, rule["for"] = rule["for"], f"{ALERT_SECONDS}s"
    prometheus = Prometheus(program, scene.plane, [scene.installation.metrics_port], rules)
    stack.callback(prometheus.stop)
    prometheus.start()
    tell(f"{program.name} scrapes the operator and has {RULES}; {ALERT} waits {ALERT_SECONDS} s here, {usual} as it is delivered.")
    deadline, seen = time.monotonic() + 60, ""
    while seen != "firing":
        found = prometheus.alerts(ALERT)
        state = found[0]["state"] if found else ""
        if state and state != seen:
            tell(f"  {state}")
            seen = state
        if time.monotonic() > deadline:
            problem = f"{ALERT} does not fire"
            raise DemoError(problem)
        time.sleep(0.2)
    (alert,) = prometheus.alerts(ALERT)
    console.print(f"[cyan]$ curl -s 127.0.0.1:{prometheus.port}/api/v1/alerts[/]")
    for name, value in (*alert["labels"].items(), *alert["annotations"].items()):
        console.print(f"  {name}: {value}", markup=False)


def how_to_go_on(scene: Scene, *, keep: bool) -> None:
    """The end."""
    title("How to go on")
    tell("  Your own deployment on a made-up cluster:  .venv/bin/shardgate verify -f my.yaml --gpus 8xH100-80GB-HBM3,1xTesla-T4")
    tell("  On your cluster as it is now:               .venv/bin/shardgate verify -f my.yaml")
    tell("  Every field of the declaration:             deploy/crds/, or kubectl explain infd.spec --recursive")
    tell("  What each finding means:                    docs/findings.md")
    if keep:
        tell(f"\nStill running. In another terminal:\n  export KUBECONFIG={scene.plane.kubeconfig}")
        tell(f"  {scene.plane.binaries['kubectl']} get infd -A")
        tell("Ctrl-C ends it.")
        while True:
            time.sleep(3600)


def main() -> int:
    """0 when both verdicts came out right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, until Ctrl-C")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        builder = Builder()
        offline()
        title("A real control plane: etcd, kube-apiserver, kube-scheduler, kube-controller-manager")
        binaries = builder.wait()
        tell(f"from {binaries.origin}")
        with contextlib.ExitStack() as stack:
            plane = stack.enter_context(control_plane(lambda text: console.print(f"[dim]{text}[/]")))
            installation = Installation(plane)
            stack.callback(installation.kill)
            installation.install()
            tell(f"Up at {plane.url}; CRDs and RBAC are installed (as the chart has them), namespace {NAMESPACE}.")
            scene = Scene(plane, installation)
            scene_t4(scene)
            scene_h100(scene)
            scene_alert(scene, stack)
            title(f"Both verdicts came out right, in {time.monotonic() - started:.0f} s.")
            how_to_go_on(scene, keep=arguments.keep)
    except KeyboardInterrupt:
        console.print("\ninterrupted; run it again at any time")
        return 130
    except (BuildError, StartError, DemoError, KubectlError, subprocess.SubprocessError) as error:
        console.print(f"\nerror: {error}", markup=False, style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
