#!/usr/bin/env python3
"""Writes the built-in model as a folder for mlx_lm.server: the same weights as safetensors, its tokenizer, its template.

    make_mlx.py MODEL.gguf TOKENIZER.json FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def name(tensor):
    if tensor in NAMES:
        return NAMES[tensor]
    _, layer, part, kind = tensor.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.{kind}"


def unpermute(weights, heads):
    """GGUF has the halves of each head's rotation interleaved; everybody else has them one after the other."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main(model, tokenizer, folder):
    reader = gguf.GGUFReader(model)
    field = lambda key: reader.get_field(key).contents()
    heads = field("llama.attention.head_count")
    kv_heads = field("llama.attention.head_count_kv")
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        if ".attn_q." in tensor.name:
            values = unpermute(values, heads)
        elif ".attn_k." in tensor.name:
            values = unpermute(values, kv_heads)
        weights[name(tensor.name)] = values
    embedding = field("llama.embedding_length")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": embedding,
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": embedding // heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": field("llama.rope.freq_base"),
        "vocab_size": field("llama.vocab_size"),
        "max_position_embeddings": field("llama.context_length"),
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "float32",
    }
    tokens = field("tokenizer.ggml.tokens")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": tokens[config["eos_token_id"]],
        "pad_token": tokens[field("tokenizer.ggml.bos_token_id")],
        "model_max_length": config["max_position_embeddings"],
        "chat_template": field("tokenizer.chat_template"),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


if __name__ == "__main__":
    main(*sys.argv[1:])
