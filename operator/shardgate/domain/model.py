"""What a model is made of: layers, heads, widths, element sizes."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArchitecture:
    """A dense decoder with grouped-query attention and a gated MLP (the Llama family).

    Counts are per model, widths in elements. ``source`` is where the figures were read.
    """

    name: str
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dimension: int
    intermediate_size: int
    vocabulary_size: int
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    dtype: str
    max_context_tokens: int | None
    source: str

    @property
    def norm_parameters_per_layer(self) -> int:
        """Two RMS norms, replicated on every tensor rank."""
        return 2 * self.hidden_size

    @property
    def linear_parameters_per_layer(self) -> int:
        """Attention projections and the three matrices of the gated MLP, biases included."""
        query_width, kv_width = self.attention_heads * self.head_dimension, self.kv_heads * self.head_dimension
        attention = self.hidden_size * (2 * query_width + 2 * kv_width)
        mlp = 3 * self.hidden_size * self.intermediate_size
        biases = (query_width + 2 * kv_width + self.hidden_size) * self.attention_bias
        return attention + mlp + biases + (2 * self.intermediate_size + self.hidden_size) * self.mlp_bias

    @property
    def embedding_parameters(self) -> int:
        """One vocabulary matrix; the output head is another of this size unless tied."""
        return self.vocabulary_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """Unique parameters, a tied head counted once."""
        matrices = 1 if self.tied_embeddings else 2
        per_layer = self.linear_parameters_per_layer + self.norm_parameters_per_layer
        return self.layers * per_layer + matrices * self.embedding_parameters + self.hidden_size


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightLayout:
    """How a published checkpoint stores its weights.

    ``linear_bytes`` is what one element of a transformer layer's linear weights takes, scales and zero points
    included; everything else (embeddings, head, norms) takes ``other_bytes``.
    """

    name: str
    linear_bytes: Fraction
    other_bytes: Fraction
    source: str
