"""``tests/cases/<name>/``: a declaration, a cluster, and what is to be said about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """One case."""

    name: str
    workload: dict[str, Any]
    cluster: list[dict[str, Any]]
    outcome: str
    codes: list[str]
    answer: str
    """allowed, warned or refused."""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


def cases() -> list[Case]:
    """All of them, by name."""
    found = []
    for folder in sorted(FOLDER.iterdir()):
        expected = yaml.safe_load((folder / "expected.yaml").read_text())
        found.append(
            Case(
                name=folder.name,
                workload=yaml.safe_load((folder / "workload.yaml").read_text()),
                cluster=list(yaml.safe_load_all((folder / "nodes.yaml").read_text())),
                **expected,
            )
        )
    return found
