"""Stages of a method, each of which turns signals into a plan.

A method is pure tensor code that never sees a model. It implements any of

    plan_frames(meta)            per-frame budgets, from metadata only, before anything is encoded
    before_encoder(density)      merge patches before the vision encoder
    inside_encoder(state)        merge patches or frames between the blocks of the vision encoder
    before_llm(tokens, signals)  merge visual tokens before the language model
    inside_llm(scores, hidden)   merge visual tokens between two decoder layers, once or at several cuts
    at_decoding(scores, ...)     choose the visual tokens whose keys and values a decoding step reads

and those that merge return a `Compression`, the plan and an account of it, or, inside the encoder, an `EncoderMerge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from compress.encoder_merging import EncoderMerge, EncoderState
from compress.errors import ShapeError
from compress.plan import MergePlan

Positions = Literal["original", "contiguous"]
"""Position ids of the tokens that leave: those of their anchors, or renumbered without gaps."""

Query = Literal["last", "text", "all"]
"""Tokens of a prompt whose attention counts inside the language model."""

Reduce = Literal["mean", "max", "max_of_means"]
"""Reduction of attention over heads and tokens: mean or largest of both, or the largest over tokens of the mean over
heads."""

MergePoint = Literal["attention", "block"]
"""Where a method merges inside an encoder block: between its attention and its MLP, or after it."""

GopKind = Literal["mean", "total", "packet", "interval"]
"""Measure of a frame's complexity: its GoP's mean packet, its GoP's bytes, its own packet, or the mean packet since the
previous sampled frame."""


class VideoSignals(Protocol):
    """The part of ``codecmeta.VideoMeta`` that methods read."""

    def gop_packet_size(self, kind: GopKind = "mean") -> NDArray[np.float64]:
        """Return the complexity c_t of each sampled frame, float64 (T,)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Signals:
    """Signals that a method may read besides the tokens; T frames of N tokens each.

    Attributes:
        packet_size: (T,), complexity c_t of each frame, from ``meta.gop_packet_size()``.
        density: (T, N), S_t on the token grid in [0, 1], from ``meta.density(grid)``.
        saliency: (T, N), attention that each token receives (only its order and spread within a frame
            matter).
        frame_features: (T, Dg), one global feature per frame.
        grid: rows and columns of the tokens of a frame, N = rows * cols.
        text: (Q, D), text tokens of the prompt in the space of the visual tokens.
        keys: (T, N, Dk), attention keys of the tokens in the vision encoder, mean over heads.
        frame_groups: int64 (T,), frames that the vision encoder folded to one have one number; ascending from 0.
        frame_segments: int64 (K + 1,), where segments begin among those groups.
        saliency_source: where the saliency comes from, repeated in the result.
        density_source: by which map the density is measured, likewise.
    """

    packet_size: ArrayLike | None = None
    density: Tensor | NDArray[np.float32] | None = None
    saliency: Tensor | None = None
    frame_features: Tensor | None = None
    grid: tuple[int, int] | None = None
    text: Tensor | None = None
    keys: Tensor | None = None
    frame_groups: NDArray[np.int64] | None = None
    frame_segments: NDArray[np.int64] | None = None
    saliency_source: str = "given"
    density_source: str = "given"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Place in the decoder where visual tokens merge or leave, and the attention that decides it.

    Attributes:
        layer: the decoder layer (from 0) before which they leave.
        scored: layers whose attention counts, ascending, all between the cut before and this one. ``layer`` itself may
            be the last: its queries and keys are then computed of all tokens that reach it. None of them, for a method
            that reads no attention.
        query: whose attention counts, that of the ``last`` prompt token, of the ``text`` after the video, or of
            ``all`` tokens.
        reduce: over heads and these tokens.
        positions: position ids from ``layer`` on: those of the tokens, or ``contiguous``, counted again from 0.
        caches: tokens that leave also leave the caches of the layers before, once the prompt has been read; of a
            method's only cut.
    """

    layer: int
    scored: tuple[int, ...]
    query: Query = "last"
    reduce: Reduce = "mean"
    positions: Positions = "original"
    caches: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class InnerTokens:
    """Tokens of a prompt at a cut, as a method that has ``cuts`` is shown them.

    Attributes:
        cut: number of the cut, from 0.
        entered: visual tokens of the prompt that entered the language model.
        place: int64 (n, 4), video of the prompt, frame, row and column of each token that is left; None if unknown.
        grids: rows and columns of the frames of each video, N tokens before any leaves.
        text: (Q, D), residual stream of the text after the videos; None if unknown.
        kind: uint8 (n,), kind that the method before the language model gave each token; None if it gave none.
        kinds: names of the kinds.
    """

    cut: int
    entered: int
    place: Tensor | None = None
    grids: tuple[tuple[int, int], ...] = ()
    text: Tensor | None = None
    kind: Tensor | None = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of frames that a method treats as one; its shares of the budget.

    Attributes:
        start: first frame.
        frames: number of frames.
        salient: tokens kept one by one.
        context: tokens that others were merged into.
    """

    start: int
    frames: int
    salient: int
    context: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Compression:
    """A plan with its account: what was requested, what was achieved, and why.

    Attributes:
        method: name of the method.
        plan: V input tokens (frame-major, raster order) -> V' output tokens.
        frames: T; V is a multiple of it, 0 where tokens belong to no frame.
        nominal: tokens that the retention asks for.
        kind: uint8 (V',), index into ``kinds``; None where all tokens are of one kind.
        kinds: names of the kinds of token, e.g. ("salient", "substituted", "context").
        frame_budgets: int64 (T,), tokens granted to each frame where the method has such budgets.
        segments: the segments of the method, in order.
        positions: how position ids of the tokens that leave are to be made.
        sources: signal -> where it came from, above all when a fall-back was used.
        diagnostics: named arrays and numbers, on the CPU.
    """

    method: str
    plan: MergePlan
    frames: int
    nominal: int
    kind: Tensor | None = None
    kinds: tuple[str, ...] = ()
    frame_budgets: NDArray[np.int64] | None = None
    segments: tuple[Segment, ...] = ()
    positions: Positions = "original"
    sources: Mapping[str, str] = field(default_factory=dict)
    diagnostics: Mapping[str, NDArray[np.generic] | float] = field(default_factory=dict)

    @property
    def achieved(self) -> int:
        """Tokens that leave."""
        return self.plan.count_out

    @property
    def frame_counts(self) -> NDArray[np.int64]:
        """int64 (T,), tokens that leave, by the frame of their anchor."""
        per_frame = self.plan.count_in // max(self.frames, 1)
        frame = self.plan.keep.cpu().numpy() // max(per_frame, 1)
        return np.bincount(frame, minlength=self.frames).astype(np.int64)

    def apply(self, tokens: Tensor) -> Tensor:
        """Shorten tokens (T, N, ...) or (V, ...) to (V', ...), see `MergePlan.apply`."""
        if self.frames and tokens.dim() > 2 and tokens.shape[0] * tokens.shape[1] == self.plan.count_in:
            tokens = tokens.flatten(0, 1)
        return self.plan.apply(tokens)

    def position_ids(self, original: Tensor, *, dim: int = -1) -> Tensor:
        """Return the position ids of the tokens that leave.

        Args:
            original: ids of the V input tokens along ``dim``, e.g. (V,) or (3, V) for M-RoPE.
            dim: the dimension of the tokens.

        Returns:
            The anchors' ids, or, for ``positions == "contiguous"``, the first V' ids.
        """
        if self.positions == "original":
            return self.plan.take(original, dim=dim)
        return original.narrow(dim, 0, self.achieved)


@runtime_checkable
class PlansFrames(Protocol):
    """A method that shares the budget among frames before anything is encoded."""

    def plan_frames(self, meta: VideoSignals, *, tokens_per_frame: int) -> NDArray[np.int64]:
        """Return the tokens of each frame, int64 (T,)."""
        ...


@runtime_checkable
class BeforeEncoder(Protocol):
    """A method that merges patches before the vision encoder.

    One that sets ``reuses_patches`` gets the pixels of the patches in place of their density, (T, rows, cols, P) in
    levels of 255. The encoder then averages nothing: patches leave for their anchor, and every frame sees all of its
    patches, those that left by what their anchors are.
    """

    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        """Plan over all T * rows * cols patches of density (T, rows, cols)."""
        ...


@runtime_checkable
class InsideEncoder(Protocol):
    """A method that merges inside the vision encoder. It also has

    - ``merge_point``: where in a block it merges, a `MergePoint`;
    - ``merge_blocks(depth) -> tuple[int, ...]``: the blocks in which it merges, ascending from 0;
    - ``scored_block(depth) -> int | None``: the block whose attention is the saliency of the tokens, None for the last;
    - ``weighs_by_size``: whether attention counts a token by its patches.
    """

    def inside_encoder(self, state: EncoderState) -> EncoderMerge | None:
        """Plan the merge in one block; None for none."""
        ...


@runtime_checkable
class BeforeLLM(Protocol):
    """A method that merges visual tokens before the language model."""

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        """Plan over the T * N tokens of (T, N, D)."""
        ...


@runtime_checkable
class InsideLLM(Protocol):
    """A method that merges visual tokens between two decoder layers.

    One that chooses its layers by the depth of the model has ``at_depth(depth, first=...)``, which gives the same
    method with its layers, see `MATM.at_depth`. ``query`` says whose attention it reads, ``last`` if absent.

    One that merges at several places, or needs to know more than scores and the residual stream, has ``cuts``, a
    tuple of `Cut` in ascending order (None while they depend on the model). Its ``inside_llm`` then also takes
    `InnerTokens`, ``merge_layer`` is its first cut, and ``layers`` are all that it reads.
    """

    @property
    def layers(self) -> tuple[int, ...] | None:
        """Decoder layers whose attention it reads, ascending; None while they depend on the model."""
        ...

    @property
    def merge_layer(self) -> int | None:
        """The decoder layer before which it merges; None while it depends on the model."""
        ...

    def inside_llm(self, scores: Tensor, hidden: Tensor) -> Compression:
        """Plan over n visual tokens, from scores (layers, n) and the residual stream (n, D)."""
        ...


@runtime_checkable
class AtDecoding(Protocol):
    """A method that lets decoding steps read part of the visual tokens in the cache, which itself stays whole.

    One that chooses its layer by the depth of the model has ``at_depth``, as one inside the language model.
    """

    @property
    def decode_layer(self) -> int | None:
        """The first decoder layer that reads the choice, by the attention of the layer before it; None while it
        depends on the model.
        """
        ...

    def at_decoding(self, scores: Tensor, before: Tensor | None, chosen: Tensor | None) -> Tensor:
        """Choose among n visual tokens at a decoding step.

        Args:
            scores: (n,), attention of the step's token, mean over heads.
            before: (n,), the same of the step before; None at the first.
            chosen: bool (n,), the choice of the step before; None at the first.

        Returns:
            bool (n,).
        """
        ...


def cuts_of(method: InsideLLM) -> tuple[Cut, ...] | None:
    """Return the cuts of a method inside the language model; None while they depend on the model."""
    if hasattr(method, "cuts"):
        found: tuple[Cut, ...] | None = method.cuts
        return found
    if not method.layers or method.merge_layer is None:
        return None
    return (Cut(layer=method.merge_layer, scored=tuple(method.layers), query=getattr(method, "query", "last")),)


def check_tokens(tokens: Tensor) -> tuple[int, int, int]:
    """Check a video's tokens and return their sizes T, N, D.

    Raises:
        ShapeError: not a floating-point tensor of three dimensions, or an empty one.
    """
    if tokens.dim() != 3 or not tokens.is_floating_point() or not tokens.numel():
        raise ShapeError(
            f"tokens have shape {tuple(tokens.shape)} and dtype {tokens.dtype}; "
            f"allowed is floating point (T, N, D), not empty"
        )
    frames, per_frame, width = tokens.shape
    return frames, per_frame, width


def check_signal(name: str, signal: ArrayLike | Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Check a signal and return it on the host in float64; costs a synchronisation if it lies on an accelerator.

    Raises:
        ShapeError: the shape differs, or a value is not finite.
    """
    host = signal.detach().cpu().double().numpy() if isinstance(signal, Tensor) else np.asarray(signal, np.float64)
    if host.shape != shape:
        raise ShapeError(f"{name} has shape {host.shape}; these tokens take {shape}")
    if not np.isfinite(host).all():
        raise ShapeError(f"{name} holds NaN or infinity; all values must be finite")
    return host
