"""Writes the projector of the tests: eyes of LLaVA's kind with random weights, for the built-in model.

    pip install gguf numpy
    python make_projector.py OUT.gguf [--width 192]

An image becomes 16 tokens. What the model says about it is nonsense, but always the same nonsense.
"""

import argparse

import gguf
import numpy as np

SIZE, PATCH, EMBED, LAYERS, HEADS, FFN, HIDDEN = 28, 7, 32, 2, 4, 64, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--width", type=int, default=192, help="length of an embedding of the model it belongs to")
    args = parser.parse_args()
    rng = np.random.default_rng(3)
    matrix = lambda *shape: rng.normal(0, 0.2, shape).astype(np.float32)
    weights = {"v.patch_embd.weight": matrix(EMBED, 3, PATCH, PATCH),
               "v.position_embd.weight": matrix((SIZE // PATCH) ** 2, EMBED),
               "v.pre_ln.weight": 1 + matrix(EMBED), "v.pre_ln.bias": matrix(EMBED),
               "mm.0.weight": matrix(HIDDEN, EMBED), "mm.0.bias": matrix(HIDDEN),
               # Loud, so that what is seen changes what is said.
               "mm.2.weight": 5 * matrix(args.width, HIDDEN), "mm.2.bias": matrix(args.width)}
    for i in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            weights[f"v.blk.{i}.{name}.weight"], weights[f"v.blk.{i}.{name}.bias"] = matrix(EMBED, EMBED), matrix(EMBED)
        weights[f"v.blk.{i}.ffn_up.weight"], weights[f"v.blk.{i}.ffn_up.bias"] = matrix(FFN, EMBED), matrix(FFN)
        weights[f"v.blk.{i}.ffn_down.weight"], weights[f"v.blk.{i}.ffn_down.bias"] = matrix(EMBED, FFN), matrix(EMBED)
        for name in ("ln1", "ln2"):
            weights[f"v.blk.{i}.{name}.weight"], weights[f"v.blk.{i}.{name}.bias"] = 1 + matrix(EMBED), matrix(EMBED)
    writer = gguf.GGUFWriter(args.out, "clip")
    writer.add_type("mmproj")
    writer.add_name("Projector of the tests")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for name, value in (("image_size", SIZE), ("patch_size", PATCH), ("embedding_length", EMBED),
                        ("feed_forward_length", FFN), ("block_count", LAYERS), ("projection_dim", args.width),
                        ("attention.head_count", HEADS)):
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
