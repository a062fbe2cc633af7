"""Several questions about one video: it is encoded and shortened once, and every turn feeds only its own words.

python examples/chat.py video.mp4 "What happens?" "And then?" --model llava-hf/llava-onevision-qwen2-7b-ov-hf
"""

import argparse

import codecmeta
from compress import InfoMerge, open_model

parser = argparse.ArgumentParser()
parser.add_argument("video")
parser.add_argument("questions", nargs="+")
weights = parser.add_mutually_exclusive_group(required=True)
weights.add_argument("--model")
weights.add_argument("--random-weights")
options = parser.parse_args()

model, tokenizer = open_model(checkpoint=options.model, random_config=options.random_weights, device="cpu")
meta = codecmeta.extract(options.video, frames="uniform:16")
with InfoMerge(retention=0.15).attach(model, meta) as session:
    chat = session.chat(meta, tokenizer=tokenizer, max_new_tokens=64, do_sample=False)
    for question in options.questions:
        print(f"> {question}\n{chat.ask(question)}")
    print(f"{chat.cache.get_seq_length()} positions in the cache")
