"""Constants of the performance model and rates of GPUs, from their tables (``data/performance.json``, ``data/gpu_rates.json``)."""

from functools import cache
from typing import Any

from shardgate.adapters.engines.versions import OPEN_END, Span, release
from shardgate.adapters.tables import table
from shardgate.domain.performance.rates import GpuRates, Pace, Spread

GIGA, TERA, MICRO, MILLI = 1e9, 1e12, 1e-6, 1e-3

PCIE_GB_S = {3: 15.75, 4: 31.5, 5: 63.0, 6: 121.0}
"""Of 16 lanes, in one direction (PCI-SIG; 128b/130b coding up to generation 5, FLIT mode in 6)."""


@cache
def rates_of(gpu_id: str, vendor: str, *, is_made_joined: bool = False) -> GpuRates | None:
    """What a product of the GPU table reaches; ``None`` where its rates are not known."""
    row = _rows().get(gpu_id)
    if row is None or row["bandwidthGbS"] is None or row["denseTflops"]["half"] is None or row["pcieGeneration"] is None:
        return None
    factors = table("performance")["vendors"].get(vendor, {})
    tflops = row["denseTflops"]

    def rate(name: str) -> float | None:
        return None if tflops[name] is None else tflops[name] * TERA

    return GpuRates(
        bytes_per_second=row["bandwidthGbS"] * GIGA,
        half=tflops["half"] * TERA,
        fp8=rate("fp8"),
        int8=rate("int8"),
        fp4=rate("fp4"),
        link_bytes_per_second=(row["scaleUpGbS"] or 0) * GIGA / 2,
        host_link_bytes_per_second=PCIE_GB_S[row["pcieGeneration"]] * GIGA,
        is_made_joined=is_made_joined,
        compute_share=factors.get("computeShare", 1.0),
        memory_share=factors.get("memoryShare", 1.0),
    )


@cache
def _rows() -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table("gpu_rates")["gpus"]}


def pace_of(engine: str, span: Span) -> Pace | None:
    """The constants of an engine: of the newest versions that it could be; ``None`` where its steps are not modelled."""
    rows = table("performance")["engines"].get(engine, ())
    for row in reversed(rows):
        if span.meets(release(row["since"]), release(row["until"]) if "until" in row else OPEN_END):
            return _pace(engine, row["since"])
    return None


@cache
def _pace(engine: str, since: str) -> Pace:
    data = table("performance")
    row = next(each for each in data["engines"][engine] if each["since"] == since)
    general, spreads = data["general"], data["spreads"]

    def value(name: str) -> float:
        return float(general[name]["value"])

    def spread(name: str) -> Spread:
        each = spreads[name]
        low, high = each["firstToken"]
        return Spread(rate=each["rate"], token=each["token"], first_token_low=low, first_token_high=high)

    shares = general["gemmShare"]
    return Pace(
        gemm_share=(shares["half"], shares["fp8"], shares["int8"], shares["fp4"]),
        weight_read_share=value("weightReadShare"),
        cache_read_share=value("cacheReadShare"),
        prefill_attention_share=value("prefillAttentionShare"),
        layer_seconds=value("layerMicroseconds") * MICRO,
        mixture_seconds=value("mixtureMicroseconds") * MICRO,
        mixture_share=value("mixtureShare"),
        expert_imbalance=value("expertImbalance"),
        all_reduce_seconds=value("allReduceMicroseconds") * MICRO,
        all_reduce_seconds_unlinked=value("allReduceMicrosecondsUnlinked") * MICRO,
        all_reduce_growth=value("allReduceGrowth"),
        link_share=value("linkShare"),
        host_link_share=value("hostLinkShare"),
        send_seconds=value("sendMicroseconds") * MICRO,
        step_seconds=row["stepMilliseconds"] * MILLI,
        sequence_seconds=row["sequenceMicroseconds"] * MICRO,
        first_token_factor=row["firstTokenFactor"],
        first_token_seconds=row["firstTokenMilliseconds"] * MILLI,
        prefill_mix=value("prefillMix"),
        micro_batches=int(value("microBatches")),
        rate_share=row.get("rateShare", 1.0),
        fabric_bytes_per_second=value("fabricGbS") * GIGA,
        dense=spread("dense"),
        mixture=spread("mixture"),
        dealt_out=spread("dealtOut"),
        unusual=spread("unusual"),
        source=f"{engine} from {row['since']}" + (f", before {row['until']}" if "until" in row else ""),
    )
