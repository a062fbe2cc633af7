"""Chat model of lmms-eval that answers over shortened tokens; it receives video files, so that the codec is read."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms

import codecmeta
from compress.errors import CompressError, ConfigError, SignalError
from compress.methods import build
from compress.models.inputs.prompt import prepare
from compress.models.opening import open_model

LOG = logging.getLogger(__name__)

DEFAULT_NEW_TOKENS = 128
PICTURES = (".jpg", ".jpeg", ".png")


class CompressedModel(lmms):  # type: ignore[misc]
    """LLaVA-OneVision, LLaVA-Video or Qwen2-VL with any method.

    Fields of the method go among the model's arguments, lists with a plus: ``tau_tem=0.85,layers=13+14+15``. A sample
    that fails is counted and named, the others are answered, and then the run stops with an error: an answer that was
    never given must not be scored as a wrong one.

    Attributes:
        failures: ``task/doc: reason`` of each sample that failed.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "",
        *,
        method: str = "metom",
        retention: float | None = None,
        frames: int = 32,
        device: str = "cuda",
        batch_size: int | str = 1,
        random_weights: str | None = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        if int(batch_size) != 1:
            raise ConfigError(f"batch_size is {batch_size}; the published protocol, and this model, take 1")
        self._model, self._tokenizer = open_model(
            checkpoint=pretrained or None, random_config=random_weights, device=str(device)
        )
        settings = {name: str(value).replace("+", ",") for name, value in fields.items()}
        share = None if retention is None else float(retention)
        self._compressor = build(method, retention=share, settings=settings)
        self._frames = int(frames)
        self._device = torch.device(device)
        self.failures: list[str] = []

    @property
    def model(self) -> Any:
        """The model."""
        return self._model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self._device

    @property
    def rank(self) -> int:
        """One process."""
        return 0

    @property
    def world_size(self) -> int:
        """One process."""
        return 1

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer every request, in order.

        Raises:
            CompressError: samples failed; says how many and which.
        """
        results = []
        self.failures = []
        for request in requests:
            _, doc_to_messages, options, doc_id, task, split = request.args
            try:
                messages = doc_to_messages(self.task_dict[task][split][doc_id])
                results.append(self._answer(messages, options))
            except (CompressError, codecmeta.CodecMetaError, OSError, RuntimeError) as error:
                self.failures.append(f"{task}/{doc_id}: {error}")
                LOG.error("sample %s of %s failed: %s", doc_id, task, error)
        if self.failures:
            shown = "; ".join(self.failures[:5])
            raise CompressError(f"{len(self.failures)} of {len(requests)} samples failed, so none are scored: {shown}")
        return results

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Refuse: lmms-eval would pass whole conversations, which do not fit a shortened cache."""
        raise NotImplementedError("conversations are not supported here; use session.chat() (see docs/models.md)")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refuse: use a task that generates, for example mlvu_dev in place of a *_mcppl task."""
        raise NotImplementedError("likelihoods are not supported; choose a task that generates answers")

    @torch.inference_mode()
    def _answer(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> GenerationResult:
        videos, texts = [], []
        for message in messages:
            content = message["content"]
            for item in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if item["type"] == "text":
                    texts.append(item["text"])
                elif item["type"] == "video":
                    videos.append(item["url"])
                else:
                    raise SignalError(f"the sample holds a {item['type']}; only one video and text are supported")
        if len(videos) != 1:
            raise SignalError(f"the sample holds {len(videos)} videos; exactly one is supported")
        meta = self._read(videos[0])
        inputs = prepare(self._model, meta, "\n".join(texts).strip(), tokenizer=self._tokenizer)
        warm = float(options.get("temperature") or 0)
        sampling = {"do_sample": True, "temperature": warm} if warm > 0 else {"do_sample": False}
        with self._compressor.attach(self._model, meta) as session:
            output = self._model.generate(
                **inputs,
                **sampling,
                max_new_tokens=int(options.get("max_new_tokens") or DEFAULT_NEW_TOKENS),
                num_beams=int(options.get("num_beams") or 1),
            )
            (result,) = session.results
        length = inputs["input_ids"].shape[1]
        answer = output[0, length:].tolist()
        text = self._tokenizer.decode(answer, skip_special_tokens=True)
        for stop in options.get("until") or ():
            text = text.split(stop)[0] if stop else text
        counts = TokenCounts(
            input_tokens=length - result.tokens_in + result.tokens_out,
            output_tokens=len(answer),
        )
        return GenerationResult(text=text.strip(), token_counts=counts)

    def _read(self, video: str | os.PathLike[str]) -> codecmeta.VideoMeta:
        """Read metadata of a file, or of a folder of frames, which is encoded first."""
        frames = f"uniform:{self._frames}"
        if not Path(video).is_dir():
            return codecmeta.extract(video, frames=frames)
        with tempfile.TemporaryDirectory() as folder:
            encoded = Path(folder, f"{Path(video).name}.mp4")
            encode_folder(video, encoded)
            return codecmeta.extract(encoded, frames=frames)


def encode_folder(folder: str | os.PathLike[str], target: Path) -> None:
    """Encode the pictures of a folder, in order of their names, as H.264 at one frame per second.

    Raises:
        SignalError: it holds no pictures, or they differ in size.
    """
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in PICTURES)
    pictures: list[Any] = [cv2.imread(str(path)) for path in paths]
    sizes = {None if picture is None else picture.shape for picture in pictures}
    if len(sizes) != 1 or None in sizes:
        raise SignalError(f"{folder} must hold readable pictures ({', '.join(PICTURES)}) of one size")
    height, width = (side - side % 2 for side in pictures[0].shape[:2])
    with av.open(str(target), "w") as container:
        stream: Any = container.add_stream("libx264", rate=1, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
