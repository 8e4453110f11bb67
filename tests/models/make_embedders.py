"""Writes the embedding models of the tests: random weights, a handful of tokens, two shapes.

    pip install gguf numpy
    python make_embedders.py FOLDER      leaves embed-bert.gguf, embed-llama.gguf and embeddings.json there

`embed-bert` looks at both sides of a word and takes the mean (BERT); `embed-llama` looks back only and takes the last
token (as Qwen's embedding models do). `embeddings.json` holds what the BERT one must answer, computed here with
numpy and not by llama.cpp.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np

WIDTH, LAYERS, HEADS, FFN, CONTEXT, EPS = 32, 2, 4, 64, 256, 1e-12
WORDS = ["hello", "world", "the", "cat", "sat", "on", "mat", "dog", "ran"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
TOKENS = (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + ["\u2581" + w for w in WORDS]
          + ["\u2581" + c for c in LETTERS] + list(LETTERS))
TEXTS = [["hello", "world"], ["the", "cat", "sat", "on", "the", "mat"], ["dog"]]


def vocabulary(writer: gguf.GGUFWriter):
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 5 + [1] * (len(TOKENS) - 5))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_mask_token_id(4)


def bert(folder: Path) -> dict:
    rng = np.random.default_rng(1)
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    w = {"token_embd.weight": matrix(len(TOKENS), WIDTH), "token_types.weight": matrix(2, WIDTH),
         "position_embd.weight": matrix(CONTEXT, WIDTH),
         "token_embd_norm.weight": 1 + matrix(WIDTH), "token_embd_norm.bias": matrix(WIDTH)}
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w[f"blk.{i}.{name}.weight"], w[f"blk.{i}.{name}.bias"] = matrix(WIDTH, WIDTH), matrix(WIDTH)
        w[f"blk.{i}.ffn_up.weight"], w[f"blk.{i}.ffn_up.bias"] = matrix(FFN, WIDTH), matrix(FFN)
        w[f"blk.{i}.ffn_down.weight"], w[f"blk.{i}.ffn_down.bias"] = matrix(WIDTH, FFN), matrix(WIDTH)
        for name in ("attn_output_norm", "layer_output_norm"):
            w[f"blk.{i}.{name}.weight"], w[f"blk.{i}.{name}.bias"] = 1 + matrix(WIDTH), matrix(WIDTH)
    writer = gguf.GGUFWriter(folder / "embed-bert.gguf", "bert")
    writer.add_name("Embedder of the tests, BERT")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPS)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    vocabulary(writer)
    finish(writer, w)
    return w


def finish(writer: gguf.GGUFWriter, weights: dict):
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(folder: Path):
    rng = np.random.default_rng(2)
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    w = {"token_embd.weight": matrix(len(TOKENS), WIDTH), "output_norm.weight": 1 + matrix(WIDTH)}
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            w[f"blk.{i}.{name}.weight"] = matrix(WIDTH, WIDTH)
        w[f"blk.{i}.ffn_gate.weight"], w[f"blk.{i}.ffn_up.weight"] = matrix(FFN, WIDTH), matrix(FFN, WIDTH)
        w[f"blk.{i}.ffn_down.weight"] = matrix(WIDTH, FFN)
        w[f"blk.{i}.attn_norm.weight"], w[f"blk.{i}.ffn_norm.weight"] = 1 + matrix(WIDTH), 1 + matrix(WIDTH)
    writer = gguf.GGUFWriter(folder / "embed-llama.gguf", "llama")
    writer.add_name("Embedder of the tests, last token")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_pooling_type(gguf.PoolingType.LAST)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    vocabulary(writer)
    finish(writer, w)


def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight + bias


def forward(w: dict, ids: list[int]) -> np.ndarray:
    """BERT as its paper has it, in double precision; the mean of the last layer, with length 1."""
    w = {name: tensor.astype(np.float64) for name, tensor in w.items()}
    x = w["token_embd.weight"][ids] + w["position_embd.weight"][: len(ids)] + w["token_types.weight"][0]
    x = norm(x, w["token_embd_norm.weight"], w["token_embd_norm.bias"])
    for i in range(LAYERS):
        linear = lambda name, y: y @ w[f"blk.{i}.{name}.weight"].T + w[f"blk.{i}.{name}.bias"]
        heads = lambda y: y.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)
        q, k, v = (heads(linear(name, x)) for name in ("attn_q", "attn_k", "attn_v"))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), WIDTH)
        x = norm(x + linear("attn_output", mixed), w[f"blk.{i}.attn_output_norm.weight"], w[f"blk.{i}.attn_output_norm.bias"])
        up = linear("ffn_up", x)
        up = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        x = norm(x + linear("ffn_down", up), w[f"blk.{i}.layer_output_norm.weight"], w[f"blk.{i}.layer_output_norm.bias"])
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def main():
    folder = Path(sys.argv[1])
    weights = bert(folder)
    llama(folder)
    known = []
    for words in TEXTS:
        ids = [2] + [TOKENS.index("\u2581" + word) for word in words] + [3]
        vector = [round(float(x), 6) for x in forward(weights, ids)]
        known.append({"text": " ".join(words), "tokens": ids, "embedding": vector})
    (folder / "embeddings.json").write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
