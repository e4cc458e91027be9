"""An engine for two recipes: embeddings that count words, and answers about pictures that it reads.

    python examples/cookbook/stand_in_engine.py --port 9001

It answers `/v1/embeddings` with the words of a text as a vector, and `/v1/chat/completions` with
the size and the colour of the picture in the request. The demo model can do neither, so this
stands in for an engine that can; nothing in it is a neural network. A picture comes as a data:
URL, or as an http:// address, which is fetched from here, as real engines do. `/pictures/` serves
the recipe's own.
"""

import argparse
import hashlib
import json
import math
import re
import struct
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
DIMENSIONS = 256
COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 70, 200),
    "yellow": (240, 210, 40),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


def embedding(text: str) -> list[float]:
    """A vector of length 1: each word adds one at a place that depends on the word alone."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.removesuffix("s").encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % DIMENSIONS] += 1.0
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]


def described(png: bytes) -> str:
    """Size and mean colour of a PNG of 8-bit RGB whose lines are not filtered."""
    if not png.startswith(b"\x89PNG"):
        raise ValueError("the picture is no PNG")
    width, height = struct.unpack(">II", png[16:24])
    data, place = b"", 8
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + size]
        place += size + 12
    raw, line = zlib.decompress(data), 3 * width + 1
    pixels = b"".join(raw[row * line + 1 : (row + 1) * line] for row in range(height))
    mean = [sum(pixels[channel::3]) / (width * height) for channel in range(3)]
    colour = min(COLOURS, key=lambda name: math.dist(COLOURS[name], mean))
    return f"{colour}, {width} x {height}"


def picture_of(body: dict) -> bytes:
    """The bytes of the last picture in the messages."""
    parts = [part for message in body["messages"] for part in message["content"]]
    url = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"][-1]
    with urlopen(url, timeout=10) as answer:  # takes data: URLs, too
        picture: bytes = answer.read()
    return picture


def answer_to(path: str, body: dict) -> dict:
    usage = {"prompt_tokens": len(json.dumps(body)) // 4, "completion_tokens": 5}
    usage["total_tokens"] = sum(usage.values())
    head = {"model": body["model"], "created": 0, "usage": usage}
    if path == "/v1/embeddings":
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        vectors = [
            {"object": "embedding", "index": number, "embedding": embedding(text)}
            for number, text in enumerate(texts)
        ]
        return head | {"object": "list", "data": vectors}
    message = {"role": "assistant", "content": described(picture_of(body))}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return head | {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        picture = HERE / "pictures" / Path(self.path).name
        if self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in ("word-counts", "picture-reader")]
            self.send(200, json.dumps({"object": "list", "data": models}).encode())
        elif self.path.startswith("/pictures/") and picture.is_file():
            self.send(200, picture.read_bytes(), "image/png")
        else:
            self.send(404, b'{"error": {"message": "There is no such page."}}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            self.send(200, json.dumps(answer_to(self.path, body)).encode())
        except (ValueError, KeyError, IndexError, OSError) as error:
            message = f"This request cannot be answered: {error}"
            self.send(400, json.dumps({"error": {"message": message}}).encode())

    def send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal is for people."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9001)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Engine)
    print(f"A stand-in engine listens on http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
