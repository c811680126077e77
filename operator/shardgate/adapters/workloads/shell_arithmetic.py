"""``$((..))`` of a script, where all of it is known: whole numbers, names, ``+ - * / %`` and parentheses."""

from collections.abc import Mapping

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.shell_words import MOST_DEPTH

MOST_DIGITS = 18


def computed(text: str, variables: Mapping[str, str]) -> int | Unknown:
    """Whole numbers, names, ``+ - * / %`` and parentheses."""
    tokens: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character.isspace():
            at += 1
        elif character in "+-*/%()":
            tokens.append(character)
            at += 1
        elif character.isalnum() or character == "_":
            end = at
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
            tokens.append(text[at:end])
            at = end
        else:
            return Unknown(f"$(({text}))", f"{character} in arithmetic is not read")
    try:
        value, rest = _sum(tokens, 0, variables, 0)
    except _UnreadError as unread:
        return Unknown(f"$(({text}))", str(unread))
    return value if rest == len(tokens) else Unknown(f"$(({text}))", "this arithmetic is not read")


class _UnreadError(Exception):
    """Arithmetic that is not read."""


def _sum(tokens: list[str], at: int, variables: Mapping[str, str], depth: int) -> tuple[int, int]:
    value, at = _product(tokens, at, variables, depth)
    while at < len(tokens) and tokens[at] in "+-":
        sign = 1 if tokens[at] == "+" else -1
        other, at = _product(tokens, at + 1, variables, depth)
        value += sign * other
    return value, at


def _product(tokens: list[str], at: int, variables: Mapping[str, str], depth: int) -> tuple[int, int]:
    value, at = _atom(tokens, at, variables, depth)
    while at < len(tokens) and tokens[at] in "*/%":
        operator = tokens[at]
        other, at = _atom(tokens, at + 1, variables, depth)
        if operator != "*" and other == 0:
            raise _UnreadError("a division by zero")
        value = value * other if operator == "*" else value // other if operator == "/" else value % other
        if abs(value) >= 10**MOST_DIGITS:
            raise _UnreadError("a number that no shell holds")
    return value, at


def _atom(tokens: list[str], at: int, variables: Mapping[str, str], depth: int) -> tuple[int, int]:
    if at >= len(tokens) or depth > MOST_DEPTH:
        raise _UnreadError("this arithmetic is not read")
    term = tokens[at]
    if term == "(":
        value, at = _sum(tokens, at + 1, variables, depth + 1)
        if at >= len(tokens) or tokens[at] != ")":
            raise _UnreadError("a parenthesis is not closed")
        return value, at + 1
    if term in "+-":
        value, at = _atom(tokens, at + 1, variables, depth + 1)
        return (value if term == "+" else -value), at
    if term.isdigit() and len(term) <= MOST_DIGITS:
        return int(term), at + 1
    known = variables.get(term)
    if known is not None and not isinstance(known, Unknown) and known.strip().isdigit() and len(known) <= MOST_DIGITS:
        return int(known), at + 1
    raise _UnreadError(known.why if isinstance(known, Unknown) else f"{term} is not set here")
