"""The recipe of the random model: vocabulary, weights and chat template, written as a GGUF.

Called by `random_model` when there is no file yet; imports numpy and gguf, which is why it stands
apart. A real llama-architecture model (two layers, half a megabyte) over a byte-level vocabulary:
one token per byte of text. Its answers are noise, by design. Two invariants: the file is a
function of `SEED` and this module alone; and only printable ASCII and the end token are ever
likely, so that every answer is valid UTF-8 and ends.
"""

import logging
import math
from pathlib import Path
from typing import Final

import gguf
import numpy as np
from numpy.typing import NDArray

SEED: Final = 20_240_607

_EMBEDDING = 64
_HEADS = 4
_KV_HEADS = 1  # multi-query attention: 128 bytes of KV cache per token instead of 512
_LAYERS = 2
_FEED_FORWARD = 128
_HEAD_SIZE = _EMBEDDING // _HEADS

_CONTROL_TOKENS = ("<|end|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>")
_END = 256
_BEGIN = 257
_BIAS_FEATURE = 0  # this dimension of the residual stream is constant, see `_weights`
_BIAS_LEVEL = 8.0
_NEVER = -100.0  # log-likelihood that no sampling temperature brings back
_END_SHARE = 1 / 80  # so that an answer without max_tokens ends by itself after about a line

# Roughly how often each character occurs in English prose, so that the noise has the look of text.
_COMMON = " etaoinshrdlucmfwygpbvkxqjz"
_RARE = ".,ETAOINSHRDLUCMFWYGPBVKXQJZ0123456789'-?!"

_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

_Weights = NDArray[np.float32]


def write_random(path: Path, context_tokens: int) -> None:
    """Writes the whole model to `path`; prompt and answers have `context_tokens`. Raises
    OSError.
    """
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it logs its plan at INFO for every file
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Lowtide (random weights)")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_dimension_count(_HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(gguf.PoolingType.MEAN)  # so that it serves embeddings as well
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer)
    for name, tensor in _weights().items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """256 byte tokens and the control tokens of the chat template, in the GPT-2 scheme."""
    tokens = [_visible(byte) for byte in range(256)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*tokens, *_CONTROL_TOKENS])
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(_CONTROL_TOKENS)
    )
    # llama.cpp insists on a list of merges; this one joins tokens that do not exist, so none
    # applies.
    writer.add_token_merges(["\u0120 \u0120"])
    writer.add_bos_token_id(_BEGIN)
    writer.add_eos_token_id(_END)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_CHAT_TEMPLATE)


def _visible(byte: int) -> str:
    """The character that stands for `byte` in a GPT-2 vocabulary (which allows no blanks)."""
    is_visible = 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF
    if is_visible:
        return chr(byte)
    invisible = [*range(0x21), *range(0x7F, 0xA1), 0xAD]
    return chr(0x100 + invisible.index(byte))


def _weights() -> dict[str, _Weights]:
    """All tensors. GGUF shapes are reversed: numpy's (rows out, columns in)."""
    chance = np.random.default_rng(SEED)

    def random(rows: int, columns: int, gain: float = 1.0) -> _Weights:
        scale = gain / math.sqrt(columns)
        return (chance.standard_normal((rows, columns)) * scale).astype(np.float32)

    vocabulary = 256 + len(_CONTROL_TOKENS)
    embedding = random(vocabulary, _EMBEDDING, gain=math.sqrt(_EMBEDDING))
    # The llama architecture has no bias on its output. So one feature of every embedding is the
    # same constant, no layer writes to it, and its column in the output matrix acts as the bias.
    embedding[:, _BIAS_FEATURE] = _BIAS_LEVEL
    weights = {"token_embd.weight": embedding}
    for layer in range(_LAYERS):
        prefix = f"blk.{layer}."
        attention_output = random(_EMBEDDING, _EMBEDDING, gain=0.5)
        feed_forward_output = random(_EMBEDDING, _FEED_FORWARD, gain=0.5)
        attention_output[_BIAS_FEATURE] = 0.0
        feed_forward_output[_BIAS_FEATURE] = 0.0
        weights |= {
            prefix + "attn_norm.weight": np.ones(_EMBEDDING, np.float32),
            prefix + "attn_q.weight": random(_EMBEDDING, _EMBEDDING),
            prefix + "attn_k.weight": random(_KV_HEADS * _HEAD_SIZE, _EMBEDDING),
            prefix + "attn_v.weight": random(_KV_HEADS * _HEAD_SIZE, _EMBEDDING),
            prefix + "attn_output.weight": attention_output,
            prefix + "ffn_norm.weight": np.ones(_EMBEDDING, np.float32),
            prefix + "ffn_gate.weight": random(_FEED_FORWARD, _EMBEDDING),
            prefix + "ffn_up.weight": random(_FEED_FORWARD, _EMBEDDING),
            prefix + "ffn_down.weight": feed_forward_output,
        }
    output = random(vocabulary, _EMBEDDING)
    output[:, _BIAS_FEATURE] = _output_bias(vocabulary) / _bias_after_norm()
    weights["output_norm.weight"] = np.ones(_EMBEDDING, np.float32)
    weights["output.weight"] = output
    return weights


def _bias_after_norm() -> float:
    """What the constant feature is after RMS normalisation, the others having variance 1."""
    mean_square = (_BIAS_LEVEL**2 + (_EMBEDDING - 1)) / _EMBEDDING
    return _BIAS_LEVEL / math.sqrt(mean_square)


def _output_bias(vocabulary: int) -> _Weights:
    """The wanted log-probability of each token, before the random part is added."""
    shares = np.zeros(vocabulary)
    for rank, character in enumerate(_COMMON):
        shares[ord(character)] = 1 / (1 + rank)
    for character in _RARE:
        shares[ord(character)] = 0.004
    shares /= shares.sum()
    shares[_END] = _END_SHARE
    bias = np.full(vocabulary, _NEVER)
    likely = shares > 0
    bias[likely] = np.log(shares[likely])
    return bias.astype(np.float32)
