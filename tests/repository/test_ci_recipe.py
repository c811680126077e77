"""The CI recipe on what a real helm renders, and the examples that people copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from command_line import run
from controlplane.tools import find_tool
from shardgate.adapters.model_profiles import profile_of
from shardgate.adapters.policies import is_policy, read_policy
from shardgate.api.verification_exception import VerificationException

ROOT = Path(__file__).resolve().parents[2]
RECIPE, EXAMPLES = ROOT / "deploy/ci", ROOT / "deploy/examples"
H100S = "8xH100-80GB-HBM3"

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: llm\nversion: 0.1.0\n",
    "values.yaml": "tensor: 2\nname: llama\n",
    "templates/deployment.yaml": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Values.name | quote }}, namespace: serving}
spec:
  selector: {matchLabels: {app: llm}}
  template:
    metadata: {labels: {app: llm}}
    spec:
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.19.0
          args: [--model=meta-llama/Llama-3.1-8B-Instruct, --tensor-parallel-size={{ .Values.tensor }}, --max-model-len=8192]
          resources: {limits: {nvidia.com/gpu: {{ .Values.tensor }}}}
""",
    "templates/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: llm}\nspec: {ports: [{port: 80}]}\n",
}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chart")
    for name, text in CHART.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def helm() -> Path:
    return find_tool("helm", lambda text: print(text, file=sys.stderr))


def rendered(helm: Path, chart: Path, *values: str) -> str:
    done = subprocess.run(
        [str(helm), "template", "llm", str(chart), *(f"--set={each}" for each in values)], capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def check(*arguments: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(RECIPE / "check.sh"), *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/nonexistent", **environment},
    )  # fmt: skip


def test_a_chart_that_runs_passes(helm: Path, chart: Path) -> None:
    ended = check("--gpus", H100S, stdin=rendered(helm, chart))
    assert ended.returncode == 0, ended.stderr
    assert "| ✅ | Deployment serving/llama | Sound | TP2 x PP1 x DP1 | 2 |" in ended.stdout
    assert "####" not in ended.stdout


def test_a_chart_whose_heads_do_not_divide_fails_with_the_reason(helm: Path, chart: Path) -> None:
    ended = check("--gpus", H100S, stdin=rendered(helm, chart, "tensor=3"))
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "| ❌ | Deployment serving/llama | Unsound |" in ended.stdout
    assert "- **HeadsUneven**" in ended.stdout


def test_what_is_not_decided_passes_with_a_note_unless_it_may_not(tmp_path: Path) -> None:
    manifest = tmp_path / "unknown.yaml"
    body = yaml.safe_load((EXAMPLES / "llama3-70b-tp2-pp4.yaml").read_text())
    body["spec"]["model"] = {"name": "nobody/knows"}
    manifest.write_text(yaml.safe_dump(body))
    ended = check("--gpus", H100S, str(manifest))
    assert (ended.returncode, "| ❔ |" in ended.stdout, "ModelUnknown" in ended.stdout) == (0, True, True), ended.stderr
    assert check("--gpus", H100S, str(manifest), FAIL_ON="undecided").returncode == 2


def test_a_cluster_as_kubectl_prints_it_and_several_files() -> None:
    own, foreign = str(EXAMPLES / "llama3-70b-tp2-pp4.yaml"), str(EXAMPLES / "vllm-deployment.yaml")
    ended = check("--cluster", str(EXAMPLES / "node-8x-h100.yaml"), own, foreign)
    assert "InferenceDeployment serving/llama3-70b" in ended.stdout
    assert "InferenceDeployment serving/llama31-8b" in ended.stdout
    assert "GpusBusy" in ended.stdout, "the first took all eight"


def test_nothing_to_judge_and_wrong_use_are_said(tmp_path: Path) -> None:
    ended = check("--gpus", H100S, stdin="apiVersion: v1\nkind: Service\nmetadata: {name: x}\n")
    assert (ended.returncode, "No declaration of an LLM deployment was found." in ended.stdout) == (0, True)
    assert check(stdin="").returncode == 64
    assert check("--gpus").returncode == 64
    assert check("--what", "x").returncode == 64
    assert check("--gpus", H100S, str(tmp_path / "none.yaml")).returncode == 66
    broken = tmp_path / "a file with spaces.yaml"
    broken.write_text("kind: [")
    ended = check("--gpus", H100S, str(broken))
    assert (ended.returncode, "a file with spaces.yaml" in ended.stderr) == (65, True)


def test_a_manifest_cannot_write_into_the_pull_request(tmp_path: Path) -> None:
    """Names and models are anybody's: none of them becomes a link, a mention, an image or a table of its own."""
    body = yaml.safe_load((EXAMPLES / "llama3-70b-tp2-pp4.yaml").read_text())
    body["spec"]["model"]["name"] = "x | y\n\n# @everybody ![a](http://b) <img src=x> `c`"
    manifest = tmp_path / "odd.yaml"
    manifest.write_text(yaml.safe_dump(body))
    shown = check("--gpus", H100S, str(manifest)).stdout
    assert "ModelUnknown" in shown
    assert not any(line.lstrip().startswith("# ") for line in shown.splitlines())
    for raw in ("@everybody", "http://", "<img", " `c`", "x | y", " ![a"):
        assert raw not in shown, shown


# ---- the workflow and the examples


def test_the_workflow_runs_the_recipe_with_few_rights() -> None:
    workflow = yaml.safe_load((RECIPE / "github-actions.yaml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    last = job["steps"][-1]["run"]
    assert "set -o pipefail" in last
    assert "helm template" in last
    assert "check.sh --gpus" in last


def test_every_example_is_what_it_says_it_is() -> None:
    kinds = set()
    for path in sorted(EXAMPLES.glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            kinds.add(body["kind"])
            if is_policy(body):
                assert read_policy(body).stated, path
                assert read_policy(body).by_namespace_name
            elif body["kind"] == "ModelProfile":
                assert profile_of(body) is not None
            elif body["kind"] == "VerificationException":
                VerificationException.read(body["spec"])
    assert kinds == {"InferenceDeployment", "Deployment", "Node", "VerificationPolicy", "ModelProfile", "VerificationException"}


@pytest.mark.parametrize("name", ["llama3-70b-tp2-pp4.yaml", "vllm-deployment.yaml"])
def test_examples_of_deployments_run_on_eight_h100(name: str) -> None:
    ended = run("verify", "-f", str(EXAMPLES / name), "--gpus", H100S)
    assert ended.returncode == 0, ended.stdout
    assert "Sound" in ended.stdout


def test_a_private_model_is_known_by_the_example_of_a_profile(tmp_path: Path) -> None:
    body = yaml.safe_load((EXAMPLES / "llama3-70b-tp2-pp4.yaml").read_text())
    body["spec"] |= {"model": {"name": "/models/legal-8b"}, "strategy": {"tensor": 1}, "gpus": {"perPod": 1}}
    manifest = tmp_path / "legal.yaml"
    manifest.write_text(yaml.safe_dump(body))
    assert run("verify", "-f", str(manifest), "--gpus", "1xL4").returncode == 2
    ended = run("verify", "-f", str(manifest), "-f", str(EXAMPLES / "model-profile.yaml"), "--gpus", "1xL4")
    assert (ended.returncode, "ModelUnknown" in ended.stdout) == (0, False), ended.stdout
