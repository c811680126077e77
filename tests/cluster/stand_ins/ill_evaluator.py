"""The operator with an evaluator that sleeps, computes, or fails, while a file says so: ``kopf run -A ill_evaluator.py``.

The file named by ``EVALUATOR_ILLNESS`` has ``sleeps SECONDS``, ``computes SECONDS`` or ``fails`` in it, or is not there.
"""

import os
import time
from pathlib import Path
from typing import Any

from shardgate.shells import judge

ILLNESS = Path(os.environ["EVALUATOR_ILLNESS"])
verify = judge.verify


def verified(*arguments: Any) -> Any:
    """As well as it goes."""
    illness = ILLNESS.read_text() if ILLNESS.exists() else ""
    seconds = float(illness.split()[1]) if " " in illness else 0
    if illness.startswith("sleeps"):
        time.sleep(seconds)
    if illness.startswith("computes"):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            pass
    if illness == "fails":
        problem = "this was injected"
        raise RuntimeError(problem)
    return verify(*arguments)


judge.verify = verified  # type: ignore[assignment]

from shardgate import main  # noqa: F401  # handlers of the operator
