"""``shardgate plan``."""

from collections.abc import Callable

import rich_click as click

from shardgate.adapters.errors import mistakes_in
from shardgate.adapters.plans import PlanQuestion, plan_json
from shardgate.adapters.referred_workloads import read_declaration
from shardgate.domain.policy import OWN_KIND
from shardgate.shells.cli.clusters import cluster_of
from shardgate.shells.cli.consoles import console
from shardgate.shells.cli.exit_codes import BAD_DATA, NOTHING_FITS, UNDECIDED
from shardgate.shells.cli.forms import print_json, print_unreadable
from shardgate.shells.cli.options import cluster_option, gpus_option, output_option
from shardgate.shells.cli.progress import working
from shardgate.shells.plan_terminal import print_plan

OBJECTIVES = (
    "requestsPerSecond", "timeToFirstTokenMilliseconds", "timePerOutputTokenMilliseconds", "gpuUtilizationPercent",
)  # fmt: skip
TRAFFIC = ("promptTokens", "outputTokens", "concurrency")
ENGINES = ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "tgi", "nim")


def _pairs(names: tuple[str, ...], kind: type) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, float]]:
    """``NAME=VALUE`` options, as fields of the spec."""

    def read(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
        found = {}
        for each in values:
            name, equals, value = each.partition("=")
            if not equals or name not in names:
                problem = f"{each}: write NAME=VALUE, NAME one of {', '.join(names)}"
                raise click.BadParameter(problem)
            try:
                found[name] = kind(value)
            except ValueError:
                problem = f"{each}: {value or 'nothing'} is no {'whole number' if kind is int else 'number'}"
                raise click.BadParameter(problem) from None
        return found

    return read


@click.command()
@click.option("--model", required=True, metavar="NAME", help="A catalogue id or alias, or what a ModelProfile matches.")
@click.option("--weights", metavar="LAYOUT", help="As in spec.model.weights. Default: the checkpoint's own.")
@click.option(
    "--engine", type=click.Choice(ENGINES), default="vllm", show_default=True, metavar="NAME", help=f"One of {', '.join(ENGINES)}."
)
@click.option("--engine-version", metavar="VERSION", help="Default: figures of the newest known.")
@click.option("--max-model-len", type=click.IntRange(min=1), metavar="TOKENS", help="Default: the model's full length.")
@click.option("--product", "products", multiple=True, metavar="PATTERN", help="Products to plan on; may be repeated. Default: any.")
@click.option(
    "--objective", "objectives", multiple=True, metavar="NAME=VALUE", callback=_pairs(OBJECTIVES, float),
    help=f"What to reach, as in spec.objectives: {', '.join(OBJECTIVES)}; may be repeated.",
)  # fmt: skip
@click.option(
    "--traffic", "traffic", multiple=True, metavar="NAME=VALUE", callback=_pairs(TRAFFIC, int),
    help=f"The load, as in spec.traffic: {', '.join(TRAFFIC)}; may be repeated. Default: 1024 prompt and 512 output tokens.",
)  # fmt: skip
@cluster_option("Nodes, pods, policies and models as YAML or JSON (kubectl get -o yaml will do). Default: the live cluster.")
@gpus_option()
@output_option(("table", "json"))
@click.pass_context
def plan(  # its options
    context: click.Context, model: str, weights: str | None, engine: str, engine_version: str | None, max_model_len: int | None,
    products: tuple[str, ...], objectives: dict[str, float], traffic: dict[str, int], clusters: tuple[str, ...],
    gpus: str | None, output: str,
) -> None:  # fmt: skip
    """Find the best strategies for a model on this cluster, and the hardware that it would need.

    Strategies, precisions (published checkpoints alone) and replicas; only what verifies Sound on what is free now, those
    that meet the objectives first, then by requests per second and GPU. Exit code: 1 if nothing fits here, 2 if the model is
    not known, else 0; 64 usage, 65 an object of the cluster that cannot be read (named; the others count), 66 no such file,
    69 cluster unreachable.
    """
    question = PlanQuestion(
        model=model, weights=weights, engine=engine, engine_version=engine_version, max_model_len=max_model_len, products=products,
        traffic=traffic, objectives=objectives,
    )  # fmt: skip
    snapshot = cluster_of(clusters, gpus)
    try:
        declaration = read_declaration(question.body, snapshot.book.rules.known_profiles)
    except ExceptionGroup as problems:
        raise click.UsageError("; ".join(str(each) for each in mistakes_in(problems))) from None
    print_unreadable(snapshot.unreadable)
    with working("looking for what fits"):
        found = plan_json(declaration, snapshot.inventory(), OWN_KIND)
    if not print_json([found], output):
        print_plan(console(), found)
    nothing = UNDECIDED if found["problem"] else NOTHING_FITS
    context.exit(BAD_DATA if snapshot.unreadable else 0 if found["options"] else nothing)
