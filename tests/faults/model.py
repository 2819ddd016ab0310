"""A model that takes a while: hundreds of megabytes that are a hole in a file, all zeros."""
import json
import os
import struct

HIDDEN, LAYERS, HEADS, HEAD, VOCAB, EXPERTS, WIDTH = 1024, 8, 8, 64, 1024, 16, 512

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
    "head_dim": HEAD, "num_experts": EXPERTS, "num_experts_per_tok": 8,
    "moe_intermediate_size": WIDTH, "vocab_size": VOCAB, "max_position_embeddings": 8192,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16",
}  # fmt: skip


def tensors():
    """(name, shape) of all."""
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for norm in "input_layernorm", "post_attention_layernorm":
            yield f"{layer}.{norm}.weight", [HIDDEN]
        for part in "qkv":
            yield f"{layer}.self_attn.{part}_proj.weight", [HEADS * HEAD, HIDDEN]
        yield f"{layer}.self_attn.o_proj.weight", [HIDDEN, HEADS * HEAD]
        for part in "qk":
            yield f"{layer}.self_attn.{part}_norm.weight", [HEAD]
        yield f"{layer}.mlp.gate.weight", [EXPERTS, HIDDEN]
        for e in range(EXPERTS):
            for part in "gate", "up":
                yield f"{layer}.mlp.experts.{e}.{part}_proj.weight", [WIDTH, HIDDEN]
            yield f"{layer}.mlp.experts.{e}.down_proj.weight", [HIDDEN, WIDTH]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCAB, HIDDEN]


def write(directory):
    header, at = {}, 0
    for name, shape in tensors():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with open(os.path.join(directory, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(CONFIG, f)
