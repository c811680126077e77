"""Golden reports: what ``shardgate verify -o markdown`` says of the two reference cases, kept as ``report.md`` beside each.

``python tests/golden_reports.py --write`` renews them (``make generate`` does too); without it they are only compared.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from case_files import FOLDER
from command_line import run

NAMES = ("reference-compatible", "reference-incompatible")
"""Cases whose reports are kept: docs/reference-reports.md compares them with the reports that the product began from."""


def golden(name: str) -> Path:
    """Where the report of a case is kept."""
    return FOLDER / name / "report.md"


def rendered(name: str) -> str:
    """The report as the command line prints it now."""
    case = FOLDER / name
    ended = run("verify", "-f", str(case / "workload.yaml"), "--cluster", str(case / "nodes.yaml"), "-o", "markdown")
    if ended.stderr or not ended.stdout:
        raise RuntimeError(ended.stderr or f"no report of {name}: exit code {ended.returncode}")
    return ended.stdout


def main() -> int:
    """0 when all is (or was made) as it should be."""
    stale = [name for name in NAMES if not golden(name).exists() or golden(name).read_text(encoding="utf-8") != rendered(name)]
    for name in stale:
        if "--write" in sys.argv:
            golden(name).write_text(rendered(name), encoding="utf-8")
        sys.stderr.write(f"{'wrote' if '--write' in sys.argv else 'differs from what the tool says'}: {golden(name)}\n")
    return 1 if stale and "--write" not in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
