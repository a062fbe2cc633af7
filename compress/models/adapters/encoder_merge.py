"""Merging between the blocks of a vision encoder: what merged so far of every video, and the hooks of a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.encoder_merging import EncoderMerge, EncoderResult, EncoderState
from compress.errors import ConfigError, ShapeError
from compress.models.adapters.attached import replace_method
from compress.models.adapters.attention import Kernel
from compress.ops.transfer import moved
from compress.planning_mode import full_precision, planning
from compress.stage import InsideEncoder

ADDS_BIAS = ("sdpa", "eager")
"""Attention kernels that add a mask of any values to the logits."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """The parts of an encoder block.

    Attributes:
        whole: the block.
        attention: its attention.
        second_norm: what the residual stream goes through before the MLP.
        mlp: the MLP.
    """

    whole: nn.Module
    attention: nn.Module
    second_norm: nn.Module
    mlp: nn.Module


@dataclass(kw_only=True, eq=False)
class _Video:
    """A video in the encoder: its frames and patches at first, and the tokens that they merged to.

    Attributes:
        frames: T at first.
        patches: N at first.
        now: frames that are left.
        origin: int64 (T N,), token that each patch joined.
        weight: float32 (T N,), of each patch in that token.
        keep: int64 (n,), patch whose place each token takes.
        size: float32 (n,), patches of each token.
        counts: block that merged -> frames after it, and tokens of each.
        segments: where segments begin among the frames that are left.
    """

    frames: int
    patches: int
    now: int
    origin: Tensor
    weight: Tensor
    keep: Tensor
    size: Tensor
    counts: dict[int, tuple[int, int]]
    segments: NDArray[np.int64] | None = None

    @staticmethod
    def of(frames: int, patches: int, device: torch.device) -> _Video:
        every = torch.arange(frames * patches, device=device)
        ones = torch.ones(len(every), dtype=torch.float32, device=device)
        return _Video(
            frames=frames, patches=patches, now=frames, origin=every, weight=ones, keep=every, size=ones, counts={}
        )

    def move(self, device: torch.device) -> None:
        """Move what is known to a device."""
        if self.size.device != device:
            self.origin, self.weight = moved(self.origin, device), moved(self.weight, device)
            self.keep, self.size = moved(self.keep, device), moved(self.size, device)

    def join(self, block: int, merge: EncoderMerge) -> None:
        """Follow a merge of the tokens that are left, in a block."""
        self.weight = self.weight * merge.weight[self.origin]
        self.origin = merge.origin[self.origin]
        self.keep = self.keep[merge.keep]
        self.size = torch.zeros_like(self.size[: len(merge.keep)]).index_add_(0, merge.origin, self.size)
        self.now = merge.frames
        self.segments = merge.segments if merge.segments is not None else self.segments
        self.counts[block] = merge.frames, len(merge.keep) // merge.frames


class EncoderMerging:
    """Merging in one pass through the encoder, over the flat sequence of all frames of all videos.

    Attributes:
        keys: of the tokens in the block that is running, mean over heads, in parts.
        received: attention that the tokens received in the block that is scored, in parts.
        cursor: tokens that attention has seen in the block that is running.
        pending: merge that is decided and not done.
        merged: whether anything has merged.
        records: whether the method reads keys.
        weighs: whether attention counts tokens by their patches.
    """

    def __init__(
        self, method: InsideEncoder, depth: int, shapes: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        described: Any = method
        self._method = method
        self.records: bool = described.merge_point == "attention"
        self.weighs = bool(described.weighs_by_size)
        self._depth = depth
        self._videos = [_Video.of(frames, patches, device) for frames, patches in shapes]
        self.keys: list[Tensor] = []
        self.received: list[Tensor] = []
        self.cursor = 0
        self.pending: EncoderMerge | None = None
        self.merged = False
        self._own: list[EncoderMerge | None] = []
        self._block = 0

    @property
    def frames(self) -> int:
        """Frames of all videos that are left."""
        return sum(video.now for video in self._videos)

    def decide(
        self, block: int, hidden: Tensor, reorder: Callable[[EncoderMerge], EncoderMerge] | None = None
    ) -> EncoderMerge | None:
        """Ask the method what merges.

        Args:
            block: number of the block.
            hidden: (..., D), the residual stream of all tokens.
            reorder: changes the order of the tokens that stay.

        Raises:
            ConfigError: the method returned something else.
        """
        flat = hidden.detach().flatten(0, -2)
        for video in self._videos:
            video.move(flat.device)  # of a model that is spread over devices
        keys = torch.cat(self.keys) if self.keys else None
        self.keys = []
        found: list[EncoderMerge | None] = []
        start = 0
        for video in self._videos:
            count = len(video.size)
            part = slice(start, start + count)
            start += count
            state = EncoderState(
                block=block,
                depth=self._depth,
                hidden=flat[part].view(video.now, -1, flat.shape[1]),
                keys=None if keys is None else keys[part].view(video.now, -1, keys.shape[1]),
                size=video.size.view(video.now, -1),
                frames=video.frames,
                patches=video.patches,
            )
            with planning():
                merge = self._method.inside_encoder(state)
            found.append(merge if merge is None else self._checked(merge, count))
        self.pending = None
        if any(one is not None for one in found):
            joined = self._join(block, found, flat.device)
            self.pending = joined if reorder is None else reorder(joined)
        return self.pending

    def _checked(self, merge: object, count: int) -> EncoderMerge:
        name = type(self._method).__name__
        if not isinstance(merge, EncoderMerge):
            raise ConfigError(f"inside_encoder of {name} returned {type(merge).__name__}; return an EncoderMerge")
        if len(merge.origin) != count or len(merge.keep) % max(merge.frames, 1):
            raise ShapeError(
                f"the merge of {name} is over {len(merge.origin)} tokens, to {len(merge.keep)} in {merge.frames} "
                f"frames; {count} tokens come in, and every frame must keep as many as the others"
            )
        return merge

    def _join(self, block: int, found: Sequence[EncoderMerge | None], device: torch.device) -> EncoderMerge:
        """Join the merges of the videos into one over all of their tokens, and let each video follow its own."""
        origins, weights, keeps = [], [], []
        before = after = frames = 0
        self._own, self._block = list(found), block
        for video, merge in zip(self._videos, found, strict=True):
            count = len(video.size)
            every = torch.arange(count, device=device)
            origin, keep = (every, every) if merge is None else (merge.origin, merge.keep)
            origins.append(origin + after)
            keeps.append(keep + before)
            weights.append(torch.ones(count, dtype=torch.float32, device=device) if merge is None else merge.weight)
            before, after = before + count, after + len(keep)
            frames += video.now if merge is None else merge.frames
        return EncoderMerge(origin=torch.cat(origins), weight=torch.cat(weights), keep=torch.cat(keeps), frames=frames)

    def merge(self, hidden: Tensor) -> Tensor:
        """Merge the tokens of (frames, n, D) or (S, D) as decided."""
        assert self.pending is not None
        with full_precision():
            merged = self.pending.apply(hidden.flatten(0, -2))
        return merged if hidden.dim() == 2 else merged.view(self.pending.frames, -1, hidden.shape[2])

    def commit(self) -> EncoderMerge:
        """Let everything that is known of the tokens follow the merge that was decided."""
        merge = self.pending
        assert merge is not None
        before = after = 0
        for video, own in zip(self._videos, self._own, strict=True):
            count = len(video.size)
            left = count if own is None else len(own.keep)
            video.join(
                self._block,
                EncoderMerge(
                    origin=merge.origin[before : before + count] - after,
                    weight=merge.weight[before : before + count],
                    keep=merge.keep[after : after + left] - before,
                    frames=video.now if own is None else own.frames,
                    segments=None if own is None else own.segments,
                ),
            )
            before, after = before + count, after + left
        if self.received:
            received = torch.cat(self.received).to(merge.origin.device)
            self.received = [merge.apply(received[:, None])[:, 0]]
        self.pending, self.merged = None, True
        return merge

    @property
    def frame_lengths(self) -> list[int]:
        """Tokens of every frame that is left."""
        return [len(video.size) // video.now for video in self._videos for _ in range(video.now)]

    @property
    def count(self) -> int:
        """Tokens of all videos that are left."""
        return sum(len(video.size) for video in self._videos)

    @property
    def log_size(self) -> Tensor:
        """float32 (S,), logarithm of the patches of every token."""
        return torch.cat([video.size for video in self._videos]).log()

    @property
    def origin(self) -> Tensor:
        """int64 (S at first,), token that each patch of all videos joined."""
        origins, before = [], 0
        for video in self._videos:
            origins.append(video.origin + before)
            before += len(video.size)
        return torch.cat(origins)

    def results(self, orders: Sequence[Tensor] | None = None) -> list[EncoderResult]:
        """Return the outcome for each video.

        Args:
            orders: int64 (T N,), raster index of the patch at each place of each video's sequence; None for raster.
        """
        found = []
        for number, video in enumerate(self._videos):
            origin, weight, keep = video.origin, video.weight, video.keep
            if orders is not None:
                order = orders[number].to(origin.device)
                back = torch.empty_like(order)
                back[order] = torch.arange(len(order), device=order.device)
                origin, weight, keep = origin[back], weight[back], order[keep]
            found.append(
                EncoderResult(
                    origin=origin,
                    weight=weight,
                    keep=keep,
                    frames=video.now,
                    frames_in=video.frames,
                    counts=dict(video.counts),
                    segments=video.segments,
                )
            )
        return found


def install_merging(
    hooks: ExitStack,
    method: Any,
    blocks: Sequence[Block],
    running: Callable[[], EncoderMerging | None],
    after: Callable[[EncoderMerge], None] | None = None,
    reorder: Callable[[EncoderMerge], EncoderMerge] | None = None,
) -> None:
    """Put hooks on the blocks in which a method merges; leaving the stack removes them.

    Merged right after attention, tokens go through the MLP merged: its output is spread over the tokens for the sum
    with the residual stream, and both merge together, ``sum w (h + m) = sum w h + m``. A block's output is replaced
    inside the block, since recorders of hidden states hook onto it.

    Args:
        hooks: the stack.
        method: see `compress.stage.InsideEncoder`.
        blocks: of the encoder.
        running: returns the merging of this thread's pass, None where there is none.
        after: called with every merge once it is done.
        reorder: see `EncoderMerging.decide`.
    """
    at_attention = method.merge_point == "attention"

    def put(number: int, block: Block) -> None:
        def before_norm(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            merging = running()
            if merging is None or merging.decide(number, args[0], reorder) is None:
                return None
            return (merging.merge(args[0]), *args[1:])

        def after_mlp(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            merging = running()
            if merging is None or merging.pending is None:
                return None
            spread = output.flatten(0, -2).index_select(0, merging.pending.origin)
            return spread if output.dim() == 2 else spread.view(merging.frames, -1, output.shape[2])

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = original(*args, **kwargs)
                merging = running()
                if merging is None:
                    return output
                if not at_attention:
                    merging.decide(number, output, reorder)
                if merging.pending is None:
                    return output
                merged = merging.merge(output)
                done = merging.commit()
                if after is not None:
                    after(done)
                return merged

            return forward

        if at_attention:
            hooks.callback(block.second_norm.register_forward_pre_hook(before_norm).remove)
            hooks.callback(block.mlp.register_forward_hook(after_mlp).remove)
        replace_method(hooks, block.whole, "forward", make)

    for number in method.merge_blocks(len(blocks)):
        put(number, blocks[number])


def attend_merged(
    merging: EncoderMerging,
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as the kernel does, with keys recorded and, after the first merge, sizes added to the logits.

    Args:
        merging: of this pass.
        kernel: the configured attention function.
        module: the attention module.
        query: (B, heads, n, d), the next B n tokens of the pass.
        key: likewise.
        value: likewise.
        mask: of the kernel.
        options: of the kernel.
    """
    batch, _, count, _ = key.shape
    if merging.records:
        merging.keys.append(key.detach().float().mean(dim=1).flatten(0, 1))
    if merging.weighs and merging.merged:
        sizes = merging.log_size[merging.cursor : merging.cursor + batch * count]
        mask = sizes.view(batch, 1, 1, count).to(query)
    merging.cursor = (merging.cursor + batch * count) % merging.count
    return kernel(module, query, key, value, mask, **options)


def merging_in(method: InsideEncoder | None, depth: int) -> InsideEncoder | None:
    """Return the method, or None if it merges in no block of an encoder."""
    inside: Any = method
    return None if inside is None or not inside.merge_blocks(depth) else method


def check_bias(method: Any, configured: str) -> None:
    """Raise ConfigError if a method adds sizes to the logits of a kernel that takes no such mask."""
    if method.weighs_by_size and configured not in ADDS_BIAS:
        raise ConfigError(
            f"{type(method).__name__} adds token sizes to attention, which the kernel {configured!r} does not take; "
            f"load the model with attn_implementation {' or '.join(ADDS_BIAS)}, or set prop_attn=False"
        )
