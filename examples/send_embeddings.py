"""One question to an unmodified vLLM about a video whose tokens `compress run` shortened, without the video itself.

codecmeta extract videos/ --out meta/
compress run --meta meta/ --out tokens/ --model llava-hf/llava-onevision-qwen2-7b-ov-hf --embeddings \
    --method infomerge --retention 0.1 --set positions=contiguous
vllm serve llava-hf/llava-onevision-qwen2-7b-ov-hf --enable-mm-embeds
python examples/send_embeddings.py tokens/clip.mp4.npy "What happens?"
"""

import argparse
import base64
import json
import urllib.request
from pathlib import Path
from typing import Any


def ask(server: str, embeddings: Path, question: str, **options: Any) -> dict[str, Any]:
    """Ask a server; the shortened video goes as the embeddings of an image, which have a count of their own."""
    with urllib.request.urlopen(f"{server}/v1/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    # vLLM reads the .npy file as it is
    data = base64.b64encode(embeddings.read_bytes()).decode()
    content = [{"type": "image_embeds", "image_embeds": data}, {"type": "text", "text": question}]
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 64, **options}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("question")
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    chosen = parser.parse_args()
    said = ask(chosen.server, chosen.embeddings, chosen.question)
    print(said["choices"][0]["message"]["content"])
    print(f"{said['usage']['prompt_tokens']} tokens in the prompt")
