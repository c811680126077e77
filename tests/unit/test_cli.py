"""The command line's contract: output, exit codes, and errors without tracebacks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import GPU, T4, NodeBuilder, a_body, a_node, a_pod
from command_line import run


def write(path: Path, *bodies: dict[str, Any] | NodeBuilder) -> str:
    path.write_text(yaml.safe_dump_all([each.body if isinstance(each, NodeBuilder) else each for each in bodies]))
    return str(path)


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    return write(tmp_path / "cluster.yaml", a_node())


@pytest.mark.parametrize("command", [[sys.executable, "-m", "shardgate"], [str(Path(sys.executable).with_name("shardgate"))]])
def test_the_installed_command(tmp_path: Path, cluster: str, command: list[str]) -> None:
    arguments = ["verify", "-f", write(tmp_path / "one.yaml", a_body()), "--cluster", cluster, "-o", "json"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert (result.returncode, result.stderr, json.loads(result.stdout)["outcome"]) == (0, "", "Sound")


def test_one_declaration_is_one_document_several_are_an_array(tmp_path: Path, cluster: str) -> None:
    one = write(tmp_path / "one.yaml", a_body())
    assert json.loads(run("verify", "-f", one, "--cluster", cluster, "-o", "json").stdout)["outcome"] == "Sound"
    two = write(tmp_path / "two.yaml", a_body("a"), a_body("b"))
    assert [each["outcome"] for each in json.loads(run("verify", "-f", two, "--cluster", cluster, "-o", "json").stdout)] == [
        "Sound", "Waiting",
    ]  # fmt: skip
    lines = run("verify", "-f", two, "--cluster", cluster, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["subject"]["name"] for line in lines] == ["a", "b"]


@pytest.mark.parametrize(
    ("form", "start"), [("markdown", "# InferenceDeployment serving/"), ("html", "<article "), ("dot", "digraph ")]
)
def test_the_forms_that_people_read(tmp_path: Path, cluster: str, form: str, start: str) -> None:
    files = write(tmp_path / "w.yaml", a_body("a"), a_body("b"))
    result = run("verify", "-f", files, "--cluster", cluster, "-o", form)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count(start) == 2
    assert "serving/a" in result.stdout
    assert "serving/b" in result.stdout


@pytest.mark.parametrize("form", ["markdown", "html", "dot"])
def test_a_form_of_no_declaration_is_empty(tmp_path: Path, cluster: str, form: str) -> None:
    service = write(tmp_path / "s.yaml", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}})
    result = run("verify", "-f", service, "--cluster", cluster, "-o", form)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "no declaration found\n")


@pytest.mark.parametrize("form", ["markdown", "html", "dot"])
def test_a_dry_run_has_no_figures_to_draw(tmp_path: Path, form: str) -> None:
    result = run("verify", "-f", write(tmp_path / "one.yaml", a_body()), "--server", "-o", form)
    assert result.returncode == 64
    assert f"-o {form} has nothing to draw" in " ".join(result.stderr.replace("│", " ").split())


def test_each_admitted_declaration_takes_its_gpus_in_file_order(tmp_path: Path) -> None:
    half = {"strategy": {"tensor": 2, "pipeline": 2}, "gpus": {"perPod": 4}}
    files = write(tmp_path / "w.yaml", *(a_body(name, **half) for name in ("a", "b", "c")))
    nodes = write(tmp_path / "n.yaml", a_node())
    result = run("verify", "-f", files, "--cluster", nodes, "-o", "jsonl")
    assert [json.loads(line)["outcome"] for line in result.stdout.splitlines()] == ["Sound", "Sound", "Waiting"]


@pytest.mark.parametrize(
    ("body", "nodes", "code"),
    [
        (a_body(), [a_node()], 0),
        (a_body(), [a_node(), a_pod("p", node="node-a", namespace="other")], 0),
        (a_body(), [a_node(gpus=1, labels=T4)], 1),
        (a_body(model={"name": "acme/x"}), [a_node()], 2),
    ],
)
def test_exit_codes(tmp_path: Path, body: dict[str, Any], nodes: list[Any], code: int) -> None:
    files = write(tmp_path / "w.yaml", body)
    assert run("verify", "-f", files, "--cluster", write(tmp_path / "n.yaml", *nodes)).returncode == code


def test_a_refusal_beats_undecided_and_an_unreadable_document_beats_both(tmp_path: Path, cluster: str) -> None:
    refused, undecided = a_body("big", strategy={"tensor": 16}), a_body("odd", model={"name": "acme/x"})
    assert run("verify", "-f", write(tmp_path / "a.yaml", undecided, refused), "--cluster", cluster).returncode == 1
    wrong = a_body("wrong", strategy={"tensor": 0})
    result = run("verify", "-f", write(tmp_path / "b.yaml", wrong, a_body()), "--cluster", cluster, "-o", "json")
    assert result.returncode == 65
    assert "b.yaml, document 1, InferenceDeployment wrong: spec.strategy.tensor:" in result.stderr
    assert json.loads(result.stdout)["outcome"] == "Sound"


def test_no_declaration_is_no_error(tmp_path: Path, cluster: str) -> None:
    other = write(tmp_path / "w.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})
    result = run("verify", "-f", other, "--cluster", cluster, "-o", "json")
    assert (result.returncode, json.loads(result.stdout), result.stderr.strip()) == (0, [], "no declaration found")


def test_standard_input(cluster: str) -> None:
    result = run("verify", "-f", "-", "--cluster", cluster, "-o", "json", stdin=yaml.safe_dump(a_body()))
    assert result.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["verify"], ["verify", "--nonsense"], ["nonsense"], ["verify", "-f", "x", "-o", "xml"],
        ["why"], ["why", "infd"], ["why", "infd/"], ["why", "infd/llama", "--ref", "3f9c"], ["why", "--ref", "3f9c", "-o", "xml"],
        ["verify", "-f", "x", "--gpus", "8H100"], ["verify", "-f", "x", "--gpus", "8xH100", "--cluster", "y"],
    ],
)  # fmt: skip
def test_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    here = write(tmp_path / "w.yaml", a_body())
    assert run(*(here if each == "x" else each for each in arguments)).returncode == 64


def test_a_missing_file_is_66(cluster: str) -> None:
    result = run("verify", "-f", "nowhere.yaml", "--cluster", cluster)
    assert result.returncode == 66
    assert "nowhere.yaml" in result.stderr


def test_an_unreachable_cluster_is_69(tmp_path: Path) -> None:
    files = write(tmp_path / "w.yaml", a_body())
    for arguments in (
        ["verify", "-f", files],
        ["why", "infd/llama"],
        ["why", "--ref", "3f9c"],
        ["why", "--ref", "3f9c", "-n", "x"],
    ):
        assert run(*arguments).returncode == 69
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
        })
    )  # fmt: skip
    result = run("verify", "-f", files, KUBECONFIG=str(kubeconfig))
    assert (result.returncode, "127.0.0.1:9" in result.stderr) == (69, True)


@pytest.mark.parametrize(
    ("gpus", "outcome"),
    [
        ("8xH100-80GB-HBM3", "Sound"),
        ("8xNVIDIA-H100-80GB-HBM3@79.19Gi", "Sound"),
        ("8xSome-New-GPU@79Gi", "Sound"),
        ("8xSome-New-GPU@16Gi", "Unsound"),
        ("4xH100-80GB-HBM3,4xH100-80GB-HBM3", "Unsound"),
        ("1xTesla-T4", "Unsound"),
    ],
)
def test_a_cluster_made_up_of_gpus(tmp_path: Path, gpus: str, outcome: str) -> None:
    files = write(tmp_path / "w.yaml", a_body())
    result = run("verify", "-f", files, "--gpus", gpus, "-o", "json")
    assert json.loads(result.stdout)["outcome"] == outcome, result.stderr


def test_an_unknown_product_without_memory_is_asked_for_it(tmp_path: Path) -> None:
    result = run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--gpus", "8xH100")
    assert result.returncode == 64
    assert "H100-80GB-HBM3" in result.stderr


def test_a_bad_cluster_document_is_named_and_the_rest_used(tmp_path: Path) -> None:
    bad = a_node("bad")
    bad.body["status"]["allocatable"]["nvidia.com/gpu"] = "eight"
    nodes = write(tmp_path / "n.yaml", bad, a_node())
    result = run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--cluster", nodes, "-o", "json")
    assert result.returncode == 65
    assert "n.yaml, document 1: Node bad: 'eight' is not a quantity" in result.stderr
    assert json.loads(result.stdout)["outcome"] == "Sound"


def test_the_table_says_what_a_person_needs(tmp_path: Path) -> None:
    nodes = write(tmp_path / "n.yaml", a_node())
    shown = run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--cluster", nodes).stdout
    for text in ("Sound", "PASSED", "141.1 GB of weights", "0-1", "6-7", "60-79", "fits now on node-a"):
        assert text in shown


def test_pods_that_run_already_are_not_counted_twice(tmp_path: Path) -> None:
    nodes = write(tmp_path / "n.yaml", a_node(gpus=16), a_pod("p", node="node-a", gpus=8, declaration="a"))
    result = run("verify", "-f", write(tmp_path / "w.yaml", a_body("a"), a_body("b")), "--cluster", nodes, "-o", "jsonl")
    assert [json.loads(line)["outcome"] for line in result.stdout.splitlines()] == ["Sound", "Sound"]


def test_a_name_that_is_no_text_is_a_named_mistake(tmp_path: Path, cluster: str) -> None:
    body = a_body()
    body["metadata"]["name"] = 123
    result = run("verify", "-f", write(tmp_path / "w.yaml", body), "--cluster", cluster)
    assert result.returncode == 65
    assert "metadata.name: needs text, not 123" in result.stderr


@pytest.mark.parametrize("memory", ["0Gi", "-5Gi", "1e400", "NaN", "lots"])
def test_memory_that_makes_no_sense_is_a_usage_error(tmp_path: Path, memory: str) -> None:
    assert run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--gpus", f"8xFoo@{memory}").returncode == 64


def test_a_made_up_node_is_labelled_as_feature_discovery_would(tmp_path: Path) -> None:
    small = {"model": {"name": "meta-llama/Llama-3.2-1B-Instruct"}, "strategy": {"tensor": 1, "pipeline": 1}, "gpus": {"perPod": 1}}
    body = a_body(**small, placement={"nodeSelector": {"nvidia.com/gpu.product": "Tesla-T4"}})
    assert run("verify", "-f", write(tmp_path / "w.yaml", body), "--gpus", "1xTesla-T4").returncode == 0


def test_a_node_list_as_the_api_serves_it(tmp_path: Path) -> None:
    item = {key: value for key, value in a_node().body.items() if key not in ("kind", "apiVersion")}
    nodes = write(tmp_path / "n.yaml", {"apiVersion": "v1", "kind": "NodeList", "items": [item]})
    assert run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--cluster", nodes).returncode == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": ["a"]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": "none"}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}, "status": {"allocatable": {"nvidia.com/gpu": "NaN"}}},
        {"apiVersion": "shardgate.io/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "x"}, "spec": {"mode": 1}},
    ],
    ids=lambda bad: bad["kind"],
)
def test_bad_objects_of_every_kind_are_named(tmp_path: Path, bad: dict[str, Any]) -> None:
    nodes = write(tmp_path / "n.yaml", bad, a_node())
    result = run("verify", "-f", write(tmp_path / "w.yaml", a_body()), "--cluster", nodes)
    assert result.returncode == 65
    assert f"n.yaml, document 1: {bad['kind']} x: " in result.stderr


def test_nodes_shows_how_each_is_read(tmp_path: Path) -> None:
    nodes = write(tmp_path / "nodes.yaml", a_node("good").body, {**a_node("bad").body, "status": {"allocatable": {GPU: "1e30"}}})
    table, document = run("nodes", "--cluster", nodes), run("nodes", "--cluster", nodes, "-o", "json")
    assert (table.returncode, document.returncode) == (65, 65)
    assert "document 2: Node bad: '1e30' is out of range" in table.stderr
    assert "NVIDIA-H100-80GB-HBM3" in table.stdout
    (found,) = json.loads(document.stdout)["nodes"]
    assert (found["name"], found["gpusPhysical"], found["memoryMib"], found["nvlink"]["value"]) == ("good", 8, 81559, "yes")
    assert found["sources"]["gpusSchedulable"] == "status.allocatable"


def test_a_closed_standard_output_is_no_mistake() -> None:
    command = f"{sys.executable} -m shardgate explain GpusBusy >&-"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
