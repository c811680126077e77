"""The image, as far as it can be tried without a container runtime: its commands are run here, in folders of their own.

Not shown: that the base image has what is asked of it, that layers are copied as meant, that the image starts.
"""

import fnmatch
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """(name, rest) of the Dockerfile, continuations joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(name, rest) for line in joined.splitlines() if line for name, _, rest in [line.partition(" ")]]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for each in instructions():
        if each[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(each)
    return found


def of(stage: list[Instruction], name: str) -> list[str]:
    return [rest for each, rest in stage if each == name]


# ---- as linters of Dockerfiles look at it


def test_the_base_image_is_pinned_by_a_digest_that_has_no_default() -> None:
    arguments = [rest for name, rest in instructions()[:2] if name == "ARG"]
    assert "PYTHON_DIGEST" in arguments
    bases = [of(stage, "FROM")[0].split()[0] for stage in stages()]
    assert bases == ["python:${PYTHON_TAG}@${PYTHON_DIGEST}"] * 2
    assert not any(":latest" in each for each in bases)


def test_it_runs_as_a_numeric_user_who_is_not_root() -> None:
    last = stages()[-1]
    (user,) = of(last, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert [name for name, _ in last].index("USER") > max(at for at, (name, _) in enumerate(last) if name in ("RUN", "COPY"))


def test_no_build_tool_and_no_source_reaches_the_last_stage() -> None:
    last = stages()[-1]
    assert of(last, "COPY") == ["--from=build /opt/shardgate /opt/shardgate"]
    assert of(last, "RUN") == ["python -m pip uninstall --yes pip"]
    assert not any(name == "ADD" for name, _ in instructions())


def test_it_starts_the_operator_and_asks_it_whether_it_lives() -> None:
    last = stages()[-1]
    assert json.loads(of(last, "ENTRYPOINT")[0]) == ["kopf", "run", "-A", "-m", "shardgate.main"]
    assert "/livez" in of(last, "HEALTHCHECK")[0]
    assert "PYTHONSAFEPATH=1" in of(last, "ENV")[0].split()
    assert of(last, "EXPOSE") == ["9443 8080"]


def test_secrets_are_neither_arguments_nor_variables() -> None:
    named = [rest for name, rest in instructions() if name in ("ARG", "ENV")]
    assert not any(re.search(r"(?i)token|secret|password|key", each) for each in named)


def test_the_same_uv_is_used_as_in_the_makefile() -> None:
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"UV_VERSION={version}" in of(stages()[0], "ARG")


def test_only_what_the_wheel_needs_is_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out but what is named"
    let_in = {each.removeprefix("!") for each in rules if each.startswith("!")}
    copied = {part for rest in of(stages()[0], "COPY") for part in rest.split()[:-1]}
    assert let_in == copied
    assert any(fnmatch.fnmatch("operator/x/__pycache__", each.replace("**/", "*/")) for each in rules)


# ---- what its commands do


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build stage's own commands, run in folders instead of the image; returns the virtual environment."""
    uv = next(iter(sorted(ROOT.glob(".cache/uv-*/bin/uv"))), None) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here: `make venv` fetches it")
    folder = tmp_path_factory.mktemp("image")
    source, made = folder / "src", folder / "opt"
    source.mkdir()
    ran = []
    environment = {"PATH": f"{Path(uv).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder)}
    kept = {name: value for name, value in os.environ.items() if re.match(r"(?i)(UV|PIP|SSL|.*_proxy$)", name)}
    for name, rest in stages()[0]:
        if name == "COPY":
            *parts, _ = rest.split()
            for part in parts:
                copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copyfile
                copy(ROOT / part, source / part)
        elif name == "RUN" and "pip install --no-cache-dir" not in rest:  # the one that installs uv
            here = rest.replace("/tmp/", f"{folder}/").replace("/opt/shardgate", str(made))
            done = subprocess.run(
                ["sh", "-ec", here.replace("--python python3", f"--python {sys.executable}")], cwd=source, check=False,
                capture_output=True, text=True, timeout=600, env={**kept, **environment, "UV_PYTHON_DOWNLOADS": "never"},
            )  # fmt: skip
            assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
            ran.append(rest)
    assert len(ran) == 2
    requirements = (folder / "requirements.txt").read_text()
    packages = re.findall(r"^[a-z0-9._-]+==", requirements, re.MULTILINE)
    assert len(packages) > 15
    assert all(f"{each}" in requirements for each in ("kopf==", "aiohttp=="))
    assert not any(each in requirements for each in ("pytest==", "ruff==", "shardgate=="))
    assert requirements.count("--hash=sha256:") >= len(packages)
    return made


def in_image(built: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """As the last stage runs it: its PATH and variables, and no more."""
    variables = dict(each.split("=", 1) for each in of(stages()[-1], "ENV")[0].split() if not each.startswith("PATH="))
    path = f"{built}/bin:/usr/bin:/bin"
    return subprocess.run(
        [str(built / "bin" / command[0]), *command[1:]], cwd=built.parent, check=False, capture_output=True, text=True, timeout=120,
        env={**variables, "PATH": path, "HOME": "/nonexistent", **environment},
    )  # fmt: skip


def test_the_wheel_is_installed_with_its_data_and_both_commands(built: Path) -> None:
    packages = next(built.glob("lib/python3*/site-packages"))
    assert (packages / "shardgate/data/engine_memory.json").exists()
    assert not (packages / "operator").exists()
    for command in ("shardgate", "kubectl-shardgate"):
        ended = in_image(built, command, "--version")
        assert (ended.returncode, ended.stdout.startswith("shardgate")) == (0, True), ended.stderr
    manifest = ROOT / "deploy/examples/llama3-70b-tp2-pp4.yaml"
    ended = in_image(built, "shardgate", "verify", "-f", str(manifest), "--gpus", "1xTesla-T4")
    assert (ended.returncode, "GpuCountTooLow" in ended.stdout) == (1, True), ended.stderr
    assert in_image(built, "python", "-m", "pip", "--version").returncode != 0, "nothing can be installed into it"


def test_the_entry_point_starts_and_says_what_it_lacks(built: Path) -> None:
    """Without a cluster it ends with a sentence; that it serves with one is what cluster tests show."""
    entry = json.loads(of(stages()[-1], "ENTRYPOINT")[0])
    ended = in_image(built, *entry, KUBECONFIG="/nonexistent")
    assert ended.returncode != 0
    assert "shardgate: no cluster is configured" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_health_check_tells_a_live_operator_from_a_dead_one(built: Path) -> None:
    command = json.loads(of(stages()[-1], "HEALTHCHECK")[0].partition("CMD ")[2])

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = str(server.server_port)
    try:
        assert in_image(built, *command, SHARDGATE_METRICS_PORT=port).returncode == 0
        Handler.status = 503
        assert in_image(built, *command, SHARDGATE_METRICS_PORT=port).returncode != 0
    finally:
        server.shutdown()
        server.server_close()
    assert in_image(built, *command, SHARDGATE_METRICS_PORT=port).returncode != 0
