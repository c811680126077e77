"""The repository itself: what is generated is fresh, what must not be there is not."""

import operator
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

import generate

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted(generate.rendered()), ids=str)
def test_generated_files_are_what_their_source_says(path: Path) -> None:
    assert (ROOT / path).read_text() == generate.rendered()[path], "run `make generate`"


def test_the_operator_folder_is_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert Path(operator.__file__).is_relative_to(sysconfig.get_path("stdlib"))


def test_the_package_imports_beside_the_standard_operator_module() -> None:
    code = "import operator, shardgate, sys; sys.exit(not hasattr(operator, 'itemgetter'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "."}, check=False)
    assert result.returncode == 0


def test_nothing_points_at_this_machine_or_outside_the_repository() -> None:
    made = {".git", ".venv", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis"}
    files = [path for path in ROOT.rglob("*") if path.is_file() and not made & {*path.relative_to(ROOT).parts, path.name}]
    words = ["/".join(("..", "shared")), "/".join(("", "work", ""))]
    found = [
        (str(path), word)
        for path in files
        if path.suffix not in (".lock", ".sum", ".pyc")
        for word in words
        if word in path.read_text(errors="ignore")
    ]
    assert found == []


def test_crds_have_descriptions_on_every_field() -> None:
    def missing(schema: dict[str, object], path: str) -> list[str]:
        found = [] if "description" in schema or path.endswith(".metadata") else [path]
        properties = schema.get("properties")
        for name, nested in (properties if isinstance(properties, dict) else {}).items():
            found += missing(nested, f"{path}.{name}")
        items = schema.get("items")
        if isinstance(items, dict) and isinstance(items.get("properties"), dict):
            for name, nested in items["properties"].items():
                found += missing(nested, f"{path}[].{name}")
        return found

    for file in sorted((ROOT / "deploy/crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert missing(root, crd["spec"]["names"]["kind"]) == []


def test_the_readme_commands_are_what_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci/run").read_text()
    assert "make test" in readme
    assert "make demo" in readme
    assert "make test" in ci
