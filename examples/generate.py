"""One question to a Video-LLM about a video whose visual tokens are shortened to 30 %.

python examples/generate.py video.mp4 "What happens?" --model llava-hf/llava-onevision-qwen2-7b-ov-hf
python examples/generate.py video.mp4 "What happens?" --random-weights llava-onevision-tiny
"""

import argparse

import codecmeta
from compress import BTM, open_model, prepare

parser = argparse.ArgumentParser()
parser.add_argument("video")
parser.add_argument("question")
weights = parser.add_mutually_exclusive_group(required=True)
weights.add_argument("--model")
weights.add_argument("--random-weights")
parser.add_argument("--device", default="cpu")
options = parser.parse_args()

model, tokenizer = open_model(checkpoint=options.model, random_config=options.random_weights, device=options.device)
meta = codecmeta.extract(options.video, frames="uniform:16")
inputs = prepare(model, meta, options.question, tokenizer=tokenizer)
with BTM(retention=0.3).attach(model, meta) as session:
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :].tolist(), skip_special_tokens=True))
print(f"{session.results[0].tokens_in} visual tokens became {session.results[0].tokens_out}")
