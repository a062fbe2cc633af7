"""Two videos with two questions in one batch; each row has its own metadata and its own budgets.

python examples/batch.py a.mp4 b.mp4 --model llava-hf/llava-onevision-qwen2-7b-ov-hf
"""

import argparse

import codecmeta
from compress import BTM, open_model, pad_batch, prepare

parser = argparse.ArgumentParser()
parser.add_argument("videos", nargs=2)
weights = parser.add_mutually_exclusive_group(required=True)
weights.add_argument("--model")
weights.add_argument("--random-weights")
options = parser.parse_args()

model, tokenizer = open_model(checkpoint=options.model, random_config=options.random_weights, device="cpu")
metas = [codecmeta.extract(video, frames="uniform:8") for video in options.videos]
questions = ["What is shown?", "What moves, and in which direction?"]
inputs = pad_batch(
    [prepare(model, meta, question, tokenizer=tokenizer) for meta, question in zip(metas, questions, strict=True)]
)
with BTM(retention=0.3).attach(model, metas) as session:
    outputs = model.generate(**inputs, max_new_tokens=32, do_sample=False)
for question, output, result in zip(questions, outputs, session.results, strict=True):
    answer = tokenizer.decode(output[inputs["input_ids"].shape[1] :].tolist(), skip_special_tokens=True)
    print(f"{question} {answer} ({result.tokens_in} -> {result.tokens_out} tokens)")
