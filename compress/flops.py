"""Multiply-accumulates of the prefill, as InfoMerge counts them (eqs. 13-17), compared with the papers' own figures.

One multiply-accumulate is one operation. Counted are the projections, attention products and MLPs of visual tokens in
the language model; norms, RoPE, softmax, embedding and LM head are not, and attention is not halved for causality.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any, Final

from compress.budget import check_retention
from compress.errors import ConfigError

Tokens = int | Fraction


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """The sizes that decide the cost of a decoder; the defaults are Qwen2-7B's.

    Attributes:
        layers: number of decoder layers.
        width: d, hidden size.
        mlp_width: d_ff, inner size of the gated MLP.
        heads: H, query heads.
        kv_heads: H_kv, key and value heads.
    """

    layers: int = 28
    width: int = 3584
    mlp_width: int = 18944
    heads: int = 28
    kv_heads: int = 4

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.mlp_width, self.heads, self.kv_heads) < 1:
            raise ConfigError(f"{self} has a size below 1; all sizes must be at least 1")

    @staticmethod
    def of(config: Any) -> LanguageModel:
        """Return the sizes of a Hugging Face decoder, from its configuration (``model.config.text_config``)."""
        return LanguageModel(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
        )

    def layer(self, tokens: Tokens) -> Fraction:
        """Count eq. (13): ``n d² (2 + 2 H_kv / H) + 2 n² d + 3 n d d_ff``."""
        n, d = Fraction(tokens), self.width
        return n * d * d * (2 + Fraction(2 * self.kv_heads, self.heads)) + 2 * n * n * d + 3 * n * d * self.mlp_width

    def prefill(self, tokens: Tokens, *, merge_layer: int | None = None, tokens_after: Tokens = 0) -> Fraction:
        """Count eqs. (14)-(16): all layers, or the first ``merge_layer`` at one length and the others at another.

        Args:
            tokens: visual tokens that enter.
            merge_layer: number of layers before the tokens shrink; None if they do not.
            tokens_after: visual tokens from there on.

        Raises:
            ConfigError: merge_layer outside [0, layers].
        """
        if merge_layer is None:
            return self.layers * self.layer(tokens)
        if not 0 <= merge_layer <= self.layers:
            raise ConfigError(
                f"merge_layer is {merge_layer}; it must lie in [0, {self.layers}], the layers of the model"
            )
        return merge_layer * self.layer(tokens) + (self.layers - merge_layer) * self.layer(tokens_after)

    def prefill_layers(self, tokens: Sequence[Tokens]) -> Fraction:
        """Count layer by layer, at the visual tokens that each of them sees."""
        return sum((self.layer(count) * layers for count, layers in Counter(tokens).items()), Fraction(0))


@dataclass(frozen=True, kw_only=True)
class VisionTower:
    """The sizes of an encoder; the defaults are SigLIP-so400m/14 without its last layer."""

    layers: int = 26
    width: int = 1152
    mlp_width: int = 4304

    def frame(self, tokens: int, keys: int | None = None) -> int:
        """Count operations for one frame of n = ``tokens`` patches: ``layers (n (4 D² + 2 D F) + 2 n m D)``.

        Args:
            tokens: patches that are computed.
            keys: m, patches that each of them attends to; None for the same.
        """
        return self.layers * self.layer(tokens, keys)

    def layer(self, tokens: int, keys: int | None = None) -> int:
        """Count those of one layer."""
        d = self.width
        return tokens * (4 * d * d + 2 * d * self.mlp_width) + 2 * tokens * (tokens if keys is None else keys) * d


@dataclass(frozen=True, kw_only=True)
class Account:
    """Operations that a compression saves; nominal and achieved figures are never mixed.

    Attributes:
        full: operations without compression.
        nominal: operations at ``retention * tokens_in``, unrounded.
        achieved: operations at the number of tokens that really left.
        newline_tokens: tokens that the host adds to them, not counted above.
        achieved_with_newlines: operations including those.
    """

    full: Fraction
    nominal: Fraction
    achieved: Fraction
    newline_tokens: int
    achieved_with_newlines: Fraction


def account(
    *,
    retention: float,
    tokens_in: int,
    tokens_out: int,
    newline_tokens: int = 0,
    model: LanguageModel | None = None,
) -> Account:
    """Count operations of the prefill before and after a compression."""
    check_retention(retention)
    model = model or LanguageModel()
    return Account(
        full=model.prefill(tokens_in),
        nominal=model.prefill(Fraction(str(retention)) * tokens_in),
        achieved=model.prefill(tokens_out),
        newline_tokens=newline_tokens,
        achieved_with_newlines=model.prefill(tokens_out + newline_tokens),
    )


def tera(operations: Fraction, *, decimals: int = 1) -> str:
    """Convert operations to units of 10^12, as papers print them."""
    return _printed(operations / 10**12, decimals)


def _printed(value: Fraction, decimals: int = 1) -> str:
    """Round the value to so many decimals, halves upwards, as printed."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return str(exact.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_UP))


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One row of a published table next to this model's figures.

    Attributes:
        paper: where the row is printed.
        host: the Video-LLM.
        method: what compresses.
        tokens: reduced length that reproduces the row; InfoMerge's tables use r L N unrounded (Table 1) and
            L floor(r N) (Table 2).
        computed: operations.
        share: of the uncompressed row, in per cent.
        printed: tera-operations in the paper.
        printed_share: per cent in the paper; None where it prints none.
    """

    paper: str
    host: str
    method: str
    tokens: Fraction
    computed: Fraction
    share: Fraction
    printed: str
    printed_share: str | None

    @property
    def agrees(self) -> bool:
        """Whether operations and share round to the printed decimals."""
        return self._same_operations and self.printed_share in (None, _printed(self.share))

    @property
    def agrees_rounded(self) -> bool:
        """Whether the printed share is the quotient of the operations as printed, rounded before they are divided."""
        full = Fraction(tera(self.computed * 100 / self.share))
        return self._same_operations and self.printed_share == _printed(Fraction(self.printed) * 100 / full)

    @property
    def _same_operations(self) -> bool:
        return tera(self.computed, decimals=len(self.printed.partition(".")[2])) == self.printed


FASTV_LAYERS = 2
"""FastV prunes after this many layers."""

_ONEVISION: Final = ("LLaVA-OneVision-7B", 6272)
_VIDEO: Final = ("LLaVA-Video-7B", 10816)
_VIDEO_NEWLINES: Final = ("LLaVA-Video-7B, with newlines", 11648)

_PRINTED: Final = (
    ("InfoMerge Table 1", _ONEVISION, "none", "6272", "48.8", "100.0"),
    ("InfoMerge Table 1", _ONEVISION, "InfoMerge 15 %", "940.8", "6.3", "12.9"),
    ("InfoMerge Table 1", _ONEVISION, "InfoMerge 10 %", "627.2", "4.2", "8.5"),
    ("InfoMerge Table 1", _ONEVISION, "InfoMerge 5 %", "313.6", "2.1", "4.2"),
    ("InfoMerge Table 1", _ONEVISION, "FastV 15 %", "940.8", "9.4", "19.2"),
    ("InfoMerge Table 1", _ONEVISION, "FastV 10 %", "627.2", "7.4", "15.1"),
    ("InfoMerge Table 1", _ONEVISION, "FastV 5 %", "313.6", "5.4", "11.1"),
    ("InfoMerge Table 2", _VIDEO, "none", "10816", "94.1", "100.0"),
    ("InfoMerge Table 2", _VIDEO, "InfoMerge 15 %", "1600", "11.0", "11.7"),
    ("InfoMerge Table 2", _VIDEO, "InfoMerge 10 %", "1024", "6.9", "7.3"),
    ("InfoMerge Table 2", _VIDEO, "FastV 15 %", "1600", "16.9", "18.0"),
    ("InfoMerge Table 2", _VIDEO, "FastV 10 %", "1024", "13.1", "13.9"),
    ("FastVID", _ONEVISION, "none", "6272", "48.82", None),
    ("FastVID", _ONEVISION, "FastVID 25 %", "1568", "10.73", None),
    ("FastVID", _ONEVISION, "FastVID 20 %", "1248", "8.46", None),
    ("FastVID", _ONEVISION, "FastVID 15 %", "928", "6.23", None),
    ("FastVID", _ONEVISION, "FastVID 10 %", "608", "4.04", None),
    ("FastVID", _ONEVISION, "FastV 25 %", "1568", "13.45", None),
    ("FastVID", _ONEVISION, "FastV 20 %", "1254.4", "11.38", None),
    ("FastVID", _ONEVISION, "FastV 15 %", "940.8", "9.35", None),
    ("FastVID", _ONEVISION, "FastV 10 %", "627.2", "7.36", None),
    ("FastVID", _VIDEO_NEWLINES, "none", "11648", "103.2", None),
    ("FastVID", _VIDEO_NEWLINES, "FastVID 25 %, 42 tokens per frame", "2752", "19.5", None),
    ("FastVID", _VIDEO_NEWLINES, "FastVID 10 %, 16 tokens per frame", "1088", "7.3", None),
    ("FastVID", _VIDEO_NEWLINES, "25 %, 715.5 newlines on average", "3403.5", "24.5", None),
    ("FastVID", _VIDEO_NEWLINES, "10 %, 508.2 newlines on average", "1532.2", "10.5", None),
)


def paper_rows() -> list[PaperRow]:
    """Return the published FLOPs tables, each row next to what `LanguageModel` computes for Qwen2-7B."""
    model = LanguageModel()
    rows = []
    for paper, (host, full), method, tokens, printed, printed_share in _PRINTED:
        length = Fraction(tokens)
        if method.startswith("FastV "):
            computed = model.prefill(full, merge_layer=FASTV_LAYERS, tokens_after=length)
        else:
            computed = model.prefill(length)
        rows.append(
            PaperRow(
                paper=paper,
                host=host,
                method=method,
                tokens=length,
                computed=computed,
                share=computed * 100 / model.prefill(full),
                printed=printed,
                printed_share=printed_share,
            )
        )
    return rows
