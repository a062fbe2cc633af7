"""Time to the first token and of the vision tower under every method, of a mid-size LLaVA-OneVision on one CPU thread.

    python -m bench.first_token [--retention 0.1] [--methods null,evs,rpm] [--repeats 3]

Random weights, CPU time of this process; models, stages and clip are those of `bench.prefill_cpu`. Every method is
compared with a plain run that comes before it, every sixth run is plain; `null` is a plain run in a method's place.
What a method saves before or inside the encoder depends on the pictures: here they are those of the drawn clip. Results
go to bench/results/first_token.json after every method, in which the rows of other methods and retentions stay.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from bench.prefill_cpu import FRAMES, TTFT, PrefillCase, measure, random_head
from compress.methods import METHODS, build
from compress.models.inputs.prompt import prepare
from compress.models.inputs.random_weights import ByteTokenizer, build_random
from compress.profiling.bench import describe, synthetic_meta

OUT = Path(__file__).resolve().parent / "results" / "first_token.json"
FRESH = 5
"""Methods that one plain run stands for."""
NULL = "null"
"""The plain model in a method's place: what its ratios differ from 1 by is noise."""
NAMES = [NULL] + [name for name, entry in METHODS.items() if entry.stages != ("at_decoding",)]  # an answer is one step


def main() -> None:
    """Measure, write the results and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="llava-onevision-mid")
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--methods", default=",".join(NAMES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = build_random(options.config)
    meta = synthetic_meta(frames=options.frames)
    inputs = prepare(model, meta, "What happens in the video?", tokenizer=ByteTokenizer())
    head = random_head(model)

    @torch.inference_mode()
    def run() -> None:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)

    about = describe([], model=options.config, device="cpu")
    about |= {"ttft": TTFT, "frames": options.frames}
    whole = int((inputs["input_ids"] == model.config.video_token_id).sum())
    rounds: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    plain: dict[str, float] = {}
    rows = json.loads(options.out.read_text(encoding="utf-8"))["rows"] if options.out.exists() else {}
    for turn in range(options.repeats):
        for number, name in enumerate(options.methods.split(",")):
            if number % FRESH == 0:
                plain = measure(model, inputs, meta, PrefillCase(), run)
            if name == NULL:
                case, cell = PrefillCase(), NULL
            else:
                case = PrefillCase(compressor=build(name, retention=options.retention), head=head)
                cell = f"{name}@{options.retention:g}"
            taken = {"tokens": whole} | measure(model, inputs, meta, case, run)
            rounds.setdefault(name, []).append((plain, taken))
            rows[cell] = summarise(rounds[name])
            print(f"{turn + 1}", write_row(cell, rows[cell]), flush=True)
            listed = {key: rows[key] for other in (NULL, *METHODS) for key in rows if key.partition("@")[0] == other}
            options.out.write_text(json.dumps({"about": about, "rows": listed}, indent=1) + "\n", encoding="utf-8")


def summarise(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Return the number of rounds, medians, and medians of the ratios of plain runs to those of the method."""

    def seconds(one: dict[str, float], *stages: str) -> float:
        return sum(one.get(stage, 0.0) for stage in stages)

    def median(*stages: str) -> float:
        return statistics.median(seconds(one, *stages) for _, one in rounds)

    def ratio(*stages: str) -> float:
        return statistics.median(seconds(plain, *stages) / seconds(one, *stages) for plain, one in rounds)

    return {
        "rounds": len(rounds),
        "tokens": median("tokens"),
        "first_token_seconds": median("ttft"),
        "first_token_ratio": ratio("ttft"),
        "tower_seconds": median("tower", "projector"),
        "tower_ratio": ratio("tower", "projector"),
        "prefill_seconds": median("prefill"),
        "compress_seconds": median("compress", "saliency", "rpm"),
    }


def write_row(name: str, row: dict[str, Any]) -> str:
    """Return a row of the table in Markdown."""
    return (
        f"| `{name}` | {row['tokens']:.0f} | {row['first_token_seconds']:.2f} | {row['first_token_ratio']:.2f} | "
        f"{row['tower_seconds']:.2f} | {row['tower_ratio']:.2f} | {row['prefill_seconds']:.2f} |"
    )


if __name__ == "__main__":
    main()
