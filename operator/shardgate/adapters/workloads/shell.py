"""What a start-up script surely runs: its commands with their words expanded, as far as they are known. Never executes.

Branches whose condition is known are followed or left out; what stands in others may run. A word that holds something
unknown says so, and is never guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.shell_arithmetic import computed
from shardgate.adapters.workloads.shell_conditions import holds, matches
from shardgate.adapters.workloads.shell_words import (
    MOST_DEPTH,
    Arithmetic,
    Literal,
    Segment,
    ShellSyntaxError,
    Substitution,
    Token,
    Variable,
    tokens_of,
)

MOST_COMMANDS = 400
_SEPARATORS = (";", "\n", "&")
_REDIRECTIONS = ("<", ">", ">>", ">&", "<&", "&>", "&>>", ">|", "<>", "<<<", "<<", "<<-")
_DECLARING = ("export", "declare", "local", "readonly", "typeset")


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command. ``is_certain``: it surely runs (once what is before it has succeeded)."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    is_certain: bool


@dataclass(slots=True)
class Script:
    """What a script runs, and the files that it writes (path -> text)."""

    commands: list[Command] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    """What in it could not be followed."""


def read_script(script: str, environment: Mapping[str, str], positional: Sequence[str] = ()) -> Script:
    """Follow a script. ``positional``: ``$0`` and what comes after it. Raises ``ShellSyntaxError``."""
    reader = _Reader(tokens=tokens_of(script), variables=dict(environment), positional=list(positional))
    reader.statements(frozenset(), runs=True)
    if reader.at < len(reader.tokens):
        raise ShellSyntaxError(f"unexpected {reader.tokens[reader.at].operator or reader.tokens[reader.at].keyword!r}")
    return reader.found


@dataclass(slots=True)
class _Reader:
    tokens: list[Token]
    variables: dict[str, str]
    positional: list[str]
    at: int = 0
    depth: int = 0
    found: Script = field(default_factory=Script)

    # ---- grammar. ``runs``: True surely, None maybe, False surely not.

    def _peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _skip_newlines(self) -> None:
        while (token := self._peek()) is not None and token.operator in _SEPARATORS:
            self.at += 1

    def statements(self, ends: frozenset[str], *, runs: bool | None) -> bool | None:
        """Up to one of these keywords or operators (left in place); returns whether the last command succeeded."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise ShellSyntaxError("nested too deeply")
        succeeded: bool | None = None
        while True:
            self._skip_newlines()
            token = self._peek()
            if token is None or (token.keyword in ends and token.keyword) or (token.operator in ends and token.operator):
                break
            if token.operator in (")", ";;", ";&", ";;&"):
                break
            before = self.at
            succeeded = self._chain(runs=runs)
            if self.at == before:
                break
        self.depth -= 1
        return succeeded

    def _chain(self, *, runs: bool | None) -> bool | None:
        """Pipelines joined by ``&&`` and ``||``."""
        succeeded = self._pipeline(runs=runs)
        while (token := self._peek()) is not None and token.operator in ("&&", "||"):
            self.at += 1
            while (following := self._peek()) is not None and following.operator == "\n":
                self.at += 1
            if token.operator == "&&":
                # What comes before is taken to succeed, unless it is a test of which nobody knows.
                next_runs = runs if succeeded in (True, _ASSUMED) else False if succeeded is False else None
            else:
                next_runs = runs if succeeded is False else False if succeeded is True else None
            later = self._pipeline(runs=_and(runs, next_runs))
            if next_runs is not False:
                succeeded = later if next_runs is True or next_runs == runs else None
        return succeeded

    def _pipeline(self, *, runs: bool | None) -> bool | None:
        token = self._peek()
        negated = token is not None and token.keyword == "!"
        if negated:
            self.at += 1
        succeeded = self._command(runs=runs)
        while (token := self._peek()) is not None and token.operator in ("|", "|&"):
            self.at += 1
            while (following := self._peek()) is not None and following.operator == "\n":
                self.at += 1
            self._command(runs=runs)
            succeeded = _ASSUMED
        if negated:
            return None if succeeded is None or succeeded is _ASSUMED else not succeeded
        return succeeded

    def _command(self, *, runs: bool | None) -> bool | None:
        token = self._peek()
        if token is None:
            return None
        if token.operator == "(":
            self.at += 1
            kept = dict(self.variables)
            succeeded = self.statements(frozenset({")"}), runs=runs)
            self._expect_operator(")")
            self.variables = kept
            self._redirections()
            return succeeded
        compound = _COMPOUNDS.get(token.keyword)
        if compound is not None:
            return compound(self, runs)
        following = self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else None
        if token.keyword and following is not None and following.operator == "(":
            return self._function()
        return self._simple(runs=runs)

    def loop_while(self, *, runs: bool | None) -> bool | None:
        """``while`` and ``until``."""
        self.at += 1
        self.statements(frozenset({"do"}), runs=_and(runs, None))
        return self._loop(runs=runs)

    def braces(self, *, runs: bool | None) -> bool | None:
        """``{ .. }``."""
        self.at += 1
        succeeded = self.statements(frozenset({"}"}), runs=runs)
        self._expect("}")
        self._redirections()
        return succeeded

    def named_function(self) -> bool | None:
        """``function NAME``."""
        self.at += 1
        return self._function()

    def _expect(self, keyword: str) -> None:
        token = self._peek()
        if token is None or token.keyword != keyword:
            raise ShellSyntaxError(f"{keyword} is missing")
        self.at += 1

    def _expect_operator(self, operator: str) -> None:
        token = self._peek()
        if token is None or token.operator != operator:
            raise ShellSyntaxError(f"{operator} is missing")
        self.at += 1

    def branches(self, *, runs: bool | None) -> bool | None:
        """``if``."""
        rest: bool | None = runs
        """Whether what follows may still be reached."""
        while True:
            self.at += 1  # if, elif
            met = self.statements(frozenset({"then"}), runs=rest)
            met = None if met is _ASSUMED else met
            self._expect("then")
            self._branch(frozenset({"elif", "else", "fi"}), runs=_and(rest, met))
            rest = _and(rest, None if met is None else not met)
            token = self._peek()
            if token is None:
                raise ShellSyntaxError("fi is missing")
            if token.keyword == "elif":
                continue
            if token.keyword == "else":
                self.at += 1
                self._branch(frozenset({"fi"}), runs=rest)
            self._expect("fi")
            self._redirections()
            return _ASSUMED

    def _branch(self, ends: frozenset[str], *, runs: bool | None) -> None:
        """A branch that may run leaves what it sets unknown; one that does not run sets nothing."""
        before = dict(self.variables)
        self.statements(ends, runs=runs)
        if runs is False:
            self.variables = before
        elif runs is None:
            for name, value in list(self.variables.items()):
                if before.get(name) != value or type(before.get(name)) is not type(value):
                    self.variables[name] = Unknown(f"${name}", f"{name} is set in a branch that may not run")

    def _loop(self, *, runs: bool | None) -> bool | None:
        self._expect("do")
        self._branch(frozenset({"done"}), runs=_and(runs, None))
        self._expect("done")
        self._redirections()
        return _ASSUMED

    def loop_for(self, *, runs: bool | None) -> bool | None:
        """``for`` and ``select``."""
        self.at += 1
        token = self._peek()
        if token is not None and token.operator == "(":  # for ((;;))
            while (token := self._peek()) is not None and token.keyword != "do":
                self.at += 1
            return self._loop(runs=runs)
        name = token.keyword if token is not None else ""
        self.at += 1
        while (token := self._peek()) is not None and token.keyword != "do":
            self.at += 1
        if runs is not False and name:
            self.variables[name] = Unknown(f"${name}", f"{name} changes in a loop")
        return self._loop(runs=runs)

    def case(self, *, runs: bool | None) -> bool | None:
        """``case``."""
        self.at += 1
        subject = self._next_word()
        self._skip_newlines()
        self._expect("in")
        rest: bool | None = runs
        while True:
            self._skip_newlines()
            token = self._peek()
            if token is None:
                raise ShellSyntaxError("esac is missing")
            if token.keyword == "esac":
                self.at += 1
                return _ASSUMED
            if token.operator == "(":
                self.at += 1
            patterns: list[str] = []
            while (token := self._peek()) is not None and token.operator != ")":
                if token.operator != "|":
                    patterns.append(self.text_of(token.segments))
                self.at += 1
            self._expect_operator(")")
            is_it = matches(subject, patterns)
            self._branch(frozenset({"esac"}), runs=_and(rest, is_it))
            rest = _and(rest, None if is_it is None else not is_it)
            token = self._peek()
            if token is not None and token.operator in (";;", ";&", ";;&"):
                self.at += 1

    def _function(self) -> bool | None:
        """A function's body is not followed to its calls: what it runs may run."""
        self.at += 1
        token = self._peek()
        if token is not None and token.operator == "(":
            self.at += 1
            self._expect_operator(")")
        self._skip_newlines()
        self._expect("{")
        self._branch(frozenset({"}"}), runs=None)
        self._expect("}")
        return _ASSUMED

    def _next_word(self) -> str:
        token = self._peek()
        if token is None or token.operator:
            raise ShellSyntaxError("a word is missing")
        self.at += 1
        return self.text_of(token.segments)

    def _redirections(self) -> tuple[Token | None, str]:
        """Skip redirections; returns (the here-document, the file that is written)."""
        document, target = None, ""
        while (token := self._peek()) is not None and token.operator in _REDIRECTIONS:
            self.at += 1
            word = self._peek()
            if word is None or word.operator:
                raise ShellSyntaxError(f"a file is missing after {token.operator}")
            self.at += 1
            if token.operator in ("<<", "<<-"):
                document = token
            elif token.operator in (">", ">|", ">>"):
                target = self.text_of(word.segments)
        return document, target

    def test_command(self, closing: str, *, runs: bool | None) -> bool | None:
        """``[[ .. ]]``."""
        self.at += 1
        words: list[str] = []
        while (token := self._peek()) is not None and token.keyword != closing:
            if token.operator == "\n":
                raise ShellSyntaxError(f"{closing} is missing")
            words.append(token.operator or self.text_of(token.segments))
            self.at += 1
        self._expect(closing)
        self._redirections()
        return holds(words) if runs is not False else None

    # ---- simple commands

    def _simple(self, *, runs: bool | None) -> bool | None:
        assigned: dict[str, str] = {}
        words: list[str] = []
        document, target = None, ""
        while (token := self._peek()) is not None:
            if token.operator in _REDIRECTIONS:
                if token.follows_word and words and words[-1].isdigit():
                    words.pop()  # 2> file
                found = self._redirections()
                document, target = found[0] or document, found[1] or target
                continue
            if token.operator:
                break
            self.at += 1
            name, value = self._assignment(token.segments)
            if name and not words:
                assigned[name] = value
                continue
            words.extend(self._words(token.segments))
        if token is not None and token.operator == "(":
            raise ShellSyntaxError("unexpected (")
        if runs is False:
            return None
        if not words:
            for name, value in assigned.items():
                self._set(name, value)
            return _ASSUMED
        return self._run(words, assigned, document, target, runs=runs)

    def _run(
        self, words: list[str], assigned: dict[str, str], document: Token | None, target: str, *, runs: bool | None
    ) -> bool | None:
        builtin = _BUILTINS.get(words[0])
        if builtin is not None and (words[0] != "set" or "--" in words):
            return builtin(self, words)
        if words[0] in _FOLLOWING:
            self.found.unread.append(" ".join(words)[:60])
        self._written(words, document, target)
        if len(self.found.commands) >= MOST_COMMANDS:
            raise ShellSyntaxError(f"more than {MOST_COMMANDS} commands")
        environment = {**self.variables, **assigned}
        self.found.commands.append(Command(tuple(words), environment, is_certain=runs is True))
        return _ASSUMED

    def _set(self, name: str, value: str) -> None:
        self.variables[name] = value

    def declare(self, words: Sequence[str]) -> bool | None:
        """``export NAME=value ..``."""
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if equals:
                self._set(name, Unknown(value, word.why) if isinstance(word, Unknown) else value)
        return _ASSUMED

    def set_positional(self, words: Sequence[str]) -> bool | None:
        """``set -- ..``."""
        self.positional = [*(self.positional[:1] or ["sh"]), *words[words.index("--") + 1 :]]
        return _ASSUMED

    def unset(self, words: Sequence[str]) -> bool | None:
        """``unset NAME ..``."""
        for name in words[1:]:
            self.variables.pop(name, None)
        return _ASSUMED

    def read(self, words: Sequence[str]) -> bool | None:
        """``read NAME ..``."""
        for name in words[1:]:
            self._set(name, Unknown(f"${name}", f"{name} is read at run time"))
        return _ASSUMED

    def _written(self, words: Sequence[str], document: Token | None, target: str) -> None:
        """Files that a command writes or changes."""
        program = words[0]
        if document is not None and document.body is not None:
            path = target or next((word for word in words[1:] if program == "tee" and not word.startswith("-")), "")
            if path:
                self.found.files[path] = self.text_of(document.body)
        elif target and program in ("echo", "printf"):
            self.found.files[target] = " ".join(words[1:])
        if program == "sed" and any(word.startswith("-i") for word in words[1:]):
            for path in words[1:]:
                if path in self.found.files:
                    self.found.files[path] = _edited(self.found.files[path], words[1:])

    def _assignment(self, segments: tuple[Segment, ...]) -> tuple[str, str]:
        first = segments[0] if segments else None
        if not isinstance(first, Literal) or first.quoted:
            return "", ""
        name, equals, begin = first.text.partition("=")
        if not equals or not name.isidentifier():
            return "", ""
        return name, self.text_of((Literal(begin, quoted=False), *segments[1:]))

    # ---- expansion

    def text_of(self, segments: tuple[Segment, ...]) -> str:
        """One string, without splitting; ``Unknown`` where some of it is not known."""
        parts = [self._expanded(each) for each in segments]
        return _joined(parts)

    def _words(self, segments: tuple[Segment, ...]) -> list[str]:
        """Words, unquoted expansions split at blanks."""
        if len(segments) == 1 and isinstance(segments[0], Variable) and segments[0].name in ("@", "*"):
            return list(self.positional[1:])
        if all(isinstance(each, Literal) or each.quoted for each in segments):
            return [self.text_of(segments)]
        words: list[list[str]] = [[]]
        for segment in segments:
            value = self._expanded(segment)
            if isinstance(segment, Literal) or segment.quoted:
                words[-1].append(value)
            elif isinstance(value, Unknown):
                words[-1].append(Unknown(value, value.why, may_be_many=True))
            else:
                _split_into(words, value)
        return [_joined(each) for each in words if each]

    def _expanded(self, segment: Segment) -> str:
        match segment:
            case Literal():
                return segment.text
            case Variable():
                return self._variable(segment)
            case Arithmetic():
                return self._arithmetic(segment)
            case Substitution():
                return Unknown(f"$({segment.text})", f"the output of {segment.text.strip()[:60]}")

    def _variable(self, segment: Variable) -> str:
        value = self._value(segment.name)
        operator = segment.operator
        match operator:
            case "":
                return value if value is not None else Unknown(f"${segment.name}", f"{segment.name} is not set here")
            case ":-" | "-" | ":=" | "=":
                is_empty = operator[0] == ":" and value == "" and not isinstance(value, Unknown)
                return self.text_of(segment.rest) if value is None or is_empty else value
            case ":+" | "+" if not isinstance(value, Unknown):
                return self.text_of(segment.rest) if value else ""
            case ":?" | "?" if value is not None:
                return value
        return Unknown(f"${{{segment.name}{operator}..}}", f"{segment.name} is changed by {operator}")

    def _value(self, name: str) -> str | None:
        if name.isdigit():
            return self.positional[int(name)] if int(name) < len(self.positional) else ""
        if name in ("@", "*"):
            return _joined([each for word in self.positional[1:] for each in (" ", word)][1:])
        if not name or name[0] in "#?$!-":
            return Unknown(f"${{{name}}}", f"${name} is known at run time alone")
        return self.variables.get(name)

    def _arithmetic(self, segment: Arithmetic) -> str:
        text = self.text_of(segment.segments)
        if isinstance(text, Unknown):
            return Unknown(f"$(({text}))", text.why)
        value = computed(text, self.variables)
        return value if isinstance(value, Unknown) else str(value)


_FOLLOWING = frozenset({"eval", "source", "."})
"""Builtins that run what is not read here."""
_BUILTINS: dict[str, Callable[[_Reader, Sequence[str]], bool | None]] = {
    "[": lambda _reader, words: holds(list(words[1:-1])),
    "test": lambda _reader, words: holds(list(words[1:])),
    **dict.fromkeys(_DECLARING, lambda reader, words: reader.declare(words)),
    "set": lambda reader, words: reader.set_positional(words),
    "unset": lambda reader, words: reader.unset(words),
    "read": lambda reader, words: reader.read(words),
    "true": lambda _reader, _words: True,
    ":": lambda _reader, _words: True,
    "false": lambda _reader, _words: False,
}
_COMPOUNDS: dict[str, Callable[[_Reader, bool | None], bool | None]] = {
    "if": lambda reader, runs: reader.branches(runs=runs),
    "while": lambda reader, runs: reader.loop_while(runs=runs),
    "until": lambda reader, runs: reader.loop_while(runs=runs),
    "for": lambda reader, runs: reader.loop_for(runs=runs),
    "select": lambda reader, runs: reader.loop_for(runs=runs),
    "case": lambda reader, runs: reader.case(runs=runs),
    "{": lambda reader, runs: reader.braces(runs=runs),
    "function": lambda reader, _runs: reader.named_function(),
    "[[": lambda reader, runs: reader.test_command("]]", runs=runs),
}


class _Assumed:
    """A command of which nobody can say whether it succeeds: taken to."""


_ASSUMED: bool = _Assumed()  # type: ignore[assignment]  # stands beside True, False and None


def _split_into(words: list[list[str]], value: str) -> None:
    """Add an expansion to words: its blanks end one and begin the next."""
    if value[:1].isspace() and words[-1]:
        words.append([])
    for index, piece in enumerate(value.split()):
        if index:
            words.append([])
        words[-1].append(piece)
    if value[-1:].isspace() and words[-1]:
        words.append([])


def _and(runs: bool | None, also: bool | None, /) -> bool | None:  # noqa: FBT001  # three values
    if runs is False or also is False:
        return False
    return None if runs is None or also is None else True


def _joined(parts: Sequence[str]) -> str:
    text = "".join(parts)
    unknown = next((each for each in parts if isinstance(each, Unknown)), None)
    if unknown is None:
        return text
    return Unknown(text, unknown.why, may_be_many=unknown.may_be_many and len(parts) == 1)


def _edited(text: str, words: Sequence[str]) -> str:
    """A file after ``sed -i s/this/that/`` of plain words; unknown after anything else."""
    for word in words:
        parts = word.split(word[1]) if len(word) > 3 and word[0] == "s" and not word[1].isalnum() else []  # noqa: PLR2004  # s/a/
        if isinstance(word, Unknown) or (len(parts) == 4 and not parts[1].replace("_", "").replace("-", "").isalnum()):  # noqa: PLR2004
            return Unknown(text, "sed changes it")
        if len(parts) == 4 and parts[3] in ("", "g"):  # noqa: PLR2004  # s, this, that, flags
            return text.replace(parts[1], parts[2])
    return Unknown(text, "sed changes it")
