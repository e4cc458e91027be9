"""A LoRA adapter for `bench.random_llama` that is made on the spot, of numbers drawn by a seed.

Its files are those of PEFT: a configuration, and weights as safetensors, which is a length, a JSON
header and the numbers one after the other.
"""

import json
import random
import struct
from array import array
from pathlib import Path
from typing import Any, Final

RANK: Final = 8
_SPREAD: Final = 0.5
"""So large that answers are others than the model's own."""


def random_lora(folder: Path, model: Path, *, seed: int) -> Path:
    """Writes an adapter of that model's attention; returns `folder`."""
    folder.mkdir(parents=True)
    about = json.loads((model / "config.json").read_text())
    width, rng = about["hidden_size"], random.Random(seed)
    heads, groups = about["num_attention_heads"], about["num_key_value_heads"]
    outputs = {"q_proj": width, "v_proj": width // heads * groups, "o_proj": width}
    header: dict[str, Any] = {}
    numbers = array("f")
    for layer in range(about["num_hidden_layers"]):
        for part, output in outputs.items():
            for side, shape in (("A", (RANK, width)), ("B", (output, RANK))):
                begin, count = 4 * len(numbers), shape[0] * shape[1]
                numbers.extend(rng.gauss(0, _SPREAD) for _ in range(count))
                name = f"base_model.model.model.layers.{layer}.self_attn.{part}.lora_{side}.weight"
                offsets = [begin, 4 * len(numbers)]
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    weights = struct.pack("<Q", len(encoded)) + encoded + numbers.tobytes()
    (folder / "adapter_model.safetensors").write_bytes(weights)
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK,
        "bias": "none", "target_modules": list(outputs), "base_model_name_or_path": str(model),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder
