"""Qwen2-VL with all three stages of MeToM: patches, tokens before the decoder, tokens inside it.

python examples/qwen2_vl.py video.mp4 "What happens?" --model Qwen/Qwen2-VL-7B-Instruct
"""

import argparse

import codecmeta
from compress import MeToM, open_model, prepare

parser = argparse.ArgumentParser()
parser.add_argument("video")
parser.add_argument("question")
weights = parser.add_mutually_exclusive_group(required=True)
weights.add_argument("--model")
weights.add_argument("--random-weights")
options = parser.parse_args()

model, tokenizer = open_model(checkpoint=options.model, random_config=options.random_weights, device="cpu")
depth = model.config.text_config.num_hidden_layers
meta = codecmeta.extract(options.video, frames="uniform:16")
inputs = prepare(model, meta, options.question, tokenizer=tokenizer)
middle = (depth // 2 - 1, depth // 2)
with MeToM(retention=0.3, layers=middle).attach(model, meta) as session:
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False, return_dict_in_generate=True)
answer = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
print(tokenizer.decode(answer, skip_special_tokens=True))
patches = session.results[0].before_encoder
print(f"patches {patches.plan.count_in} -> {patches.achieved}")
print(f"tokens {session.results[0].tokens_in} -> {session.results[0].tokens_out} -> {session.inside[0].achieved}")
