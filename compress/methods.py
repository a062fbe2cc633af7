"""Methods by name: what each does, what it needs and where it comes from. Classes are imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from compress.errors import ConfigError

Stage = Literal["plan_frames", "before_encoder", "inside_encoder", "before_llm", "inside_llm", "at_decoding"]

STAGES: Final[tuple[Stage, ...]] = (
    "plan_frames",
    "before_encoder",
    "inside_encoder",
    "before_llm",
    "inside_llm",
    "at_decoding",
)
"""What a method can do, in the order in which a model meets it; see `compress.stage`."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of the registry.

    Attributes:
        name: what users type.
        target: ``module:class``.
        stages: what it implements, see `compress.stage`.
        signals: what it reads besides the tokens.
        source: where it was published.
        summary: one line.
        budget: how exactly the retention is met.
        query_agnostic: whether it never looks at the question, so that what it keeps serves later questions too.
        licence: of the authors' code, or why none was used.
        combines: what it works together with in a `Pipeline`.
        neutral: fields, as text, that must be set for the method to change nothing at retention 1; none where its
            retention alone decides.
    """

    name: str
    target: str
    stages: tuple[Stage, ...]
    signals: tuple[str, ...]
    source: str
    summary: str
    budget: str = "exact"
    query_agnostic: bool = True
    licence: str = "no code published"
    combines: str = "rpm before, a method inside the language model after"
    neutral: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> type[Any]:
        """Import the method's class."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(module), name)
        return loaded


_METOM: Final = "MeToM (CVPR 2026)"
_INFOMERGE: Final = "InfoMerge (arXiv 2606.02161)"
_NAIVE: Final = "for comparison"
_OWN: Final = "ours"
_BEFORE: Final = "any method before the encoder or the language model, dycoke-decoding"

METHODS: Final[Mapping[str, Method]] = {
    method.name: method
    for method in (
        Method(
            name="metom",
            target="compress.metom:MeToM",
            stages=("plan_frames", "before_encoder", "before_llm", "inside_llm"),
            signals=("density", "packet_size", "attention"),
            source=_METOM,
            summary="RPM before the encoder, BTM before and MATM inside the language model",
            budget="exact; upper bound without refill",
            query_agnostic=False,
            combines="nothing: it has every stage",
            neutral={"target_keep": "1", "tau_tem": "1", "merge_percent": "0"},
        ),
        Method(
            name="rpm",
            target="compress.metom:RPM",
            stages=("before_encoder",),
            signals=("density",),
            source=_METOM,
            summary="merge connected patches of low residual density",
            budget="nearest count that a threshold gives",
            combines="any method before the language model, matm",
        ),
        Method(
            name="btm",
            target="compress.metom:BTM",
            stages=("plan_frames", "before_llm"),
            signals=("density", "packet_size"),
            source=_METOM,
            summary="budget by packet size, pairs across frames, folding within frames",
            budget="exact; upper bound without refill",
            neutral={"tau_tem": "1"},
        ),
        Method(
            name="matm",
            target="compress.metom:MATM",
            stages=("inside_llm",),
            signals=("attention",),
            source=_METOM,
            summary="merge what the prompt attends to least, between two decoder layers",
            query_agnostic=False,
            combines="any method before the encoder or the language model",
        ),
        Method(
            name="infomerge",
            target="compress.infomerge:InfoMerge",
            stages=("before_llm",),
            signals=("saliency", "frame_features"),
            source=_INFOMERGE,
            summary="salient tokens without static repeats, context tokens where a segment informs most",
        ),
        Method(
            name="cover",
            target="compress.cover:Cover",
            stages=("plan_frames", "before_llm"),
            signals=("packet_size",),
            source="this project",
            summary="tokens that those kept stand in for least, over content, time and place",
            licence=_OWN,
        ),
        Method(
            name="random",
            target="compress.baselines:RandomTokens",
            stages=("before_llm",),
            signals=(),
            source=_NAIVE,
            summary="random tokens",
            licence=_OWN,
        ),
        Method(
            name="stride",
            target="compress.baselines:UniformStride",
            stages=("before_llm",),
            signals=(),
            source=_NAIVE,
            summary="tokens at equal distances",
            licence=_OWN,
        ),
        Method(
            name="pool",
            target="compress.baselines:AveragePooling",
            stages=("plan_frames", "before_llm"),
            signals=("packet_size",),
            source=_NAIVE,
            summary="means of neighbouring tokens, over space or time",
            licence=_OWN,
        ),
        Method(
            name="frames",
            target="compress.baselines:FewerFrames",
            stages=("before_llm",),
            signals=(),
            source=_NAIVE,
            summary="fewer frames, all of their tokens",
            licence=_OWN,
        ),
        Method(
            name="smaller",
            target="compress.baselines:SmallerFrames",
            stages=("plan_frames", "before_llm"),
            signals=("packet_size",),
            source=_NAIVE,
            summary="smaller frames, resized by area",
            licence=_OWN,
        ),
        Method(
            name="evs",
            target="compress.baselines:EVS",
            stages=("before_llm",),
            signals=(),
            source="EVS (arXiv 2510.14624)",
            summary="tokens that differ from the frame before",
            licence="Apache-2.0 (vLLM)",
        ),
        Method(
            name="dycoke",
            target="compress.baselines:DyCoke",
            stages=("before_llm",),
            signals=(),
            source="DyCoke, stage 1 (CVPR 2025)",
            summary="of every window one frame whole, of the others what differs",
            licence="Apache-2.0",
        ),
        Method(
            name="vidcom2",
            target="compress.baselines:VidCom2",
            stages=("plan_frames", "before_llm"),
            signals=("packet_size",),
            source="VidCom2 (EMNLP 2025)",
            summary="tokens unlike their frame and their video",
            licence="Apache-2.0",
        ),
        Method(
            name="divprune",
            target="compress.baselines:DivPrune",
            stages=("before_llm",),
            signals=(),
            source="DivPrune (CVPR 2025)",
            summary="the most diverse tokens",
            licence="CC BY-NC 4.0, not read: from the paper",
        ),
        Method(
            name="fastvid",
            target="compress.baselines:FastVID",
            stages=("plan_frames", "before_llm"),
            signals=("saliency", "frame_features", "packet_size"),
            source="FastVID (NeurIPS 2025)",
            summary="salient tokens of frames, density peaks of segments",
            licence="MIT",
        ),
        Method(
            name="holitom",
            target="compress.baselines:HoliTom",
            stages=("before_llm",),
            signals=("saliency",),
            source="HoliTom, outer (NeurIPS 2025)",
            summary="static positions averaged over windows, the rest by attention",
            licence="Apache-2.0",
        ),
        Method(
            name="visionzip",
            target="compress.baselines:VisionZip",
            stages=("plan_frames", "before_llm"),
            signals=("saliency", "keys", "packet_size"),
            source="VisionZip (CVPR 2025)",
            summary="dominant tokens by attention, the rest merged into contextual ones",
            licence="Apache-2.0",
        ),
        Method(
            name="tome",
            target="compress.baselines:ToMe",
            stages=("inside_encoder",),
            signals=("keys",),
            source="ToMe (ICLR 2023)",
            summary="inside the encoder: patches of every frame merge in every block",
            budget="exact, in patches; down to half in every block",
            licence="CC BY-NC 4.0, not read: from the paper",
            combines="any method before the language model, matm",
        ),
        Method(
            name="earlytom",
            target="compress.baselines:EarlyTom",
            stages=("inside_encoder", "before_llm"),
            signals=("saliency",),
            source="EarlyTom (CVPR 2026)",
            summary="similar frames folded inside the encoder, attended tokens of what is left",
            licence="Apache-2.0",
            combines="matm after",
        ),
        Method(
            name="prunevid",
            target="compress.baselines:PruneVid",
            stages=("before_llm",),
            signals=(),
            source="PruneVid, outer (ACL Findings 2025)",
            summary="static positions averaged over segments, clusters of static and moving tokens",
            licence="CC BY-NC-SA 4.0, not read: from descriptions",
        ),
        Method(
            name="unified-sttc",
            target="compress.baselines:UnifiedSTTC",
            stages=("before_llm",),
            signals=("saliency",),
            source="Unified STTC (CVPR 2026), from summaries, unverified",
            summary="one pool of attended tokens unlike each other, clusters of the rest",
        ),
        Method(
            name="tome-video",
            target="compress.baselines:ToMeVideo",
            stages=("before_llm",),
            signals=(),
            source="ToMe as Video-LLM papers use it (after STTM, ICCV 2025)",
            summary="rounds of bipartite matching over the tokens of all frames",
            licence="none given, not read: from descriptions",
        ),
        Method(
            name="sttm",
            target="compress.baselines:STTM",
            stages=("before_llm",),
            signals=(),
            source="STTM (ICCV 2025)",
            summary="quadtrees over frames, similar nodes of adjacent frames joined",
            licence="none given, not read: from descriptions",
        ),
        Method(
            name="flashvid",
            target="compress.baselines:FlashVID",
            stages=("plan_frames", "before_llm"),
            signals=("saliency", "packet_size"),
            source="FlashVID (ICLR 2026)",
            summary="attended, diverse tokens, and trees of what repeats over time",
            licence="MIT",
            combines="rpm before, a method inside the language model after",
        ),
        Method(
            name="flashvid-inner",
            target="compress.baselines:FlashVIDInner",
            stages=("inside_llm",),
            signals=("attention",),
            source="FlashVID (ICLR 2026)",
            summary="visual tokens that the last prompt token attends to",
            budget="exact, rounded up",
            query_agnostic=False,
            licence="MIT",
            combines=_BEFORE,
        ),
        Method(
            name="fastv",
            target="compress.baselines:FastV",
            stages=("inside_llm",),
            signals=("attention",),
            source="FastV (ECCV 2024)",
            summary="after two layers, visual tokens that are attended to",
            query_agnostic=False,
            licence="none given: from the paper",
            combines=_BEFORE,
        ),
        Method(
            name="pyramiddrop",
            target="compress.baselines:PyramidDrop",
            stages=("inside_llm",),
            signals=("attention",),
            source="PyramidDrop (CVPR 2025)",
            summary="fewer visual tokens at each of three layers, by the last prompt token's attention",
            query_agnostic=False,
            licence="MIT",
            combines=_BEFORE,
        ),
        Method(
            name="holitom-inner",
            target="compress.baselines:HoliTomInner",
            stages=("inside_llm",),
            signals=("attention",),
            source="HoliTom, inner (NeurIPS 2025)",
            summary="what the last prompt token attends to least joins what it resembles",
            query_agnostic=False,
            licence="Apache-2.0",
            combines=_BEFORE,
        ),
        Method(
            name="tome-video-inner",
            target="compress.baselines:ToMeVideoInner",
            stages=("inside_llm",),
            signals=(),
            source="ToMe as Video-LLM papers use it (after STTM, ICCV 2025)",
            summary="rounds of bipartite matching over the visual tokens of a prompt",
            licence="none given, not read: from descriptions",
            combines=_BEFORE,
        ),
        Method(
            name="sttm-inner",
            target="compress.baselines:STTMInner",
            stages=("inside_llm",),
            signals=(),
            source="STTM (ICCV 2025)",
            summary="quadtrees over frames, similar nodes of adjacent frames joined",
            licence="none given, not read: from descriptions",
            combines="methods before or inside the encoder",
        ),
        Method(
            name="prunevid-inner",
            target="compress.baselines:PruneVidInner",
            stages=("inside_llm",),
            signals=("attention",),
            source="PruneVid, inner (ACL Findings 2025)",
            summary="static and moving tokens that the question attends to, in all caches",
            query_agnostic=False,
            licence="CC BY-NC-SA 4.0, not read: from descriptions",
            combines="prunevid or any method before, dycoke-decoding",
        ),
        Method(
            name="unified-sttc-inner",
            target="compress.baselines:UnifiedSTTCInner",
            stages=("inside_llm",),
            signals=("attention",),
            source="Unified STTC, inner (CVPR 2026), from summaries, unverified",
            summary="what text neither attends to nor resembles joins what it resembles",
            query_agnostic=False,
            combines=_BEFORE,
        ),
        Method(
            name="d2pruner",
            target="compress.baselines:D2Pruner",
            stages=("inside_llm",),
            signals=("attention",),
            source="D2Pruner (AAAI 2026), from summaries, unverified",
            summary="attention without its bias of position, then tokens that differ",
            query_agnostic=False,
            licence="not retrievable: from summaries",
            combines=_BEFORE,
        ),
        Method(
            name="dycoke-decoding",
            target="compress.baselines:DyCokeDecoding",
            stages=("at_decoding",),
            signals=("attention",),
            source="DyCoke, stage 2 (CVPR 2025)",
            summary="decoding steps read only the visual tokens that the newest token attends to",
            budget="exact; of what a decoding step reads",
            query_agnostic=False,
            licence="Apache-2.0",
            combines="any other stage; cuts inside the language model before its layer",
        ),
    )
}


def find(name: str) -> Method:
    """Return the entry of this name.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def build(name: str, *, retention: float | None = None, settings: Mapping[str, str] | None = None) -> Any:
    """Build a method by name, with fields from text.

    Args:
        name: a key of `METHODS`.
        retention: retained fraction; RPM takes it as ``target_keep``, FlashVID's inner cut as ``R``, MATM merges the
            rest. None for the default.
        settings: fields as text, ``{"tau_tem": "0.8"}``, see `compress.settings.configure`.

    Raises:
        ConfigError: the method or a field does not exist, or a value is not allowed.
    """
    from compress.settings import configure

    method = find(name).load()
    if retention is None:
        built = method()
    elif name == "rpm":
        built = method(target_keep=retention)
    elif name == "flashvid-inner":
        built = method(R=retention)
    elif name == "matm":
        from compress.budget import check_retention

        check_retention(retention)
        built = method(merge_percent=100 * (1 - retention))
    else:
        built = method(retention=retention)
    return configure(built, settings or {})


def retained_fraction(method: Any) -> float:
    """Return the share of the tokens that a method is to keep: its retention, or what its only stage keeps.

    1 for RPM with a threshold, which decides by itself.
    """
    if hasattr(method, "share"):
        return float(method.share)
    if hasattr(method, "retention"):
        return float(method.retention)
    if hasattr(method, "merge_percent"):
        return 1 - float(method.merge_percent) / 100
    if hasattr(method, "R"):
        return float(method.R)
    return float(method.nominal_keep)
