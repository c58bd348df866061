"""Small models with random weights and the toy vocabulary, written on the fly, and a plain way to run an ONNX one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from outrider.gguf_tokenizer import tokenizer_json
from outrider.tokens import BYTE_OF
from tests.toy_gguf import CHAT, SPECIALS, WORDS, toy_metadata

N_VOCAB = 320
WIDTH, NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS, HEAD_SIZE, NUM_HIDDEN = 64, 2, 4, 2, 16, 96
TEXTS = [*SPECIALS, *sorted(BYTE_OF), *(left + right for left, right in WORDS)]
# Filled up as real vocabularies are: kernels work on blocks of columns, and columns left over are rounded otherwise.
TOKENS = TEXTS + [f"[PAD{number}]" for number in range(-len(TEXTS) % 16)]


def write_hf(folder: Path, model_type: str, sharpness: float = 1.0) -> Path:
    """A Hugging Face folder with half-precision weights; the Llama shares its input and output tables.

    `sharpness` multiplies the logits: how sure the model is.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=N_VOCAB,
        hidden_size=WIDTH,
        intermediate_size=NUM_HIDDEN,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=model_type == "llama",
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual tiny weights give logits that are nearly equal
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.model.norm.weight *= sharpness
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(toy_metadata())))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    return folder


def write_gguf(
    file: Path,
    *,
    is_tied: bool = False,
    architecture: str = "llama",
    seed: int = 1,
    max_context: int = 256,
    marks: Sequence[str] = (),
    chat: str = CHAT,
) -> Path:
    """A GGUF file with the toy vocabulary, float32; its embeddings are exact in float16.

    `marks` are more control tokens, in places that otherwise only fill up.
    """
    tokens = [*TEXTS, *marks, *TOKENS[len(TEXTS) + len(marks) :]]
    num_fillers = len(tokens) - len(TEXTS) - len(marks)
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float16).astype(np.float32)

    writer = gguf.GGUFWriter(file, architecture)
    writer.add_context_length(max_context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(NUM_LAYERS)
    writer.add_feed_forward_length(NUM_HIDDEN)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    metadata = toy_metadata()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    kinds = [3] * len(SPECIALS) + [1] * (len(TEXTS) - len(SPECIALS)) + [3] * len(marks) + [5] * num_fillers
    writer.add_token_types(kinds)
    writer.add_token_merges(metadata["tokenizer.ggml.merges"])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    writer.add_chat_template(chat)
    tensors = {"token_embd.weight": matrix(len(TOKENS), WIDTH), "output_norm.weight": np.ones(WIDTH, np.float32)}
    if not is_tied:
        tensors["output.weight"] = matrix(len(TOKENS), WIDTH)
    kv_width = HEAD_SIZE * NUM_KV_HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (kv_width, WIDTH), "attn_v": (kv_width, WIDTH)}
    shapes |= {"attn_output": (WIDTH, WIDTH), "ffn_gate": (NUM_HIDDEN, WIDTH), "ffn_up": (NUM_HIDDEN, WIDTH)}
    shapes |= {"ffn_down": (WIDTH, NUM_HIDDEN)}
    for layer in range(NUM_LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH, np.float32)
        tensors |= {f"blk.{layer}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def run_onnx(file: Path, token_ids: list[int]) -> NDArray[np.float32]:
    """Logits of shape (tokens, columns), by ONNX Runtime alone, from an empty cache."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    length = len(token_ids)
    feeds: dict[str, Any] = {
        "input_ids": np.array([token_ids], np.int64),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(length, dtype=np.int64)[None],
    }
    empty = np.zeros((1, NUM_KV_HEADS, 0, HEAD_SIZE), np.float32)
    inputs = {value.name for value in session.get_inputs()}
    feeds = {name: feeds.get(name, empty) for name in inputs}
    logits: NDArray[np.float32] = session.run(["logits"], feeds)[0][0]
    return logits
