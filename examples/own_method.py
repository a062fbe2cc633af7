"""A method of your own: a frozen dataclass with one stage. It needs no model, and every model can use it.

python examples/own_method.py video.mp4 --random-weights llava-onevision-tiny
"""

import argparse
from dataclasses import dataclass

import torch

import codecmeta
from compress import Attachable, Compression, MergePlan, Signals, count_tokens, open_model, prepare


@dataclass(frozen=True, kw_only=True)
class Brightest(Attachable):
    """A method that keeps the tokens of largest norm and drops the others."""

    retention: float = 0.3

    def before_llm(self, tokens: torch.Tensor, signals: Signals) -> Compression:
        flat = tokens.flatten(0, 1)
        count = count_tokens(self.retention, len(flat))
        keep = flat.norm(dim=1).sort(descending=True, stable=True).indices[:count].sort().values
        plan = MergePlan.selection(keep, count_in=len(flat))
        return Compression(method="brightest", plan=plan, frames=len(tokens), nominal=count)


parser = argparse.ArgumentParser()
parser.add_argument("video")
weights = parser.add_mutually_exclusive_group(required=True)
weights.add_argument("--model")
weights.add_argument("--random-weights")
options = parser.parse_args()

model, tokenizer = open_model(checkpoint=options.model, random_config=options.random_weights, device="cpu")
meta = codecmeta.extract(options.video, frames="uniform:8")
inputs = prepare(model, meta, "What is bright?", tokenizer=tokenizer)
with Brightest(retention=0.2).attach(model, meta) as session:
    model.generate(**inputs, max_new_tokens=8, do_sample=False)
print(
    f"{session.results[0].tokens_in} -> {session.results[0].tokens_out} tokens, per frame: "
    f"{session.results[0].before_llm.frame_counts.tolist()}"
)
