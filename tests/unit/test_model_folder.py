"""``shardgate model add DIR``."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import run

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "torch_dtype": "bfloat16",
    "max_position_embeddings": 8192,
}  # fmt: skip
WORKLOAD = """
apiVersion: shardgate.io/v1alpha1
kind: InferenceDeployment
metadata: {name: legal, namespace: serving}
spec:
  model: {name: %s}
  engine: {name: vllm, version: "0.19.0"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "Legal_8B"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    return place


def add(*arguments: object) -> dict[str, Any]:
    result = run("model", "add", *map(str, arguments))
    assert result.returncode == 0, result.stderr
    profile = yaml.safe_load(result.stdout)
    assert isinstance(profile, dict)
    return profile


def test_a_profile_of_config_and_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16_060_522_496}}))
    profile = add(folder)
    assert profile["kind"] == "ModelProfile"
    assert profile["metadata"]["name"] == "legal-8b"
    assert profile["spec"]["match"] == [str(folder)]
    assert profile["spec"]["config"] == CONFIG
    assert profile["spec"]["safetensors"] == {"totalBytes": 16_060_522_496}
    assert profile["spec"]["diskBytes"] == sum(each.stat().st_size for each in folder.iterdir())


def test_a_lone_file_counts_without_its_header(folder: Path) -> None:
    header = b"{}".ljust(64)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 1000)
    assert add(folder)["spec"]["safetensors"] == {"totalBytes": 1000}


def test_what_it_prints_makes_the_private_name_known(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(add(folder, "--match", "s3://models/legal/*", "--name", "legal")))
    (tmp_path / "workload.yaml").write_text(WORKLOAD % "s3://models/legal/v3")
    result = run(
        "verify", "-f", str(tmp_path / "workload.yaml"), "-f", str(tmp_path / "profile.yaml"), "--gpus", "1xH100-80GB-HBM3"
    )
    assert (result.returncode, "Sound" in result.stdout) == (0, True), result.stderr


def test_a_config_map_with_a_config_does_so_too(tmp_path: Path) -> None:
    config_map = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "legal-8b"}, "data": {"config.json": json.dumps(CONFIG)},
    }  # fmt: skip
    manifest = tmp_path / "all.yaml"
    manifest.write_text(yaml.safe_dump(config_map) + "---" + WORKLOAD % "/models/legal-8b")
    assert run("verify", "-f", str(manifest), "--gpus", "1xH100-80GB-HBM3").returncode == 0
    config_map["data"] = {"config.json": '{"model_type": '}
    manifest.write_text(yaml.safe_dump(config_map) + "---" + WORKLOAD % "/models/legal-8b")
    broken = run("verify", "-f", str(manifest), "--gpus", "1xH100-80GB-HBM3")
    assert broken.returncode == 65
    assert "data[config.json]: is no JSON" in broken.stderr


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({}, 66, "no such file"),
        ({"config.json": "{"}, 65, "config.json"),
        ({"config.json": "[]"}, 65, "needs an object"),
        ({"config.json": json.dumps({**CONFIG, "hidden_size": -1})}, 65, "spec.config.hidden_size"),
        ({"config.json": json.dumps({"architectures": ["LlamaForCausalLM"]})}, 65, "lacks hidden_size"),
        ({"config.json": json.dumps(CONFIG), "model.safetensors.index.json": '{"metadata": {}}'}, 65, "metadata.total_size"),
        ({"config.json": json.dumps(CONFIG), "model.safetensors": "short"}, 65, "is no safetensors file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, files: dict[str, str], code: int, says: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = run("model", "add", str(tmp_path))
    assert (result.returncode, says in result.stderr, "Traceback" in result.stderr) == (code, True, False), result.stderr
