"""A container -> the command line that it runs and the environment of that, as the kubelet would make them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.library import Library
from shardgate.adapters.workloads.shell import Command, Script, read_script
from shardgate.adapters.workloads.shell_words import ShellSyntaxError
from shardgate.adapters.workloads.values import dicts, mapping, words

Json = Mapping[str, Any]

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh"})
MOST_EXPANDED = 64 * 1024
MOST_SCRIPTS = 4
"""Scripts that start one another."""


@dataclass(slots=True)
class Started:
    """What a container runs, as far as it can be told: commands in order, files that are there, what is opaque."""

    commands: list[Command] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    names_a_program: bool = False
    """The container states a command: its image's entrypoint is not what runs."""


class Environment(dict[str, str]):
    """Variables by name, and the ConfigMaps that would bring more and are not here."""

    missing: tuple[str, ...] = ()


def environment_of(container: Json, library: Library, namespace: str, given: Mapping[str, str]) -> Environment:
    """Variables in the order of the API: those of envFrom, then env, each expanded by what comes before it."""
    found = Environment(given)
    for source in dicts(container.get("envFrom")):
        reference = source.get("configMapRef")
        if isinstance(reference, dict):
            body = library.find("ConfigMap", reference.get("name"), namespace)
            if body is None and not reference.get("optional"):
                found.missing += (str(reference.get("name")),)
            found.update(
                (f"{source.get('prefix') or ''}{key}", str(value)) for key, value in mapping(mapping(body).get("data")).items()
            )
    for entry in dicts(container.get("env")):
        name = entry.get("name")
        if isinstance(name, str):
            found[name] = _variable(entry, found, library, namespace)
    return found


def _variable(entry: Json, found: Mapping[str, str], library: Library, namespace: str) -> str:
    source = entry.get("valueFrom")
    if isinstance(source, dict):
        reference = source.get("configMapKeyRef")
        if isinstance(reference, dict):
            body = library.find("ConfigMap", reference.get("name"), namespace)
            value = mapping(mapping(body).get("data")).get(str(reference.get("key")))
            if value is not None:
                return str(value)
            return Unknown(f"$({entry['name']})", f"{entry['name']} is in ConfigMap {reference.get('name')}, which is not here")
        return Unknown(f"$({entry['name']})", f"{entry['name']} comes from {next(iter(source), 'elsewhere')}")
    value = entry.get("value")
    return expand(value if isinstance(value, str) else "" if value is None else str(value), found)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` as Kubernetes expands it: ``$$(NAME)`` is an escape, a name that is not set stays as it is."""
    if "$(" not in text:
        return text.replace("$$", "$")
    if len(text) > MOST_EXPANDED:
        return Unknown(text, f"{len(text)} characters are more than are expanded")
    parts: list[str] = []
    why = ""
    at = 0
    while at < len(text):
        if text.startswith("$$", at):
            parts.append("$")
            at += 2
        elif text.startswith("$(", at) and (end := text.find(")", at)) > 0:
            name = text[at + 2 : end]
            value = variables.get(name)
            if value is None or isinstance(value, Unknown):
                if _is_name(name):
                    why = value.why if isinstance(value, Unknown) else f"{name} is not set here{_not_here(variables)}"
                parts.append(text[at : end + 1])
            else:
                parts.append(value)
            at = end + 1
        else:
            end = text.find("$", at + 1)
            end = len(text) if end < 0 else end
            parts.append(text[at:end])
            at = end
    joined = "".join(parts)
    return Unknown(joined, why) if why else joined


def _not_here(variables: Mapping[str, str]) -> str:
    missing = variables.missing if isinstance(variables, Environment) else ()
    return f" (ConfigMap {', '.join(missing)} is not)" if missing else ""


def _is_name(name: str) -> bool:
    return name.replace("-", "_").replace(".", "_").isidentifier()


def started(container: Json, pod: Json, library: Library, namespace: str, given: Mapping[str, str]) -> Started:
    """What the container runs. ``given``: variables that the workload's controller sets."""
    environment = environment_of(container, library, namespace, given)
    found = Started(environment=environment, files=dict(_mounted(container, pod, library, namespace)))
    command, arguments = ([expand(word, environment) for word in words(container.get(key))] for key in ("command", "args"))
    found.names_a_program = bool(command)
    line = [*command, *arguments]
    if line:
        _follow(Command(tuple(line), environment, is_certain=True), found, depth=0)
    return found


def _follow(command: Command, found: Started, depth: int) -> None:
    """A command, or what the shell that it starts runs."""
    script, positional = _script(command.words, found.files)
    if script is None or depth >= MOST_SCRIPTS:
        found.commands.append(command)
        return
    try:
        read = read_script(script, command.environment, positional)
    except ShellSyntaxError as error:
        found.opaque.append(f"a script that cannot be read: {error}")
        return
    _take(read, command, found, depth)


def _take(read: Script, command: Command, found: Started, depth: int) -> None:
    found.files |= read.files
    found.opaque += [f"{each} is not followed" for each in read.unread]
    for each in read.commands:
        _follow(Command(each.words, each.environment, is_certain=each.is_certain and command.is_certain), found, depth + 1)


def _script(words: tuple[str, ...], files: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """(text, $0 and its arguments) where the words start a shell with a script that is here."""
    at = 0
    while at < len(words) and words[at] in ("exec", "nohup"):
        at += 1
    if at >= len(words):
        return None, []
    program = words[at].rpartition("/")[2]
    if program in _SHELLS:
        rest = at + 1
        while rest < len(words) and words[rest].startswith("-") and words[rest] != "--":
            letters = words[rest]
            rest += 1
            if not letters.startswith("--") and "c" in letters:
                rest += words[rest : rest + 1] == ("--",)
                if rest >= len(words):
                    return None, []
                return words[rest], list(words[rest + 1 :])
            if letters in ("-o", "+o"):
                rest += 1
        if rest < len(words) and words[rest] in files:
            return files[words[rest]], list(words[rest:])
    elif words[at] in files and _is_shell_script(files[words[at]]):
        return files[words[at]], list(words[at:])
    return None, []


def _is_shell_script(text: str) -> bool:
    first = text.partition("\n")[0]
    return first.startswith("#!") and any(each in first for each in _SHELLS)


def _mounted(container: Json, pod: Json, library: Library, namespace: str) -> Iterator[tuple[str, str]]:
    """Files of ConfigMaps, by the path at which the container sees them."""
    volumes = {str(each.get("name")): each.get("configMap") for each in dicts(pod.get("volumes"))}
    for mount in dicts(container.get("volumeMounts")):
        source, path = volumes.get(str(mount.get("name"))), mount.get("mountPath")
        if not isinstance(source, dict) or not isinstance(path, str):
            continue
        data = mapping(mapping(library.find("ConfigMap", source.get("name"), namespace)).get("data"))
        names = {str(each.get("key")): each.get("path") for each in dicts(source.get("items"))} or {key: key for key in data}
        for key, name in names.items():
            if key in data and isinstance(name, str):
                if mount.get("subPath") in (None, ""):
                    yield f"{path.rstrip('/')}/{name}", str(data[key])
                elif mount["subPath"] == name:
                    yield path, str(data[key])
