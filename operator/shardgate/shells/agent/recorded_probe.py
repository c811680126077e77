"""``RecordedProbe``: a node that a file tells of, as ``shardgate agent --once -o json`` prints it."""

import json
from pathlib import Path

from shardgate.adapters.gpu_node_reports import UnreadableReport, reading_of
from shardgate.domain.driver_reading import BAD_RECORDING, DriverReading, ProbeError


class RecordedProbe:
    """The file is read each time: whoever changes it changes the node."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def gpus(self) -> DriverReading:
        """What the file says. Raises ``ProbeError``, also the one that was recorded."""
        try:
            recorded = json.loads(self._path.read_text(encoding="utf-8"))
            status = recorded["status"]
            if not isinstance(status, dict):
                problem = f"{self._path}: status is no object"
                raise ProbeError(BAD_RECORDING, problem)
            return reading_of(status)
        except OSError as error:
            problem = f"{self._path}: {error.strerror or error}"
            raise ProbeError(BAD_RECORDING, problem) from error
        except UnreadableReport as error:
            problem = f"{self._path}: status: {error}"
            raise ProbeError(BAD_RECORDING, problem) from error
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{self._path}: no GpuNodeReport with a status: {error}"
            raise ProbeError(BAD_RECORDING, problem) from error
