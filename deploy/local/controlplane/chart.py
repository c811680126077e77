"""The chart, as the real helm renders it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from controlplane.go_build import Say
from controlplane.tools import find_tool

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/shardgate"
NAMESPACE = "shardgate-system"


class HelmError(Exception):
    """Helm ended with an error; the message is what it said."""


def helm(*arguments: str, say: Say, values: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What it printed. ``values``: given to it besides those of ``arguments``. Raises ``HelmError`` and ``BuildError``."""
    given = [] if values is None else ["--values", "-"]
    result = subprocess.run(
        [find_tool("helm", say), *arguments, *given], input=None if values is None else json.dumps(values),
        capture_output=True, text=True, check=False, timeout=300, env=None if environment is None else dict(environment),
    )  # fmt: skip
    if result.returncode:
        raise HelmError((result.stderr + result.stdout).strip())
    return result.stdout


def rendered(
    *arguments: str, say: Say, values: Mapping[str, Any] | None = None, release: str = "shardgate", namespace: str = NAMESPACE
) -> list[dict[str, Any]]:
    """The objects of a release, hooks among them, in helm's order."""
    text = helm("template", release, str(CHART), "--namespace", namespace, *arguments, say=say, values=values)
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def hooks_of(objects: Sequence[Mapping[str, Any]], hook: str) -> list[dict[str, Any]]:
    """Those that helm makes at this moment, the lightest first; none for an empty name: those of the release itself."""

    def moments(body: Mapping[str, Any]) -> list[str]:
        told = (body["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
        return [each for each in told.split(",") if each]

    if not hook:
        return [dict(each) for each in objects if not moments(each)]
    found = [dict(each) for each in objects if hook in moments(each)]
    return sorted(found, key=lambda each: int(each["metadata"]["annotations"].get("helm.sh/hook-weight", "0")))
