"""Where the browser's tests leave what they saw: a folder that git ignores."""

from pathlib import Path

SCREENSHOTS = Path(__file__).resolve().parent.parent / ".cache" / "screenshots"
