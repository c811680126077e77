"""The score of a verdict: for reports alone, nothing is admitted or refused by it."""

from shardgate.domain.fitting import Fit
from shardgate.domain.situation import Situation
from shardgate.domain.units import number
from shardgate.domain.verdict import ScoreTerm

OBJECTIVE_MET_SHARE = 0.9
"""Of a term's points where an objective is just met; all of them from ``COMFORT`` beyond it."""
COMFORT = 0.1
"""Margin over an objective that leaves nothing to wish for."""
NOTHING_LEFT = 0.5
"""Share by which an objective is missed that leaves no points."""
GOOD_LOSS, BAD_LOSS = 0.05, 0.5
"""Shares of time lost to imbalance or bubbles: all points up to the first, none from the second on."""
GOOD_TALK, BAD_TALK = 0.1, 0.6
"""The same for the share of a step that goes to communication."""
COMFORTABLE_SEQUENCES = 8
"""Of the full length at once: a KV cache that holds so many is roomy where no concurrency is declared."""


def score_terms(situation: Situation) -> tuple[ScoreTerm, ...]:
    """All terms: 30 for throughput, 30 for latency, 15 for memory, 10 for balance, 10 for the link, 5 for utilisation."""
    return (
        _throughput(situation),
        _latency(situation),
        _memory(situation),
        _balance(situation),
        _link(situation),
        _utilisation(situation),
    )


def _of_margin(margin: float) -> float:
    """Share of points for an objective that is met with so much to spare (negative: missed)."""
    if margin >= 0:
        return OBJECTIVE_MET_SHARE + (1 - OBJECTIVE_MET_SHARE) * min(1.0, margin / COMFORT)
    return OBJECTIVE_MET_SHARE * max(0.0, 1 + margin / NOTHING_LEFT)


def _falling(value: float, good: float, bad: float) -> float:
    """1 up to ``good``, 0 from ``bad`` on."""
    return min(1.0, max(0.0, (bad - value) / (bad - good)))


def _no_figures(situation: Situation) -> str:
    """Why there are none."""
    best = situation.best_found
    if best is not None and best.fit is Fit.UNFIT:
        return "it would not start on the GPUs that are here"
    return "how fast it would be is not modelled here"


def _throughput(situation: Situation) -> ScoreTerm:
    found, wanted = situation.performance, situation.declaration.objectives.requests_per_second
    if not wanted:
        return ScoreTerm(name="throughput", points=None, of=30, why="no rate is aimed at")
    if found is None:
        return ScoreTerm(name="throughput", points=None, of=30, why=_no_figures(situation))
    reached = found.capacity.value
    margin = reached / wanted - 1
    why = f"{number(reached)} of {wanted:g} requests/s ({100 * margin:+.0f} %); {found.label}"
    return ScoreTerm(name="throughput", points=30 * _of_margin(margin), of=30, why=why)


def _latency(situation: Situation) -> ScoreTerm:
    found, aims = situation.performance, situation.declaration.objectives
    wanted = [
        (name, aim, None if found is None else value)
        for name, aim, value in (
            ("time to first token", aims.time_to_first_token_seconds, found and found.time_to_first_token),
            ("time per output token", aims.time_per_output_token_seconds, found and found.time_per_output_token),
        )
        if aim is not None
    ]
    if not wanted:
        return ScoreTerm(name="latency", points=None, of=30, why="no latency is aimed at")
    if found is None:
        return ScoreTerm(name="latency", points=None, of=30, why=_no_figures(situation))
    if found.is_at_capacity:
        return ScoreTerm(name="latency", points=0.0, of=30, why="at capacity: latencies cannot be told, and grow")
    margins = [(aim / value.value - 1, name, aim, value.value) for name, aim, value in wanted if value]
    margin, name, aim, value = min(margins)
    side = "under" if value <= aim else "over"
    why = f"{name} {1000 * value:.0f} ms, {100 * abs(value / aim - 1):.0f} % {side} the {1000 * aim:g} ms aimed at"
    return ScoreTerm(name="latency", points=30 * _of_margin(margin), of=30, why=why)


def _memory(situation: Situation) -> ScoreTerm:
    best, traffic, found = situation.best_found, situation.declaration.traffic, situation.performance
    if best is None or best.estimate is None:
        return ScoreTerm(name="memory headroom", points=None, of=15, why="memory is not modelled here")
    if traffic.concurrency is not None and found is not None:
        ranks = situation.declaration.strategy.data_ranks_per_replica * situation.declaration.replicas
        held = best.estimate.kv_tokens.value * ranks
        needed = traffic.concurrency * (found.lengths.prompt + found.lengths.output)
        share, why = held / needed, f"KV caches hold {held:,.0f} tokens, {traffic.concurrency} requests need up to {needed:,.0f}"
    else:
        at_once = best.estimate.concurrency_at_full_length
        if at_once is None:
            return ScoreTerm(name="memory headroom", points=None, of=15, why="no length and no concurrency is declared")
        share = at_once.value / COMFORTABLE_SEQUENCES
        why = f"{at_once.value:.1f} sequences of the full length at once, {COMFORTABLE_SEQUENCES} are roomy"
        if at_once.value <= 0:
            why = "no room for a KV cache: not even one sequence fits"
    return ScoreTerm(name="memory headroom", points=15 * min(1.0, max(0.0, share)), of=15, why=why)


def _balance(situation: Situation) -> ScoreTerm:
    found = situation.performance
    if found is None:
        return ScoreTerm(name="balance and bubble", points=None, of=10, why=_no_figures(situation))
    balance = found.balance
    points = 5 * _falling(balance.epsilon, GOOD_LOSS, BAD_LOSS) + 5 * _falling(balance.loss, GOOD_LOSS, BAD_LOSS)
    basis = f"at {balance.micro_batches} micro-batches" if balance.bubble is not None else "as measured of pipelines"
    why = f"slowest stage {100 * balance.epsilon:.1f} % over the mean, bubble {100 * balance.loss:.0f} % {basis}"
    if len(balance.stage_seconds) == 1:
        why = "one stage: nothing to balance"
    return ScoreTerm(name="balance and bubble", points=points, of=10, why=why)


def _link(situation: Situation) -> ScoreTerm:
    found = situation.performance
    if found is None:
        return ScoreTerm(name="link", points=None, of=10, why=_no_figures(situation))
    share, used = found.communication.time_share, found.communication.link_utilization
    why = f"{100 * share:.0f} % of a decode step goes to communication; {100 * used:.1f} % of the link's bandwidth is used"
    return ScoreTerm(name="link", points=10 * _falling(share, GOOD_TALK, BAD_TALK), of=10, why=why)


def _utilisation(situation: Situation) -> ScoreTerm:
    found, wanted = situation.performance, situation.declaration.objectives.gpu_utilization
    if not wanted:
        return ScoreTerm(name="utilisation", points=None, of=5, why="no utilisation is aimed at")
    if found is None:
        return ScoreTerm(name="utilisation", points=None, of=5, why=_no_figures(situation))
    busy = found.gpu_utilization.value
    why = f"GPUs are busy {100 * busy:.0f} % of the time, {100 * wanted:.0f} % are aimed at"
    return ScoreTerm(name="utilisation", points=5 * min(1.0, busy / wanted), of=5, why=why)
