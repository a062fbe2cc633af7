"""Training of a decoder on whole clips only: no prefix ever lacks a token.

    python -m bench.accuracy.train corpus --folder work --clips 4000 --frames 0
    python -m bench.accuracy.train_whole --corpus work --from WEIGHTS --anew --minutes 60 --out EXPORT
    python -m bench.accuracy.train_whole --corpus work --from EXPORT --minutes 60 --decay 0.3 --out EXPORT

A call goes on from an export (`--from`), or with `--anew` begins with a random decoder on that model's frozen tower,
words pointing to the tower's tokens of what they name. It writes its export every few minutes, so that it can be
ended and taken up at any time; hours, losses and accuracy are summed up in the export's `training.json`.

Clips of fewer frames are whole clips: all tokens of some sampled frames and the questions that these answer. Besides
answers, heads that are thrown away afterwards learn from every visual token what it can know of the clip up to there
(`whole_clips.DENSE`), which teaches time, motion and counting long before an answer depends on them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bench.accuracy.corpus import find_files, read
from bench.accuracy.train_tower import FrameBank
from bench.accuracy.whole_clips import WholeClips, cache_tokens
from bench.accuracy.whole_steps import INTRODUCED, DenseHeads, Progress, Pupil, judge
from bench.accuracy.words import point_words
from compress.accuracy.clips import digest_world
from compress.accuracy.questions import WORDS
from compress.accuracy.scene import SAMPLED
from compress.demo.model import build, load

WORD_FILES: Final = 2
"""Files of clips whose frames determine where words point when a decoder starts from random weights."""
WARM: Final = 30
"""Steps in which the learning rate rises."""
REPORT: Final = 50
EXPORT: Final = 90.0
"""Seconds of processor time between two exports."""


def export(model: Any, heads: DenseHeads, out: Path, record: dict[str, Any]) -> None:
    """fp16 weights with everything that `compress.demo.load` reads, the log, and the heads besides."""
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.half().save_pretrained(out)
    model.float().load_state_dict(kept)
    (out / "vocab.json").write_text(json.dumps(WORDS) + "\n")
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    (out / "training.json").write_text(json.dumps(record | {"weights_sha256": digest}, indent=0) + "\n")
    save_file(dict(heads.state_dict()), out.with_suffix(".heads"))


def run(options: argparse.Namespace) -> None:
    """Train until the time is over."""
    torch.set_num_threads(1)
    model, record = begin(options)
    heads = DenseHeads(model.config.text_config.hidden_size)
    kept = options.start.with_suffix(".heads")
    if kept.exists() and not options.anew:
        heads.load_state_dict(load_file(kept), strict=False)  # a target that was added since then has no weights yet
    folder = options.corpus / "tokens"
    progress = Progress([group.split(",") for group in options.families], record["losses"])
    rng = np.random.default_rng([options.seed, record["steps"]])
    pupil = Pupil(model, heads, WholeClips(options.corpus, "train", folder), progress, rng, dense=options.dense)
    judged = WholeClips(options.corpus, "val", folder)
    sizes = [[tuple(map(int, one.split("x"))) for one in stage.split("+")] for stage in options.frames]
    spent_before, start = record["cpu_hours"], time.process_time()
    exported = looked = taken_up = start
    limit = 60 * options.minutes
    steps = 0
    while (spent := time.process_time() - start) < limit:
        stage = sizes[min(record["size"], len(sizes) - 1)]
        frames, clips = stage[int(rng.integers(len(stage)))]
        ending = min(1.0, (1 - spent / limit) / options.decay) if options.decay else 1.0
        pupil.step(frames, clips, options.rate * min(1.0, (steps + 1) / WARM) * max(ending, 0.02))
        steps += 1
        record["steps"] += 1
        now = time.process_time()
        record |= {"losses": progress.loss, "cpu_hours": round(spent_before + (now - start) / 3600, 6)}
        if steps % 20 == 0:
            pupil.clips.refresh()
            progress.advance()
            if record["size"] + 1 < len(sizes) and (progress.learnt or now - taken_up > 60 * options.patience):
                record["size"], taken_up = record["size"] + 1, now
                progress.begin_again()
        line = {"step": record["steps"], "frames": sorted({one for one, _ in stage}), "clips": len(pupil.clips),
                "cpu_hours": record["cpu_hours"], "asked": progress.active,
                "loss": {name: round(value, 3) for name, value in progress.loss.items()}}  # fmt: skip
        if now - looked > 60 * options.judge:
            looked = now
            line["val"] = {
                str(many): judge(model, heads, judged, options.val, many) for many in sorted({stage[0][0], SAMPLED})
            }
            record["log"].append(line)
        if "val" in line or steps % REPORT == 0:
            print(json.dumps(line), flush=True)
        if now - exported > EXPORT:
            exported = now
            export(model, heads, options.out, record)
    record["log"].append({"step": record["steps"], "cpu_hours": record["cpu_hours"],
                          "val": {str(SAMPLED): judge(model, heads, judged, options.val, SAMPLED)}})  # fmt: skip
    print(json.dumps(record["log"][-1]), flush=True)
    export(model, heads, options.out, record)


def begin(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the model to train and the record of its training so far.

    Raises:
        SystemExit: the export to go on from was not trained on whole clips only.
    """
    model = load(options.start)[0].train()
    before = json.loads((options.start / "training.json").read_text())
    if options.anew:
        frames = FrameBank.from_corpus(read(find_files(options.corpus, "train", most=WORD_FILES)), model.device)
        model = begin_anew(model, frames, seed=options.seed, theta=options.theta)
        record = {"seed": options.seed, "world": digest_world(), "whole_clips_only": True, "steps": 0, "size": 0,
                  "cpu_hours": 0.0, "losses": {}, "log": [], "tower_of": before["weights_sha256"],
                  "tower": before["tower"]}  # fmt: skip
        return model, record
    if not before.get("whole_clips_only"):
        raise SystemExit(f"{options.start} saw prefixes that lack tokens; begin with --anew on its tower")
    return model, before


def begin_anew(model: Any, frames: FrameBank, *, seed: int, theta: float = 1e6) -> Any:
    """Build a model with this one's tower and projector, words computed from these frames, and a random decoder.

    Args:
        model: whose tower is kept.
        frames: with their targets.
        seed: of the decoder's weights.
        theta: base of its rotary positions.
    """
    torch.manual_seed(seed)
    fresh = build(WORDS, theta=theta).to(model.device)
    fresh.model.vision_tower.load_state_dict(model.model.vision_tower.state_dict())
    fresh.model.multi_modal_projector.load_state_dict(model.model.multi_modal_projector.state_dict())
    point_words(fresh, frames)
    return fresh.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="of `train corpus`, with tokens/ of `cache_tokens`")
    parser.add_argument("--from", dest="start", type=Path, required=True)
    parser.add_argument("--anew", action="store_true", help="keep only the tower of --from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--theta", type=float, default=1e6, help="with --anew: base of the rotary positions")
    parser.add_argument(
        "--frames",
        nargs="+",
        default=["4x16", "4x16+8x8", "8x8+16x6", "16x6"],
        metavar="FRAMESxCLIPS[+...]",
        help="of a step, one of these at random; the next stage once all families are learnt, or after --patience",
    )
    parser.add_argument("--patience", type=float, default=25.0, help="minutes of processor time")
    parser.add_argument("--families", nargs="+", default=[",".join(group) for group in INTRODUCED])
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.0, help="share of the time at whose end the rate falls to 0")
    parser.add_argument("--dense", type=float, default=0.5, help="weight of the tokens' targets")
    parser.add_argument("--minutes", type=float, required=True, help="of processor time")
    parser.add_argument("--judge", type=float, default=5.0, help="minutes between two looks at validation clips")
    parser.add_argument("--cache", type=int, default=None, help="files of the corpus whose tokens are made, at most")
    parser.add_argument("--val", type=int, default=100, help="validation clips")
    options = parser.parse_args()
    for split in ("val", "train"):
        cache_tokens(options.corpus, split, load(options.start)[0], options.corpus / "tokens", most=options.cache)
    run(options)


if __name__ == "__main__":
    main()
