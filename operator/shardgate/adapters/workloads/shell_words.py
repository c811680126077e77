"""A shell script -> tokens: words with what in them is quoted or expanded, operators, here-documents.

One pass, no backtracking: time grows with the script's length alone. What a shell would refuse (an open quote, say) is
``ShellSyntaxError``.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

MOST_CHARACTERS = 32 * 1024
"""Longer scripts are not read: nobody writes an engine's start that way."""
MOST_TOKENS = 2000
MOST_DEPTH = 16
_OPERATORS = (";;&", "<<<", "<<-", "&>>", ";;", "&&", "||", "<<", ">>", ">&", "<&", "&>", ">|", "<>", ";&", "|&")
_SINGLE = ";&|()<>\n"
_OPERATOR = re.compile("|".join(map(re.escape, (*_OPERATORS, *_SINGLE))))
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_NAME = _NAME_START | frozenset("0123456789")
_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*|[@*#?$!0-9-])")
_ESCAPED_IN_QUOTES = ('"', "\\", "$", "`")
_SPECIAL = "\\$`\"'"
_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@%+-]+")
_ENDS_WORD = frozenset(" \t\n;&|()<>")


class ShellSyntaxError(ValueError):
    """What a shell would refuse to read, or more than is read here."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Text as it stands."""

    text: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """``$NAME`` or ``${NAME<operator><rest>}``; ``rest`` is a word's segments."""

    name: str
    quoted: bool
    operator: str = ""
    rest: "tuple[Segment, ...]" = ()


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``$((..))``."""

    segments: "tuple[Segment, ...]"
    quoted: bool


@dataclass(frozen=True, slots=True)
class Substitution:
    """``$(..)`` or backquotes: what a command prints."""

    text: str
    quoted: bool


Segment: TypeAlias = Literal | Variable | Arithmetic | Substitution


@dataclass(slots=True)
class Token:
    """A word (``segments``) or an operator; a here-document carries its body."""

    segments: tuple[Segment, ...] = ()
    operator: str = ""
    body: "tuple[Segment, ...] | None" = None
    follows_word: bool = False
    """An operator without a blank before it: ``2>`` is a redirection of 2."""

    @property
    def keyword(self) -> str:
        """The word where all of it is plain and unquoted; empty else."""
        if len(self.segments) == 1 and isinstance(self.segments[0], Literal) and not self.segments[0].quoted:
            return self.segments[0].text
        return ""


@dataclass(slots=True)
class _Lexer:
    text: str
    at: int = 0
    depth: int = 0
    tokens: list[Token] = field(default_factory=list)
    waiting: list[tuple[Token, str, bool, bool]] = field(default_factory=list)
    """Here-documents whose bodies follow: (token, delimiter, is quoted, tabs are stripped)."""

    def run(self) -> list[Token]:
        text, size = self.text, len(self.text)
        while self.at < size:
            if len(self.tokens) > MOST_TOKENS:
                raise ShellSyntaxError(f"more than {MOST_TOKENS} words")
            character = text[self.at]
            if character in " \t":
                self.at += 1
            elif text.startswith("\\\n", self.at):
                self.at += 2
            elif character == "#" and (self.at == 0 or text[self.at - 1] in _ENDS_WORD):
                end = text.find("\n", self.at)
                self.at = size if end < 0 else end
            elif character in _SINGLE:
                self._operator()
            else:
                self._word()
        if self.waiting:
            self._bodies()
        return self.tokens

    def _operator(self) -> None:
        match = _OPERATOR.match(self.text, self.at)
        operator = match.group() if match is not None else self.text[self.at]
        follows = self.at > 0 and self.text[self.at - 1] not in _ENDS_WORD
        self.at += len(operator)
        self.tokens.append(Token(operator=operator, follows_word=follows))
        if operator == "\n" and self.waiting:
            self._bodies()

    def _word(self) -> None:
        segments = self.segments(_ENDS_WORD, quoted=False)
        before = self.tokens[-1] if self.tokens else None
        token = Token(segments=segments)
        if before is not None and before.operator in ("<<", "<<-"):
            delimiter = "".join(each.text for each in segments if isinstance(each, Literal))
            is_quoted = any(each.quoted for each in segments if isinstance(each, Literal))
            self.waiting.append((before, delimiter, is_quoted, before.operator == "<<-"))
        self.tokens.append(token)

    def _bodies(self) -> None:
        for token, delimiter, is_quoted, strips in self.waiting:
            lines: list[str] = []
            while True:
                if self.at >= len(self.text):
                    break
                end = self.text.find("\n", self.at)
                line = self.text[self.at : end if end >= 0 else len(self.text)]
                self.at = end + 1 if end >= 0 else len(self.text)
                line = line.lstrip("\t") if strips else line
                if line == delimiter:
                    break
                lines.append(line)
            body = "\n".join(lines) + ("\n" if lines else "")
            token.body = (
                (Literal(body, quoted=True),) if is_quoted else _Lexer(body, depth=self.depth).segments(frozenset(), quoted=True)
            )
        self.waiting.clear()

    def segments(self, ends: frozenset[str], *, quoted: bool) -> tuple[Segment, ...]:
        """Up to one of these characters (left in place), or the end."""
        if self.depth > MOST_DEPTH:
            raise ShellSyntaxError("nested too deeply")
        if not quoted:
            match = _PLAIN.match(self.text, self.at)
            if match is not None and (match.end() == len(self.text) or self.text[match.end()] in ends):
                self.at = match.end()
                return (Literal(match.group(), quoted=False),)
        found: list[Segment] = []
        while self.at < len(self.text) and self.text[self.at] not in ends:
            found.extend(self._segment(ends, quoted=quoted))
        return tuple(_joined(found))

    def _segment(self, ends: frozenset[str], *, quoted: bool) -> tuple[Segment, ...]:
        """What begins here; nothing for a line that is continued."""
        match self.text[self.at]:
            case "\\":
                return self._escaped(quoted=quoted)
            case "$":
                return (self._dollar(quoted=quoted),)
            case "`":
                return (Substitution(self._until("`"), quoted),)
            case "'" if not quoted:
                return (Literal(self._until("'"), quoted=True),)
            case '"' if not quoted:
                return self._quoted()
        start = self.at  # a quote inside quotes of the other kind stands for itself
        match = _text(ends).match(self.text, start + 1)
        self.at = match.end() if match is not None else start + 1
        return (Literal(self.text[start : self.at], quoted),)

    def _escaped(self, *, quoted: bool) -> tuple[Segment, ...]:
        following = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if following == "\n":
            return ()
        if quoted and following not in _ESCAPED_IN_QUOTES:
            following = "\\" + following
        return (Literal(following, quoted=True),)

    def _quoted(self) -> tuple[Segment, ...]:
        self.at += 1
        inside = self.segments(frozenset('"'), quoted=True)
        if self.at >= len(self.text):
            raise ShellSyntaxError("a quote is not closed")
        self.at += 1
        return inside or (Literal("", quoted=True),)

    def _until(self, mark: str) -> str:
        """What stands between the mark here and the next one."""
        start = self.at + 1
        end = self.text.find(mark, start)
        if end < 0:
            raise ShellSyntaxError("a quote is not closed")
        self.at = end + 1
        return self.text[start:end]

    def _dollar(self, *, quoted: bool) -> Segment:
        text = self.text
        match = _VARIABLE.match(text, self.at)
        if match is not None:
            self.at = match.end()
            return Variable(match[1], quoted)
        following = text[self.at + 1 : self.at + 2]
        if text.startswith("$((", self.at):
            inside = self._balanced(self.at + 3, 2)
            return Arithmetic(self._nested(inside), quoted)
        if following == "(":
            return Substitution(self._balanced(self.at + 2, 1), quoted)
        if following == "{":
            return self._braced(quoted=quoted)
        if following == "'" and not quoted:
            self.at += 1
            return Literal(self._until("'"), quoted=True)
        self.at += 1
        return Literal("$", quoted)

    def _braced(self, *, quoted: bool) -> Segment:
        text, start = self.text, self.at + 2
        end = start + (text[start : start + 1] in ("#", "!") and text[start + 1 : start + 2] in _NAME_START)
        if text[end : end + 1] and text[end] in "@*?$!-0123456789":
            end += 1
        else:
            while end < len(text) and text[end] in _NAME:
                end += 1
        name = text[start:end]
        self.at = end
        operator = ""
        if text[end : end + 1] == ":" and text[end + 1 : end + 2] in ("-", "=", "+", "?"):
            operator = text[end : end + 2]
        elif text[end : end + 1] and text[end] != "}":
            operator = text[end]
        self.at += len(operator)
        self.depth += 1
        rest = self.segments(frozenset("}"), quoted=quoted)
        self.depth -= 1
        if self.at >= len(text):
            raise ShellSyntaxError("${ is not closed")
        self.at += 1
        return Variable(name, quoted, operator, rest)

    def _balanced(self, start: int, closing: int) -> str:
        """Text up to the parentheses that close; quotes inside are skipped. Leaves ``at`` behind them."""
        text, depth, at = self.text, closing, start
        while at < len(text):
            character = text[at]
            if character == "\\":
                at += 1
            elif character in "'\"":
                close = text.find(character, at + 1)
                if close < 0:
                    raise ShellSyntaxError("a quote is not closed")
                at = close
            elif character == "(":
                depth += 1
            elif character == ")":
                depth -= 1
                if depth == 0:
                    self.at = at + 1
                    return text[start : at + 1 - closing]
            at += 1
        raise ShellSyntaxError("$( is not closed")

    def _nested(self, text: str) -> tuple[Segment, ...]:
        return _Lexer(text, depth=self.depth + 1).segments(frozenset(), quoted=True)


@cache
def _text(ends: frozenset[str]) -> re.Pattern[str]:
    """Characters that neither are one of these nor mean anything."""
    return re.compile(f"[^{re.escape(_SPECIAL + ''.join(sorted(ends)))}]*")


def _joined(segments: list[Segment]) -> list[Segment]:
    """Literals of one kind that follow one another, as one."""
    if len(segments) == 1:
        return segments
    found: list[Segment] = []
    for segment in segments:
        last = found[-1] if found else None
        if isinstance(segment, Literal) and isinstance(last, Literal) and last.quoted == segment.quoted:
            found[-1] = Literal(last.text + segment.text, segment.quoted)
        else:
            found.append(segment)
    return found


def tokens_of(script: str) -> list[Token]:
    """Raises ``ShellSyntaxError``."""
    if len(script) > MOST_CHARACTERS:
        raise ShellSyntaxError(f"{len(script)} characters are more than are read ({MOST_CHARACTERS})")
    return _Lexer(script).run()
