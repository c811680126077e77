"""What a container runs -> the engine, with its flags and variables; ``None`` where no engine is started."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from shardgate.adapters.tables import table
from shardgate.adapters.unknown import Unknown
from shardgate.adapters.workloads.containers import Started
from shardgate.adapters.workloads.embedded_yaml import read_yaml
from shardgate.adapters.workloads.values import value_of

_PRINTING = frozenset(
    {"echo", "printf", "pip", "pip3", "uv", "grep", "pkill", "pgrep", "ps", "which", "apt-get", "cat", "ls", "cd", "tee"}
)
_VERSION_TAG = re.compile(r"v?(\d+\.\d+(?:\.\d+)?(?:\.?(?:post|rc|dev)\d+)?)")
_CONFIG_FLAGS = {
    "vllm": ("--config",),
    "sglang": ("--config",),
    "tensorrt-llm": (
        "--config",
        "--extra_llm_api_options",
        "--extra-llm-api-options",
        "--extra-engine-args",
        "--extra_engine_args",
    ),
}
_TENSORRT_FIELDS = {
    ("kv_cache_config", "free_gpu_memory_fraction"): "--kv_cache_free_gpu_memory_fraction",
    ("kv_cache_config", "dtype"): "--kv-cache-dtype",
    ("tensor_parallel_size",): "--tensor-parallel-size",
    ("pipeline_parallel_size",): "--pipeline-parallel-size",
    ("moe_expert_parallel_size",): "--moe-expert-parallel-size",
    ("context_parallel_size",): "--context-parallel-size",
    ("max_batch_size",): "--max-batch-size",
    ("max_num_tokens",): "--max-num-tokens",
    ("max_seq_len",): "--max-seq-len",
    ("enable_attention_dp",): "--enable-attention-dp",
}


@dataclass(slots=True)
class EngineProcess:
    """An engine as a container starts it."""

    engine: str
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    opaque: list[str] = field(default_factory=list)
    flags_are_hidden: str = ""
    """Why the flags are not all here: defaults cannot be assumed."""
    is_on_cpu: bool = False


def engine_of_image(image: str) -> tuple[str, bool]:
    """(engine, whether the entrypoint takes its flags); empty where the image tells none."""
    repository = image.partition("@")[0].lower()
    for row in table("engine_programs")["images"]:
        if row["part"] in repository:
            return row["engine"], row["takesFlags"]
    return "", False


def version_of_image(image: str) -> str:
    """The version that a tag states: ``v0.11.0``, ``v0.5.8.post1-cu130``, ``1.2.0rc2``; empty for others.

    Images of others than the engine's makers have versions of their own.
    """
    repository = image.partition("@")[0].lower()
    row: dict[str, Any] = next((each for each in table("engine_programs")["images"] if each["part"] in repository), {})
    if not row.get("tagIsVersion"):
        return ""
    _, colon, tag = image.partition("@")[0].rpartition(":")
    match = _VERSION_TAG.match(tag) if colon and "/" not in tag else None
    return match.group(1) if match else ""


def engine_process(started: Started, image: str) -> EngineProcess | None:
    """The engine that is started, by its program or, where none is named, by the image."""
    by_image, takes_flags = engine_of_image(image)
    found = [(command, match) for command in started.commands if (match := _recognised(command.words)) is not None]
    if not found and not started.names_a_program and by_image:
        return _of_entrypoint(started, image, by_image, takes_flags=takes_flags)
    if not found:
        return _hidden(started, image, by_image)
    certain = [each for each in found if each[0].is_certain] or found
    command, (engine, arguments) = certain[-1] if any(each[0].is_certain for each in found) else certain[0]
    process = EngineProcess(engine=engine, environment=dict(command.environment), opaque=list(started.opaque))
    process.version = version_of_image(image) if by_image == engine else ""
    process.arguments = list(arguments)
    for script, why in table("engine_programs")["hiding"].items():
        if any(word.endswith(script) for word in command.words):
            process.flags_are_hidden = why
            process.opaque.append(why)
    others = {tuple(each[1][1]) for each in certain if each[1][0] == engine} - {tuple(arguments)}
    if others and not any(each[0].is_certain for each in found):
        process.opaque.append("the engine is started in several branches of a script: which one runs is not known")
        process.flags_are_hidden = "several branches of a script start the engine"
    _with_config_files(process, started.files)
    process.is_on_cpu = _is_on_cpu(process, image)
    return process


def _of_entrypoint(started: Started, image: str, engine: str, *, takes_flags: bool) -> EngineProcess | None:
    words = list(started.commands[0].words) if started.commands else []
    if words and not takes_flags and not words[0].startswith("-"):
        return _hidden(started, image, engine)
    process = EngineProcess(
        engine=engine, arguments=words, environment=dict(started.environment), version=version_of_image(image),
        opaque=list(started.opaque),
    )  # fmt: skip
    if engine == "nim":
        process.version = ""
    if not takes_flags and engine != "nim" and not words:
        return None  # an image whose entrypoint starts nothing by itself
    _with_config_files(process, started.files)
    process.is_on_cpu = _is_on_cpu(process, image)
    return process


def _hidden(started: Started, image: str, engine: str) -> EngineProcess | None:
    """An engine's image with a program of its own: it serves, and how is inside; an idle one serves nothing."""
    programs = {command.words[0].rpartition("/")[2] for command in started.commands}
    idle = set(table("engine_programs")["idle"])
    if not engine or not programs or programs <= idle | _PRINTING:
        return None
    name = next(iter(started.commands)).words[0]
    if not any(_serves(command.words) for command in started.commands):
        return None
    why = f"{name} decides how {engine} is started"
    return EngineProcess(
        engine=engine, environment=dict(started.environment), version=version_of_image(image),
        opaque=[*started.opaque, why], flags_are_hidden=why,
    )  # fmt: skip


def _serves(words: Sequence[str]) -> bool:
    """Whether a program's name or arguments speak of serving."""
    return any(each in word.lower() for word in words for each in ("serve", "server", "launcher", "uvicorn", "entrypoint"))


def _recognised(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """(engine, its arguments)."""
    if not words or words[0].rpartition("/")[2] in _PRINTING:
        return None
    for index, word in enumerate(words):
        engine, used = _starts(word, words[index + 1 : index + 2])
        if engine:
            return engine, list(words[index + 1 + used :])
    return None


def _starts(word: str, following: Sequence[str]) -> tuple[str, int]:
    """(engine, words after this one that belong to its name) of a program, of ``-m module`` or of a script."""
    data = table("engine_programs")
    program = word.rpartition("/")[2]
    for row in data["programs"]:
        if program == row["program"] and row["subcommand"] in ("", *following):
            return row["engine"], int(bool(row["subcommand"]))
    if word == "-m" and following:
        modules = data["modules"]
        parents = (engine for module, engine in modules.items() if module.endswith(".") and following[0].startswith(module))
        return modules.get(following[0]) or next(parents, ""), 1
    scripts = data["scripts"].items() if word.endswith(".py") else ()
    return next((engine for script, engine in scripts if word.endswith(script)), ""), 0


def _is_on_cpu(process: EngineProcess, image: str) -> bool:
    if "cpu" in re.split(r"[-_/:.]", image.lower()):
        return True
    words = process.arguments
    return any(
        word == "--device=cpu" or (word == "--device" and words[index + 1 : index + 2] == ["cpu"])
        for index, word in enumerate(words)
    )


def _with_config_files(process: EngineProcess, files: Mapping[str, str]) -> None:
    """The flags that a config file stands for: below the command line in vLLM and SGLang, above it in TensorRT-LLM."""
    for flag in _CONFIG_FLAGS.get(process.engine, ()):
        path = value_of(process.arguments, flag)
        if path is None:
            continue
        text = files.get(path)
        if text is None:
            process.opaque.append(f"{flag} {path}: the file is not here")
            process.flags_are_hidden = f"{path} is not here"
        elif isinstance(text, Unknown):
            process.opaque.append(f"{flag} {path}: {text.why}")
            process.flags_are_hidden = f"{path}: {text.why}"
        else:
            _merge(process, path, text)
    override = value_of(process.arguments, "--override-engine-args")
    if override is not None and process.engine == "tensorrt-llm":
        _merge(process, "--override-engine-args", override)


def _merge(process: EngineProcess, path: str, text: str) -> None:
    try:
        stated = read_yaml(text)
    except yaml.YAMLError:
        process.opaque.append(f"{path} is no YAML")
        process.flags_are_hidden = f"{path} cannot be read"
        return
    if not isinstance(stated, dict):
        return
    if process.engine == "tensorrt-llm":
        process.arguments += _tensorrt_flags(stated)
    else:
        flags = [word for key, value in stated.items() if isinstance(key, str) for word in _flag(f"--{key}", value)]
        names = [word for word in process.arguments[:1] if not word.startswith("-")]
        process.arguments = [*names, *flags, *process.arguments[len(names) :]]


def _tensorrt_flags(stated: Mapping[str, Any]) -> list[str]:
    flags: list[str] = []
    for path, flag in _TENSORRT_FIELDS.items():
        value: Any = stated
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        flags += _flag(flag, value)
    return flags


def _flag(flag: str, value: object) -> list[str]:
    if value is None or isinstance(value, (dict, list)):
        return []
    if isinstance(value, bool):
        return [flag] if value else [f"{flag}=false"]
    return [f"{flag}={value}"]
