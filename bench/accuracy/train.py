"""Training of a tower, and of a decoder that sees thinned clips besides whole ones, in resumable stages.

    python -m bench.accuracy.train corpus   --folder work                    rendered clips and crowded frames
    python -m bench.accuracy.train tower    --folder work [--device cuda] [--seed 0]
    python -m bench.accuracy.train decoder  --folder work [--device cuda] [--seed 0] [--minutes 8]
    python -m bench.accuracy.train export   --folder work [--seed 0] --out bench/accuracy/weights/thinned
    python -m bench.accuracy.train all      --folder work [--device cuda]    all of them

A stage that is done is not done again; delete its checkpoint, work/seed0/tower.safetensors or decoder.safetensors, to
repeat it. Half an hour on a data-centre GPU; some hours on two CPU cores.

A model that is trained already learns on, from whole prefixes alone, with

    python -m bench.accuracy.train decoder  --folder work --from bench/accuracy/weights/thinned --decoder-batch 16

The decoder of the package, which never saw a clip with fewer than all its tokens, was trained by
`bench.accuracy.train_whole` on this tower.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from bench.accuracy.bank import open_bank
from bench.accuracy.corpus import find_files, read, render
from bench.accuracy.train_decoder import INTRODUCED, Phase, judge_decoder, train_decoder
from bench.accuracy.train_tower import FrameBank, judge_tower, train_tower
from compress.accuracy.clips import digest_world
from compress.accuracy.questions import WORDS
from compress.demo.model import build, load

TOWER_FILES: Final = 60
"""Files of clips whose frames the tower sees."""


def open_model(folder: Path, stage: str | None, *, seed: int, device: str) -> Any:
    """Open the model with random weights, or as a stage left it."""
    torch.manual_seed(seed)
    model = build(WORDS)
    if stage is not None:
        model.load_state_dict(load_file(folder / f"seed{seed}" / f"{stage}.safetensors"), strict=False)
        model.tie_weights()
    return model.to(device).train()


def save(model: Any, file: Path) -> None:
    """All weights, once each, float32."""
    weights = {name: value.detach().float().cpu().contiguous() for name, value in model.named_parameters()}
    part = file.with_suffix(".part")
    save_file(weights, part)
    part.rename(file)


class Log:
    """Lines of JSON in a file, and on the screen."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, line: dict[str, Any]) -> None:
        """Write a line."""
        text = json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()})
        print(text, flush=True)
        with self.file.open("a") as out:
            out.write(text + "\n")


def run_tower(options: argparse.Namespace) -> None:
    folder: Path = options.folder / f"seed{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tower.safetensors").exists():
        return
    device = torch.device(options.device)
    model = open_model(options.folder, None, seed=options.seed, device=options.device)
    torch.set_float32_matmul_precision("high")
    crowded = FrameBank.from_corpus(read(find_files(options.folder, "frames")), device)
    clips = FrameBank.from_corpus(read(find_files(options.folder, "train", most=TOWER_FILES)), device)
    judged = FrameBank.from_corpus(read(find_files(options.folder, "val")), device)
    log = Log(folder / "tower.jsonl")
    train_tower(
        model,
        crowded,
        clips,
        steps=options.tower_steps,
        batch=options.tower_batch,
        seed=options.seed,
        learning_rate=options.tower_rate,
        limit=60 * options.minutes,
        log=log,
        keep=lambda: save(model, folder / "tower.partial"),
    )
    log({"val": judge_tower(model, judged)})
    save(model, folder / "tower.safetensors")


def run_decoder(options: argparse.Namespace) -> None:
    folder: Path = options.folder / f"seed{options.seed}"
    if (folder / "decoder.safetensors").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    start: Path | None = options.start
    if start is None:
        model = open_model(options.folder, "tower", seed=options.seed, device=options.device)
    else:
        model = load(start, device=options.device)[0].train()
        before = json.loads((start / "training.json").read_text())
        (folder / "before.json").write_text(json.dumps(before))
    bank = open_bank(options.folder, "train", model, folder)
    judged = open_bank(options.folder, "val", model, folder)
    log = Log(folder / "decoder.jsonl")
    scale = options.decoder_scale
    whole = Phase(tokens=bank.visual, batch=options.decoder_batch, steps=round(5000 * scale), share=0.55)
    phases = [
        Phase(tokens=96, batch=128, steps=round(5000 * scale), share=0.3),
        Phase(tokens=256, batch=96, steps=round(2500 * scale), share=0.15),
        whole,
    ]
    if start is not None:
        kept = round(bank.visual * (1 - options.drop))
        phases = [replace(whole, tokens=kept, favour=0.0, share=1.0, questions=16)]
    train_decoder(model, bank, judged, phases, seed=options.seed, learning_rate=options.decoder_rate,
                  patience=options.patience, learnt=start is not None,
                  groups=[group.split(",") for group in options.families], report=options.report, log=log,
                  keep=lambda: save(model, folder / "decoder.partial"), limit=60 * options.minutes)  # fmt: skip
    log({"final": judge_decoder(model, judged)})
    save(model, folder / "decoder.safetensors")


def run_export(options: argparse.Namespace) -> None:
    """fp16 weights with everything that `compress.demo.load` reads, and how they came to be."""
    model = open_model(options.folder, "decoder", seed=options.seed, device="cpu").eval()
    options.out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(options.out)
    (options.out / "vocab.json").write_text(json.dumps(WORDS) + "\n")
    folder = options.folder / f"seed{options.seed}"
    record = {
        "seed": options.seed,
        "torch": torch.__version__,
        "world": digest_world(),
        "weights_sha256": hashlib.sha256((options.out / "model.safetensors").read_bytes()).hexdigest(),
        "tower": _read_lines(folder / "tower.jsonl"),
        "decoder": _read_lines(folder / "decoder.jsonl"),
    }
    if (folder / "before.json").exists():
        before = json.loads((folder / "before.json").read_text())
        record |= {"tower": before.pop("tower"), "before": before}
    (options.out / "training.json").write_text(json.dumps(record, indent=0) + "\n")


def _read_lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["corpus", "tower", "decoder", "export", "all"])
    parser.add_argument("--folder", type=Path, required=True, help="corpus and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("bench/accuracy/weights/thinned"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=int, default=16000)
    parser.add_argument("--frames", type=int, default=160000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tower-steps", type=int, default=6000)
    parser.add_argument("--tower-batch", type=int, default=768)
    parser.add_argument("--tower-rate", type=float, default=1.5e-3)
    parser.add_argument("--decoder-rate", type=float, default=1e-3)
    parser.add_argument("--decoder-scale", type=float, default=1.0, help="steps of all phases, as a share")
    parser.add_argument("--decoder-batch", type=int, default=64, help="clips per step with whole prefixes")
    parser.add_argument(
        "--from", dest="start", type=Path, help="decoder: begin with the model of this folder, not with the tower's"
    )
    parser.add_argument(
        "--drop", type=float, default=0.0, help="decoder with --from: share of tokens that each prefix lacks, at random"
    )
    parser.add_argument(
        "--families", nargs="+", default=[",".join(group) for group in INTRODUCED], metavar="FAMILY,FAMILY",
        help="decoder: families that are taken up together, one group after the other",
    )  # fmt: skip
    parser.add_argument("--report", type=int, default=200, help="decoder: steps between lines of the log")
    parser.add_argument("--patience", type=int, default=1200)
    parser.add_argument("--minutes", type=float, default=600.0, help="longest time of the stage")
    options = parser.parse_args()
    if options.stage in ("corpus", "all"):
        render(options.folder, clips={"train": options.clips, "val": 500}, frames=options.frames,
               workers=options.workers)  # fmt: skip
    if options.stage in ("tower", "all"):
        run_tower(options)
    if options.stage in ("decoder", "all"):
        run_decoder(options)
    if options.stage in ("export", "all"):
        run_export(options)


if __name__ == "__main__":
    main()
