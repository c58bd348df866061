"""Tiny models with random weights, written on the fly: a GGUF, its trimmed form, a Hugging Face folder."""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from outrider.manifest import Manifest, ModelFolder, Source, write_manifest

N_VOCAB = 96
WIDTH, NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS, NUM_HIDDEN = 64, 2, 4, 2, 128
MAX_CONTEXT = 2048

Array = NDArray[np.float32]


def tiny_manifest(path: Path, model_format: str, file: str, **more: object) -> ModelFolder:
    fields: dict[str, object] = {
        "name": "tiny",
        "format": model_format,
        "architecture": "llama",
        "file": file,
        "files": {},
        "source": Source("random", "0"),
        "licence": "none",
        "n_vocab": N_VOCAB,
        "max_context": MAX_CONTEXT,
        "stop_ids": [0],
        "tokenizer_fingerprint": "none",
    }
    return write_manifest(path, Manifest(**(fields | more)))


def tiny_gguf(path: Path, *, kept_ids: list[int] | None = None) -> ModelFolder:
    """A two-layer llama. With `kept_ids` the output layer has these rows only and the input is fed by embedding."""
    path.mkdir()
    rng = np.random.default_rng(1)

    def matrix(rows: int, columns: int) -> Array:
        return (rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    # Through float16, so that the trimmed form's embeddings hold the same numbers.
    embeddings = rng.standard_normal((N_VOCAB, WIDTH)).astype(np.float16)
    output = matrix(N_VOCAB, WIDTH)
    num_rows = N_VOCAB
    if kept_ids is not None:
        np.save(path / "embeddings.npy", embeddings)
        np.save(path / "id_map.npy", np.array(kept_ids, np.int32))
        output, num_rows = output[kept_ids], len(kept_ids)

    writer = gguf.GGUFWriter(path / "model.gguf", "llama")
    writer.add_context_length(MAX_CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(NUM_LAYERS)
    writer.add_feed_forward_length(NUM_HIDDEN)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // NUM_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(num_rows)
    writer.add_tokenizer_model("none")
    kv_width = WIDTH // NUM_HEADS * NUM_KV_HEADS
    tensors = {"token_embd.weight": embeddings[:num_rows].astype(np.float32), "output.weight": output}
    tensors["output_norm.weight"] = np.ones(WIDTH, np.float32)
    for layer in range(NUM_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": np.ones(WIDTH, np.float32),
            f"blk.{layer}.ffn_norm.weight": np.ones(WIDTH, np.float32),
            f"blk.{layer}.attn_q.weight": matrix(WIDTH, WIDTH),
            f"blk.{layer}.attn_k.weight": matrix(kv_width, WIDTH),
            f"blk.{layer}.attn_v.weight": matrix(kv_width, WIDTH),
            f"blk.{layer}.attn_output.weight": matrix(WIDTH, WIDTH),
            f"blk.{layer}.ffn_gate.weight": matrix(NUM_HIDDEN, WIDTH),
            f"blk.{layer}.ffn_up.weight": matrix(NUM_HIDDEN, WIDTH),
            f"blk.{layer}.ffn_down.weight": matrix(WIDTH, NUM_HIDDEN),
        }
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if kept_ids is None:
        return tiny_manifest(path, "gguf", "model.gguf")
    return tiny_manifest(path, "gguf", "model.gguf", id_map="id_map.npy", embeddings="embeddings.npy")


def tiny_hf(path: Path, model_type: str = "qwen2", **more: object) -> ModelFolder:
    """A two-layer model as `save_pretrained` writes it."""
    import torch
    import transformers

    path.mkdir()
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=N_VOCAB,
        hidden_size=WIDTH,
        intermediate_size=NUM_HIDDEN,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        max_position_embeddings=MAX_CONTEXT,
        **more,
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual tiny initial weights give logits that are nearly equal
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(path, safe_serialization=True)
    return tiny_manifest(path, "hf", ".")
