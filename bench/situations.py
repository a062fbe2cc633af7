"""Situations that users of token compressors reported, on every backbone: exact, or refused with the reason.

    python -m bench.situations                   # prints the table of docs/models.md
    python -m bench.situations threads beams     # only these

Each situation compares a compressed run with another that must say the same: the prompt in one go, the row by itself,
the same call without the situation, or the plain model where every token is kept. Models are tiny and random, with
sharpened attention, on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Final

import torch

from bench import model_situations as models
from bench import prompt_situations as prompts
from bench.comparison import Outcome
from compress.errors import CompressError
from tests.compress.models.material import BACKBONES

SITUATIONS: Final[Mapping[str, tuple[str, Callable[[str], Outcome]]]] = {
    "batch": ("rows of different length", prompts.batch),
    "beams": ("beams, two videos", prompts.beams),
    "samples": ("`num_return_sequences`, two videos", prompts.samples),
    "videos": ("several videos in a prompt", prompts.several_videos),
    "images": ("images next to videos, all stages", prompts.images_beside),
    "images_alone": ("images without a video (a warning says that nothing merged)", prompts.images_alone),
    "text_turn": ("a further question", prompts.text_turn),
    "video_after_text": ("a video after cached text", prompts.video_after_text),
    "second_video": ("a second video in a later turn", prompts.second_video),
    "caches": ("several caches in turn", prompts.several_caches),
    "copied_cache": ("copies of a cache", prompts.copied_cache),
    "guidance": ("classifier-free guidance", prompts.guidance),
    "threads": ("two threads", prompts.threads),
    "chunks": ("`prefill_chunk_size`, no boundary inside the video", prompts.chunked_before),
    "chunk_inside": ("`prefill_chunk_size`, a boundary inside the video", prompts.chunked_inside),
    "no_cache": ("`use_cache=False`", prompts.no_cache),
    "features": ("features encoded inside the block, passed in", prompts.features_passed),
    "foreign_features": (
        "features encoded before the block, a method that reads saliency",
        prompts.features_from_outside,
    ),
    "autocast": ("autocast to bfloat16", models.autocast),
    "default_dtype": ("default dtype bfloat16, float64", models.default_dtype),
    "int8": ("int8 weights (torchao)", models.int8_weights),
    "offload": ("layers on disk (`dispatch_model`)", models.offload),
    "peft": ("LoRA adapters (PEFT)", models.peft_adapters),
    "data_parallel": ("`DataParallel` on one device", models.data_parallel),
    "compiled_layers": ("compiled layers", models.compiled_layers),
    "compiled_whole": ("`torch.compile(model)`", models.compiled_whole),
    "attentions": ("`output_attentions`", models.attentions),
    "logits": ("`logits_to_keep`, a number or columns of text", models.logits_to_keep),
    "logits_merged": ("`logits_to_keep`, a column that was merged", models.logits_of_merged),
    "assisted": ("assisted decoding (prompt lookup)", prompts.assisted),
    "static_cache": ("static cache", models.static_cache),
}
"""Name -> what it is in the table, and the situation."""


def try_situation(name: str, backbone: str) -> Outcome:
    """Run a situation on a backbone; a refusal is an outcome, any other error is raised."""
    try:
        return SITUATIONS[name][1](backbone)
    except CompressError as error:
        return Outcome(exact=None, reason=str(error))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("situations", nargs="*", help=f"of {', '.join(SITUATIONS)}; all by default")
    chosen = parser.parse_args().situations or list(SITUATIONS)
    torch.set_num_threads(1)
    print("| situation | " + " | ".join(name.removesuffix("-tiny") for name in BACKBONES) + " |")
    print("|---" * (len(BACKBONES) + 1) + "|")
    reasons = {}
    for name in chosen:
        cells = []
        for backbone in BACKBONES:
            try:
                outcome = try_situation(name, backbone)
            except ImportError as error:
                outcome = Outcome(exact=None, reason=f"not tried here: {error}")
            cells.append(str(outcome))
            if outcome.exact is None:
                reasons[SITUATIONS[name][0]] = outcome.reason
        print(f"| {SITUATIONS[name][0]} | " + " | ".join(cells) + " |", flush=True)
    print()
    for situation, reason in reasons.items():
        print(f"- {situation}: {' '.join(reason.split())}")


if __name__ == "__main__":
    main()
