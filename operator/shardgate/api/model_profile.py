"""``ModelProfile``: what a private name, a path or a URI of a model stands for."""

from typing import Annotated, Any

from pydantic import Field

from shardgate.api.fields import ApiModel

MOST_BYTES = 2**53


class Safetensors(ApiModel):
    """Of the checkpoint's index."""

    total_bytes: Annotated[
        int,
        Field(
            ge=1, le=MOST_BYTES,
            description="Bytes of all tensors, as model.safetensors.index.json says in metadata.total_size; beats any formula.",
        ),
    ]  # fmt: skip


class ModelProfileSpec(ApiModel):
    """Names, and the model behind them."""

    match: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]],
        Field(
            min_length=1, max_length=256,
            description="Names, paths and URIs as declarations spell them; * stands for anything: s3://models/legal-70b/*.",
        ),
    ]  # fmt: skip
    config: Annotated[
        dict[str, Any] | None,
        Field(
            description="The model's Hugging Face config.json, quantization_config included.",
            json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = None
    safetensors: Annotated[Safetensors | None, Field(description="What the checkpoint's index says.")] = None
    disk_bytes: Annotated[int | None, Field(ge=1, le=MOST_BYTES, description="Bytes of all files to download.")] = None


class ModelProfile(ApiModel):
    """What private names, paths and URIs of a model stand for."""

    spec: Annotated[ModelProfileSpec, Field(description="Names, and the model behind them.")]
