"""Answer -> what a person reads after ``kubectl apply``: the rejection, and the warnings."""

import datetime
from collections.abc import Iterable

from shardgate.adapters.errors import DeclarationError
from shardgate.adapters.pods import OWN_KIND
from shardgate.domain.declaration import Subject
from shardgate.domain.enforce import Answer, Override
from shardgate.domain.units import count
from shardgate.domain.verdict import Finding, Verdict

MAX_WARNING_CHARACTERS = 120


def rejection(subject: Subject, verdict: Verdict, answer: Answer, reference: str, nearest: str = "") -> str:
    """Every refusing finding at once, one a line, with its way out; then the nearest declaration that would pass, if told."""
    shown = list(answer.refusing)
    score = "" if verdict.score is None else f" (score {verdict.score}/100)"
    lines = [f"{subject.label} cannot run here{score}, {count(len(shown), 'problem')} (ref {reference}):"]
    width = max(len(each.code) for each in shown)
    for each in shown:
        lines.append(f"  {each.code:<{width}}  {each.where}: {each.message}")
        if each.remedy:
            lines.append(f"  {'':<{width}}  -> {each.remedy}")
    if nearest:
        lines.append(f"Nearest that fits: {nearest}")
    return "\n".join(lines)


def mistakes(subject: str, errors: Iterable[DeclarationError]) -> str:
    """A declaration that cannot be read: every mistake, by field."""
    problems = list(errors)
    lines = [f"{subject} is not valid, {count(len(problems), 'mistake')}:"]
    return "\n".join([*lines, *(f"  {each.where}: {each.problem}" for each in problems)])


def not_known(where: str) -> str:
    """A field that a newer schema has: the object is let in, and not judged."""
    return f"{where} is not known to this version of Shardgate, which is older than its schema: not judged"[:MAX_WARNING_CHARACTERS]


def overridden(found: Finding, word: Override) -> str:
    """One finding that does not refuse, on whose word, and until when."""
    until = datetime.datetime.fromtimestamp(word.expires, datetime.UTC).strftime("%Y-%m-%d")
    return f"{found.code} is overridden by {word.name} ({word.granted_by}) until {until}"[:MAX_WARNING_CHARACTERS]


def warning(found: Finding, subject: Subject, reference: str) -> str:
    """One finding in one line of at most 120 characters, ending in the command that tells more."""
    is_own = subject.kind == OWN_KIND
    command = f"kubectl describe infd -n {subject.namespace} {subject.name}"
    more = f" | {command if is_own else f'shardgate why -n {subject.namespace} --ref {reference}'}"
    text = f"{found.code}: {found.message}"
    room = MAX_WARNING_CHARACTERS - len(more)
    if room < len(found.code):
        return text[:MAX_WARNING_CHARACTERS]
    return (text if len(text) <= room else f"{text[: room - 1]}…") + more
