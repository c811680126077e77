"""How much of anything a ``GpuNodeReport`` holds: one set for the CRD, and for who writes and reads reports.

Apart from the models, which take 10 MiB that the serving agent does without.
"""

MOST_GPUS = 64
MOST_MIG_DEVICES = 16
MOST_PROCESSES = 64
MOST_XIDS = 32
MOST_REASONS = 64
"""All Xids, and what else can speak against a GPU."""
MOST_TEXT = 96
"""Characters of a name or a version, as NVML's buffers hold."""
MOST_NAME = 64
"""Characters of the name of a problem or a reason."""
MOST_MESSAGE = 512
MOST_SUMMARY = 256
PRINTABLE = r"^[ -~]*$"
"""ASCII without control characters: these texts reach terminals and verdicts."""


def printable(text: str, most: int = MOST_NAME) -> str:
    """What of a text may be shown, however it came to be there."""
    return "".join(each for each in text if " " <= each <= "~")[:most]
