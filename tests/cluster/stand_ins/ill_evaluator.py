"""The operator with an evaluator that is slow, or fails, while a file says so: ``kopf run -A ill_evaluator.py``.

The file named by ``EVALUATOR_ILLNESS`` has ``slow SECONDS`` or ``fails`` in it, or is not there.
"""

import os
import time
from pathlib import Path
from typing import Any

from shardgate import main

ILLNESS = Path(os.environ["EVALUATOR_ILLNESS"])
judge = main.operator.judge.judge


def judged(*arguments: Any, **more: Any) -> Any:
    """As well as it goes."""
    illness = ILLNESS.read_text() if ILLNESS.exists() else ""
    if illness.startswith("slow"):
        time.sleep(float(illness.split()[1]))
    if illness == "fails":
        problem = "this was injected"
        raise RuntimeError(problem)
    return judge(*arguments, **more)


main.operator.judge.judge = judged  # type: ignore[method-assign]
