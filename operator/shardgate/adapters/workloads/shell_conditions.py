"""Conditions of a script that are known before it runs: ``[ .. ]`` and the patterns of ``case``."""

from shardgate.adapters.unknown import Unknown

_PATTERN = frozenset("*?[")


def matches(subject: str, patterns: list[str]) -> bool | None:
    """Whether a text is one of these patterns; ``None`` where that is not known."""
    if patterns == ["*"]:
        return True
    if isinstance(subject, Unknown) or any(isinstance(each, Unknown) or set(each) & _PATTERN for each in patterns):
        return None
    return subject in patterns


def holds(words: list[str]) -> bool | None:
    """``[ .. ]`` where both sides are known."""
    if "-a" in words or "-o" in words or "&&" in words or "||" in words:
        return None
    negated = bool(words) and words[0] == "!"
    words = words[1:] if negated else words
    found: bool | None = None
    if any(isinstance(each, Unknown) for each in words):
        found = None
    elif len(words) == 1:
        found = bool(words[0])
    elif len(words) == 2 and words[0] in ("-z", "-n"):  # noqa: PLR2004  # an operator and its operand
        found = (words[1] == "") is (words[0] == "-z")
    elif len(words) == 3:  # noqa: PLR2004  # two operands
        found = _compared(*words)
    return None if found is None else found is not negated


def _compared(left: str, operator: str, right: str) -> bool | None:
    if operator in ("=", "=="):
        return left == right if not set(right) & _PATTERN else None
    if operator == "!=":
        return left != right if not set(right) & _PATTERN else None
    try:
        numbers = int(left), int(right)
    except ValueError:
        return None
    order = (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    return {
        "-eq": order == 0, "-ne": order != 0, "-lt": order < 0, "-le": order <= 0, "-gt": order > 0, "-ge": order >= 0,
    }.get(operator)  # fmt: skip
