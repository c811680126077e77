"""Options that several commands have, spelled once."""

from collections.abc import Callable, Sequence
from typing import Any

import rich_click as click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def files_option(*, required: bool, text: str = "Manifest, folder, or - for standard input; may be repeated.") -> Decorator:
    """``-f FILE``, into ``files``."""
    return click.option("-f", "files", multiple=True, required=required, type=click.Path(), metavar="FILE", help=text)


def cluster_option(text: str) -> Decorator:
    """``--cluster SNAPSHOT``, into ``clusters``."""
    return click.option("--cluster", "clusters", multiple=True, type=click.Path(), metavar="SNAPSHOT", help=text)


def gpus_option() -> Decorator:
    """``--gpus ITEMS``, into ``gpus``."""
    return click.option(
        "--gpus",
        metavar="ITEMS",
        help="A cluster made up of these nodes: 8xH100-80GB-HBM3[@79.19Gi][,...], @ = memory as the engine sees it.",
    )


def output_option(forms: Sequence[str] = ("table", "json"), text: str = "Form of the answer.") -> Decorator:
    """``-o FORM``, into ``output``; the first is the default."""
    return click.option(
        "-o", "output", type=click.Choice(list(forms)), default=forms[0], show_default=True, metavar="FORM",
        help=f"{text.removesuffix('.')}: {', '.join(forms)}.",
    )  # fmt: skip
