"""Engine flags and variables -> fields of the spec and settings. What is not known is kept and named, never guessed."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import takewhile
from typing import Any

from shardgate.adapters.tables import table
from shardgate.adapters.unknown import Unknown
from shardgate.api.inference_deployment import KvCache
from shardgate.domain.engine import LoraSlots, Settings
from shardgate.domain.units import GIBI, Bytes

_TRUE = ("1", "true", "yes", "on")
_SUFFIX = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
"""Of lengths and bytes, as vLLM's command line takes them: 1k is 1000, 1K is 1024."""

_DTYPES = {"half": "fp16", "float16": "fp16", "bfloat16": "bf16", "float": "fp32", "float32": "fp32", "auto": "auto"}
MOST_TOKENS, MOST_BYTES = 2**31 - 1, 2**50
"""Beyond these a value is a mistake: no engine takes it."""
_DEFAULT_LORA = LoraSlots(slots=1, rank=16)
_ONLINE = {"fp8": "fp8", "bitsandbytes": "bnb-int4"}
"""Values of --quantization that an engine can do while it loads 16-bit weights -> layout."""
_WITHIN_CHECKPOINT = (
    "awq",
    "gptq",
    "awq_marlin",
    "gptq_marlin",
    "compressed-tensors",
    "modelopt",
    "modelopt_fp4",
    "mxfp4",
    "moe_wna16",
    "w8a8_fp8",
    "fbgemm_fp8",
)


@dataclass(slots=True, kw_only=True)
class Arguments:
    """What flags and variables say."""

    fields: dict[str, Any] = field(default_factory=dict)
    """``strategy.tensor`` -> value, as in the spec."""
    spelled: dict[str, str] = field(default_factory=dict)
    """The same field -> the flag that set it."""
    texts: dict[str, str] = field(default_factory=dict)
    """The same field, or ``setting.<name>`` -> its value as it was written."""
    unknown: dict[str, str] = field(default_factory=dict)
    """The same -> why what is stated of it is not known."""
    more: str = ""
    """Why there may be flags that are not here."""
    settings: dict[str, Any] = field(default_factory=dict)
    unmodelled: list[str] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)

    @property
    def online_layout(self) -> str | None:
        """How the engine quantises weights itself, where the checkpoint's are not."""
        return _ONLINE.get(str(self.settings.get("quantization") or ""))

    def over(self, settings: Settings) -> Settings:
        """The settings, with what only flags can say."""
        said = self.settings
        lora = None
        if said.get("lora"):
            lora = LoraSlots(slots=said.get("lora_slots", _DEFAULT_LORA.slots), rank=said.get("lora_rank", _DEFAULT_LORA.rank))
        if said.get("expert_backend", "none") != "none":
            self.unmodelled.append(f"buffers of the expert backend {said['expert_backend']}")
        images = said.get("images")
        none_of_them = isinstance(images, dict) and bool(images) and not any(_limit(each) for each in images.values())
        return replace(
            settings,
            block_tokens=said.get("block_tokens"),
            kv_cache=said.get("kv_cache"),
            kv_blocks=said.get("kv_blocks"),
            offload=said.get("offload", Bytes(0)),
            lora=lora,
            is_text_only=bool(said.get("is_text_only")) or none_of_them,
            groups_hybrid_layers=said.get("groups_hybrid_layers"),
            balances_experts=bool(said.get("balances_experts")),
            allows_long_context=bool(said.get("allows_long_context")),
            executor=said.get("executor", ""),
            nodes=said.get("nodes"),
            quantises_while_loading=self.online_layout is not None,
            unmodelled=tuple(self.unmodelled),
        )


def _limit(value: Any) -> Any:  # JSON
    return value.get("count", 1) if isinstance(value, dict) else value


@cache
def _flags(engine: str) -> dict[str, dict[str, Any]]:
    rows = table("engine_flags")["engines"].get(engine, {"flags": [], "bearing": [], "harmless": []})
    known = {_plain(name): row for row in rows["flags"] for name in row["names"]}
    known |= {_plain(name): {"type": "bearing"} for name in rows["bearing"]}
    return {**{_plain(name): {"type": "harmless"} for name in rows["harmless"]}, **known}


def _plain(flag: str) -> str:
    return flag.replace("_", "-")


def generation_of(environment: Mapping[str, str]) -> str | None:
    """V0 or V1, where vLLM's switch says which of its engines runs."""
    stated = environment.get("VLLM_USE_V1")
    return None if stated is None else "V1" if stated in _TRUE else "V0"


def read_arguments(engine: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Arguments:
    """Read flags, and under them variables. Of a flag that stands twice the last one counts."""
    read = Arguments()
    data = table("engine_flags")
    for name, row in data["variables"].items():
        if row["engine"] == engine and environment.get(name):
            _apply(read, name, row, environment[name])
    read.unmodelled += [f"variable {name}" for name in data["bearingVariables"] if name in environment]
    known = _flags(engine)
    named = _leading_name(engine, arguments)
    if isinstance(named, Unknown):
        read.unknown["model.name"] = f"{named}: {named.why}"
        read.texts["model.name"] = named
    elif named is not None:
        read.fields["model.name"], read.spelled["model.name"] = named, "the argument"
    for flag, value in _pairs(arguments, known, read):
        _read_flag(read, engine, known, flag, value)
    return read


def _read_flag(read: Arguments, engine: str, known: Mapping[str, dict[str, Any]], flag: str, value: str | None) -> None:
    row = known.get(_plain(flag)) or _abbreviated(_plain(flag), known)
    negated = _plain(flag).startswith("--no-") and known.get("--" + _plain(flag)[5:])
    if row is None and negated and negated["type"] == "flag":
        if negated.get("value") is not False:
            read.fields.pop(negated["sets"], None)
        return
    dotted = known.get(_plain(flag.split(".", 1)[0])) if "." in flag else None
    if row is None and dotted is not None:
        row = dotted if dotted["type"] == "harmless" else {"type": "bearing"}
    match (row or {}).get("type"):
        case None:
            read.opaque.append(f"{flag} is not a flag of {engine} that is known here")
        case "harmless":
            pass
        case "bearing":
            read.unmodelled.append(flag)
        case _:
            _apply(read, flag, row or {}, value)


LEAST_ABBREVIATION = 6
"""``--tens``: shorter ones could be flags that are not known here."""


def _abbreviated(flag: str, known: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Python's argparse takes the beginning of a flag for it where no other begins so."""
    if not flag.startswith("--") or len(flag) < LEAST_ABBREVIATION:
        return None
    meant = {id(row): row for name, row in known.items() if name.startswith(flag)}
    return next(iter(meant.values())) if len(meant) == 1 else None


def _leading_name(engine: str, arguments: Sequence[str]) -> str | None:
    """The model before all flags: ``serve NAME`` of vLLM and TensorRT-LLM."""
    if engine not in ("vllm", "tensorrt-llm", "lmdeploy"):
        return None
    words = list(takewhile(lambda word: not word.startswith("-"), arguments))
    names = [
        word
        for word in words
        if word not in ("vllm", "trtllm-serve", "serve", "api_server") and not getattr(word, "may_be_many", False)
    ]
    return names[0] if len(names) == 1 else None


def _pairs(arguments: Sequence[str], known: Mapping[str, Mapping[str, Any]], read: Arguments) -> Iterator[tuple[str, str | None]]:
    """(flag, value) of ``--flag value``, ``--flag=value`` and ``--flag``; words that belong to no flag are left out."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        index += 1
        if not word.startswith("-") or word == "--":
            if isinstance(word, Unknown) and word.may_be_many:
                read.more = read.more or word.why
            continue
        flag, equals, value = word.partition("=")
        if equals:
            yield flag, Unknown(value, word.why) if isinstance(word, Unknown) else value
        elif known.get(_plain(flag), {}).get("type") != "flag" and index < len(arguments) and not _is_flag(arguments[index]):
            yield flag, arguments[index]
            index += 1
        else:
            yield flag, None


def _is_flag(word: str) -> bool:
    """``-1`` is a value."""
    return word.startswith("-") and not word.lstrip("-").replace(".", "", 1).isdigit()


def _apply(read: Arguments, flag: str, row: Mapping[str, Any], text: str | None) -> None:
    if isinstance(text, Unknown) and row["type"] != "marker":
        read.unknown[row["sets"]] = f"{flag} {text}: {text.why}"
        read.opaque.append(f"{flag} {text}: {text.why}")
        read.fields.pop(row["sets"], None)
        read.settings.pop(row["sets"].split(".", 1)[1], None)
        return
    read.unknown.pop(row["sets"], None)
    if text is not None:
        read.texts[row["sets"]] = text
    try:
        value = _value(row, text)
    except (ValueError, OverflowError):
        read.opaque.append(f"{flag} has the value {text!r}, which is not {_READERS[row['type']][0]}")
        return
    kind, name = row["sets"].split(".", 1)
    if row.get("bears"):
        read.unmodelled.append(f"{flag} {value}")
    if kind == "setting":
        if name == "quantization" and value not in (*_WITHIN_CHECKPOINT, *_ONLINE):
            read.unmodelled.append(f"{flag} {value}")
        read.settings[name] = value
    else:
        read.fields[row["sets"]] = value
        read.spelled[row["sets"]] = flag


def _value(row: Mapping[str, Any], text: str | None) -> Any:  # as the row says
    kind = row["type"]
    if kind == "marker":
        return row["value"]
    if kind == "flag":
        said = text is None or text.lower() in _TRUE
        value = row.get("value", True)
        return value if said or not isinstance(value, bool) else not value
    if text is None:
        raise ValueError(kind)
    return _READERS[kind][1](text)


def _human(text: str) -> int:
    return int(float(text[:-1]) * _SUFFIX[text[-1]]) if text[-1:] in _SUFFIX else int(text)


def _within(value: float, low: int, high: int) -> float:
    if not low <= value <= high:
        raise ValueError(value)
    return value


def _length(text: str) -> int:
    """-1 and auto: as long as fits."""
    return -1 if text in ("auto", "-1") else int(_within(_human(text), 1, MOST_TOKENS))


def _count(text: str) -> int:
    return int(_within(int(text), 1, MOST_TOKENS))


def _json(text: str) -> Any:  # JSON
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(text[:20]) from error


def _dtype(text: str) -> str:
    if text not in _DTYPES:
        raise ValueError(text)
    return _DTYPES[text]


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "int": ("a whole number from 1 on", _count),
    "float": ("a number", float),
    "length": ("a number of tokens", _length),
    "bytes": ("a number of bytes", lambda text: int(_within(_human(text), 1, MOST_BYTES))),
    "gib": ("a number of GiB", lambda text: Bytes(int(_within(float(text), 0, MOST_BYTES // GIBI) * GIBI))),
    "json": ("JSON", _json),
    "ints": ("whole numbers from 1 on", lambda text: [_count(part) for part in text.split(",")]),
    "chunk": ("a number of tokens, or -1", lambda text: None if text == "-1" else _count(text)),
    "dtype": ("an element type", _dtype),
    "kvCache": ("an element type of KV caches", lambda text: KvCache("fp8" if text.startswith("fp8") else _dtype(text)).value),
    "text": ("given", str),
}
"""Type of a flag's value -> (how it is called, how it is read)."""
