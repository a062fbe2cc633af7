"""All questions about a clip, answered over one shortened prompt.

A question follows the video, so that before the language model no visual token depends on it: the video's part
of the prompt is read once, and the questions follow it in parallel, each seeing that part and itself, at the
positions that it would have as the only one (see `packing`). A method that merges inside the language model by the
question's attention needs the whole prompt of every question; these form one batch, padded on the left (see `sharing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codecmeta import VideoMeta
from compress.accuracy.packing import Prefix, first_layer_inputs, group_by_length, join, pack
from compress.accuracy.questions import Question
from compress.accuracy.sharing import shared_video
from compress.accuracy.tower import TowerMemory, TowerOutput, plain_model, with_memory
from compress.density import MapChoice
from compress.flops import LanguageModel, VisionTower
from compress.models.adapters.adapter import Adapter, adapt
from compress.models.inputs.prompt import Tokenizer, take_clip
from compress.models.session.session import Session
from compress.profiling.timing import StageTimer
from compress.stage import InsideLLM


@dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
    """Questions about a clip as a model takes them.

    Attributes:
        video: ids up to the end of the video's placeholders.
        texts: ids that follow, per question, the last one being that before the answer.
        options: ids of the words among which the answer is, per question.
        answers: id of the right one, per question.
        families: of the questions.
    """

    video: tuple[int, ...]
    texts: tuple[tuple[int, ...], ...]
    options: tuple[tuple[int, ...], ...]
    answers: tuple[int, ...]
    families: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Account:
    """Account of a clip's visual tokens.

    Attributes:
        tokens_in: of the prompt.
        tokens_out: those that entered the language model.
        tokens_inner: those after the merge inside it, mean over the questions; as tokens_out without one.
        patches: share of the patches that the tower saw.
        macs: multiply-accumulates of the prefill over visual tokens (InfoMerge, eqs. 13-16).
        tower_macs: of the tower over the patches that it saw.
        seconds: of planning and merging before the language model.
    """

    tokens_in: int
    tokens_out: int
    tokens_inner: float
    patches: float
    macs: float
    tower_macs: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """A video that a compressor has shortened.

    Attributes:
        account: of its tokens.
        prefix: what questions follow; None where the method looks at each question.
        answers: float32 (questions, words), logits of such a method; empty otherwise.
    """

    account: Account
    prefix: Prefix | None = None
    answers: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))


class Examinee:
    """A model that is asked about clips.

    Attributes:
        model: a supported model with one video per prompt.
        tokenizer: its own.
        adapter: what knows the model.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.adapter: Adapter = adapt(model)
        self._weight = next(model.parameters())
        self._ids: dict[str, int] = {}

    def write_sheet(self, meta: VideoMeta, questions: Sequence[Question]) -> Sheet:
        """Write questions as ids, in the model's own prompt (as `compress.models.inputs.prompt.prepare`).

        Raises:
            ValueError: a word among which the answer is chosen is not one id.
        """
        clip = take_clip(meta)
        (run,) = self.adapter.encode_pixels(clip).runs
        before: list[int] = []
        texts = []
        for question in questions:
            pieces = self.adapter.write_prompt(question.text, clip)
            split = pieces.index(None)
            before = self._encode(pieces[:split])
            texts.append(tuple(self._encode(pieces[split + 1 :])))
        return Sheet(
            video=(*before, *[self.adapter.config.video_token_id] * run),
            texts=tuple(texts),
            options=tuple(tuple(map(self._word, question.options)) for question in questions),
            answers=tuple(self._word(question.answer) for question in questions),
            families=tuple(question.family for question in questions),
        )

    @torch.inference_mode()
    def look(self, meta: VideoMeta) -> TowerMemory:
        """Prepare the clip's pixels for the tower."""
        pixels = self.adapter.encode_pixels(take_clip(meta)).tensors["pixel_values_videos"]
        return TowerMemory(self.adapter, pixels.to(self._weight.device, self._weight.dtype))

    @torch.inference_mode()
    def answer_plain(
        self,
        sheet: Sheet,
        memory: TowerMemory,
        *,
        alter: Callable[[TowerOutput], TowerOutput] | None = None,
        blind: bool = False,
    ) -> NDArray[np.float32]:
        """Compute logits of the answers without a compressor.

        Args:
            sheet: the questions.
            memory: of the clip.
            alter: what to do to the visual tokens first.
            blind: hide them from the newline after them and from the questions.

        Returns:
            float32 (questions, words).
        """
        hidden = [token == self.adapter.config.video_token_id for token in sheet.video]
        hidden[len(sheet.video) - 1 - hidden[::-1].index(True)] = False  # the newline, which is a placeholder too
        prefix = self._read_prefix(sheet, memory, plain_model(self.adapter, memory, alter), hidden if blind else None)
        return self._ask_one(sheet, prefix)

    @torch.inference_mode()
    def answer_compressed(
        self, sheet: Sheet, memory: TowerMemory, meta: VideoMeta, compressor: Any, *, map: MapChoice = "auto"
    ) -> tuple[NDArray[np.float32], Account]:
        """Compute logits of the answers over tokens that a compressor has shortened, through ``compressor.attach``.

        Args:
            sheet: the questions.
            memory: of the clip.
            meta: its metadata.
            compressor: a method or pipeline.
            map: where the density of patches comes from.

        Returns:
            float32 (questions, words), and the account of the tokens.
        """
        read = self.read(sheet, memory, meta, compressor, map=map)
        if read.prefix is not None:
            return self._ask_one(sheet, read.prefix), read.account
        return read.answers, read.account

    @torch.inference_mode()
    def read(
        self, sheet: Sheet, memory: TowerMemory, meta: VideoMeta, compressor: Any, *, map: MapChoice = "auto"
    ) -> Read:
        """Shorten the video and prefill it; arguments as of `answer_compressed`."""
        session = with_memory(compressor.attach(self.model, meta, map=map), memory)
        timer = StageTimer(self._weight.device)
        session.timer = timer.stage
        found: dict[str, Any]
        if isinstance(compressor, InsideLLM):
            found = {"answers": self._answer_prompts(sheet, memory, session)}
        else:
            found = {"prefix": self._read_prefix(sheet, memory, session, None)}
        return Read(account=self._settle(session, timer.read(), frames=memory.frames), **found)

    @torch.inference_mode()
    def ask(self, sheet: Sheet, prefixes: Sequence[Prefix]) -> NDArray[np.float32]:
        """Ask all questions after several versions of one video; float32 (B, questions, words)."""
        packed = pack(sheet.texts, device=self._weight.device)
        words = self.model.get_input_embeddings()(packed.ids)
        rows: dict[int, NDArray[np.float32]] = {}
        for group in group_by_length(prefixes):
            embeddings, positions, mask = join([prefixes[number] for number in group], packed, words)
            hidden = self.adapter.language_model(
                inputs_embeds=embeddings, position_ids=positions, attention_mask=mask, use_cache=False
            ).last_hidden_state
            answers = hidden[:, packed.last + embeddings.shape[1] - len(words)]
            rows |= zip(group, self.model.lm_head(answers).float().cpu().numpy(), strict=True)
        return np.stack([rows[number] for number in range(len(prefixes))])

    def _ask_one(self, sheet: Sheet, prefix: Prefix) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.ask(sheet, [prefix])[0]
        return logits

    def _read_prefix(
        self,
        sheet: Sheet,
        memory: TowerMemory,
        attached: AbstractContextManager[Session | None],
        hidden: Sequence[bool] | None,
    ) -> Prefix:
        """Read the video's part of the prompt with hooks in place; after it nothing is left to shorten."""
        device = self._weight.device
        video = torch.tensor([sheet.video], device=device)
        with attached as session, first_layer_inputs(self.adapter.layers) as found:
            self.model(input_ids=video, pixel_values_videos=memory.pixels, use_cache=False, logits_to_keep=1)
            compression = session.results[0].before_llm if session is not None else None
        positions = found["positions"][0]
        contiguous = compression is not None and compression.positions == "contiguous"
        return Prefix(
            embeddings=found["embeddings"][0],
            positions=positions,
            start=len(positions) if contiguous else len(sheet.video),
            seen=None if hidden is None else ~torch.tensor(hidden, device=device),
        )

    def _answer_prompts(self, sheet: Sheet, memory: TowerMemory, session: Session) -> NDArray[np.float32]:
        longest = max(map(len, sheet.texts))
        rows = [[0] * (longest - len(text)) + [*sheet.video, *text] for text in sheet.texts]
        device = self._weight.device
        ids = torch.tensor(rows, device=device)
        lengths = torch.tensor([len(text) for text in sheet.texts], device=device)
        position = torch.arange(ids.shape[1], device=device) - (longest - lengths[:, None])
        merge_layer = session.compressor.merge_layer
        with session, shared_video(self.adapter.layers, merge_layer, list(map(len, sheet.texts))):
            output = self.model(
                input_ids=ids,
                attention_mask=(position >= 0).long(),
                position_ids=position.clamp_min(0),
                pixel_values_videos=memory.pixels.expand(len(rows), -1, -1, -1, -1),
                use_cache=False,
                logits_to_keep=1,
            )
        logits: NDArray[np.float32] = output.logits[:, 0].float().cpu().numpy()
        return logits

    def _settle(self, session: Session, seconds: Mapping[str, float], *, frames: int) -> Account:
        result = session.results[0]
        inner = [one.achieved for one in session.inside] or [result.tokens_out]
        size = LanguageModel.of(self.model.config.text_config)
        vision = self.model.config.vision_config
        tower = VisionTower(
            layers=vision.num_hidden_layers, width=vision.hidden_size, mlp_width=vision.intermediate_size
        )
        before, inside = result.before_encoder, result.inside_encoder
        whole = (vision.image_size // vision.patch_size) ** 2
        seen = [whole] * frames if before is None else before.frame_counts.tolist()
        keys = whole if getattr(session.compressor, "reuses_patches", False) else None
        return Account(
            tokens_in=result.tokens_in,
            tokens_out=result.tokens_out,
            tokens_inner=float(np.mean(inner)),
            patches=inside.retention if inside is not None else 1.0 if before is None else before.plan.retention,
            macs=float(size.prefill_layers(session.layer_tokens)),
            tower_macs=float(sum(tower.frame(count, keys) for count in seen))
            if inside is None
            else float(sum(count * tower.layer(size) for count, size in inside.entering_blocks(tower.layers))),
            seconds=seconds.get("compress", 0.0) + seconds.get("rpm", 0.0),
        )

    def _encode(self, pieces: Sequence[str | None]) -> list[int]:
        return [token for piece in pieces if piece for token in self.tokenizer.encode(piece, add_special_tokens=False)]

    def _word(self, word: str) -> int:
        if word not in self._ids:
            ids = self.tokenizer.encode(word, add_special_tokens=False)
            if len(ids) != 1:
                raise ValueError(f"the answer {word!r} is {len(ids)} tokens; answers are scored as one")
            self._ids[word] = ids[0]
        return self._ids[word]


def mark(sheet: Sheet, logits: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which questions are answered correctly, bool (questions,): among their options, and among all words."""
    choices = [options[int(np.argmax(row[list(options)]))] for options, row in zip(sheet.options, logits, strict=True)]
    answers = np.array(sheet.answers)
    return np.array(choices) == answers, logits.argmax(axis=1) == answers
