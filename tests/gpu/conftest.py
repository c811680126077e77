"""Nothing here runs where there is no GPU."""

import pynvml
import pytest

from nvml.library import PROFILE_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA driver: {error}")
    if not count:
        pytest.skip("the driver has no GPU")


@pytest.fixture(autouse=True)
def _real(_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
