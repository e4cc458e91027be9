"""A Llama for vLLM that is made on the spot: settings and a tokenizer, whose weights vLLM draws.

Used with `--load-format dummy`. A token is a letter of ASCII, or one of `words` with the space
behind it, and none ends an answer, so lengths are those that are asked for. With `ends` one does,
as grammars need it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_END: Final = 4
"""ASCII's own end of a transmission."""
_TEMPLATE: Final = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def random_llama(
    folder: Path,
    *,
    layers: int = 8,
    width: int = 512,
    ends: bool = False,
    words: Iterable[str] = (),
) -> Path:
    """Writes the files of a model with so many layers of that width; returns `folder`."""
    folder.mkdir(parents=True)
    letters = _byte_letters()
    merges = _merges(words, letters[ord(" ")])
    vocabulary = [*letters, *dict.fromkeys(left + right for left, right in merges)]
    settings = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "vocab_size": len(vocabulary), "hidden_size": width, "intermediate_size": 4 * width,
        "num_hidden_layers": layers, "num_attention_heads": width // 64,
        "num_key_value_heads": max(1, width // 256), "max_position_embeddings": 16_384,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": True,
    }  # fmt: skip
    bytes_as_letters = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False,
    }  # fmt: skip
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": bytes_as_letters,
        "decoder": bytes_as_letters,
        "model": {
            "type": "BPE",
            "vocab": {token: place for place, token in enumerate(vocabulary)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 16_384,
        "chat_template": _TEMPLATE,
    }
    if ends:
        end = {"id": _END, "content": letters[_END], "special": True}
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        tokenizer["added_tokens"] = [end | plain]
        settings["eos_token_id"], about["eos_token"] = _END, letters[_END]
    for name, reported in (
        ("config.json", settings),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", about),
    ):
        (folder / name).write_text(json.dumps(reported))
    return folder


def _merges(words: Iterable[str], space: str) -> list[tuple[str, str]]:
    """The pairs that make one token of each word and the space behind it, letter by letter."""
    pairs = [
        (whole[:end], whole[end])
        for whole in (word + space for word in words)
        for end in range(1, len(whole))
    ]
    return list(dict.fromkeys(pairs))


def _byte_letters() -> list[str]:
    """What stands for each byte of ASCII in a byte-level vocabulary: itself where it prints, else a
    letter from 256 on.
    """
    letters, beyond = [], 256
    for byte in range(128):
        is_shown = 0x21 <= byte <= 0x7E
        letters.append(chr(byte if is_shown else beyond))
        beyond += not is_shown
    return letters
