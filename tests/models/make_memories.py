"""Writes the models of the tests that remember in other ways: random weights, the built-in model's tokenizer and template.

    pip install gguf numpy
    python make_memories.py OUT_FOLDER

`windowed.gguf` is of Gemma 3's kind: five of six layers look back 32 tokens. `hybrid.gguf` is of LFM2's kind: three layers
carry a state along that can't be taken back, one attends. What they say is nonsense, but always the same nonsense.
"""

import argparse
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, HEAD, FFN, CONTEXT = 32, 2, 16, 32, 4096


class Model:
    def __init__(self, out: Path, architecture: str, layers: int, seed: int):
        reader = gguf.GGUFReader(Path(__file__).parents[2] / "models/builtin.gguf")
        field = lambda key: reader.fields[key].contents()
        self.writer = writer = gguf.GGUFWriter(out, architecture)
        self.rng = np.random.default_rng(seed)
        self.tokens = field("tokenizer.ggml.tokens")
        writer.add_name(f"{architecture} of the tests")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(layers)
        writer.add_feed_forward_length(FFN)
        writer.add_head_count(HEADS)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        writer.add_tokenizer_model(field("tokenizer.ggml.model"))
        writer.add_tokenizer_pre(field("tokenizer.ggml.pre"))
        writer.add_token_list(self.tokens)
        writer.add_token_types(field("tokenizer.ggml.token_type"))
        writer.add_token_merges(field("tokenizer.ggml.merges"))
        for name in ("bos", "eos"):
            getattr(writer, f"add_{name}_token_id")(field(f"tokenizer.ggml.{name}_token_id"))
        writer.add_add_bos_token(False)
        writer.add_chat_template(field("tokenizer.chat_template"))
        self.matrix("token_embd.weight", len(self.tokens), WIDTH, scale=1)

    def matrix(self, name: str, *shape: int, scale: float | None = None):
        scale = scale or 2 / shape[-1] ** 0.5
        self.writer.add_tensor(name, self.rng.normal(0, scale, shape).astype(np.float16))

    def norm(self, name: str, width: int = WIDTH):
        self.writer.add_tensor(name, (1 + self.rng.normal(0, 0.1, width)).astype(np.float32))

    def attention(self, i: int):
        for name in ("q", "k", "v"):
            self.matrix(f"blk.{i}.attn_{name}.weight", HEADS * HEAD, WIDTH)
        self.matrix(f"blk.{i}.attn_output.weight", WIDTH, HEADS * HEAD)
        for name in ("q", "k"):
            self.norm(f"blk.{i}.attn_{name}_norm.weight", HEAD)

    def feed_forward(self, i: int):
        self.norm(f"blk.{i}.ffn_norm.weight")
        for name, shape in (("gate", (FFN, WIDTH)), ("up", (FFN, WIDTH)), ("down", (WIDTH, FFN))):
            self.matrix(f"blk.{i}.ffn_{name}.weight", *shape)

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def windowed(out: Path):
    model = Model(out, "gemma3", layers=6, seed=1)
    model.writer.add_head_count_kv(HEADS)
    model.writer.add_key_length(HEAD)
    model.writer.add_value_length(HEAD)
    model.writer.add_sliding_window(32)
    model.writer.add_rope_freq_base(10000.0)
    model.norm("output_norm.weight")
    for i in range(6):
        model.norm(f"blk.{i}.attn_norm.weight")
        model.attention(i)
        model.norm(f"blk.{i}.post_attention_norm.weight")
        model.feed_forward(i)
        model.norm(f"blk.{i}.post_ffw_norm.weight")
    model.close()


def hybrid(out: Path):
    heads = [0, 0, HEADS, 0]
    model = Model(out, "lfm2", layers=len(heads), seed=2)
    model.writer.add_head_count_kv(heads)
    model.writer.add_shortconv_l_cache(4)
    model.writer.add_rope_freq_base(10000.0)
    model.norm("token_embd_norm.weight")
    for i, kv in enumerate(heads):
        model.norm(f"blk.{i}.attn_norm.weight")
        if kv:
            model.attention(i)
        else:
            model.matrix(f"blk.{i}.shortconv.in_proj.weight", 3 * WIDTH, WIDTH)
            model.matrix(f"blk.{i}.shortconv.out_proj.weight", WIDTH, WIDTH)
            model.writer.add_tensor(f"blk.{i}.shortconv.conv.weight",
                                    model.rng.normal(0, 0.7, (WIDTH, 4)).astype(np.float32))
        model.feed_forward(i)
    model.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    windowed(args.out / "windowed.gguf")
    hybrid(args.out / "hybrid.gguf")


if __name__ == "__main__":
    main()
