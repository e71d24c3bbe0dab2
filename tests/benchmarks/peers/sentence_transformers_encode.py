"""Texts of a file -> vectors in a file with sentence-transformers; prints one JSON line.

    python tests/benchmarks/peers/sentence_transformers_encode.py texts.txt tokenizer.json out.npy

A BertModel of given width and layers with random weights, mean pooling, vectors of length one. Its
tokenizer is the other side's with that side's first token, so both sides have the same tokens. Of
the batch sizes given, the one is measured that is fastest on a part of the texts. Needs
requirements-sentence-transformers.txt alone.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, processors
from torch_clue import keep_freed_memory, matmul_rate
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


def model(options: argparse.Namespace) -> SentenceTransformer:
    """Through a folder, as a model is loaded from a hub."""
    bpe = Tokenizer.from_file(options.tokenizer)
    guide = {"id": "[GUIDE]", "ids": [options.guide], "tokens": [bpe.id_to_token(options.guide)]}
    bpe.post_processor = processors.TemplateProcessing(single="[GUIDE] $A", special_tokens=[guide])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", model_max_length=options.longest
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        intermediate_size=4 * options.width,
        max_position_embeddings=options.longest,
        type_vocab_size=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        body = Transformer(folder, max_seq_length=options.longest)
    return SentenceTransformer(modules=[body, Pooling(options.width), Normalize()], device="cpu")


def encode(
    encoder: SentenceTransformer, texts: list[str], batch: int, out: str
) -> tuple[float, float]:
    """Seconds from strings to vectors in a file, and those of processor time."""
    began, worked = time.perf_counter(), time.process_time()
    z_NE = encoder.encode(texts, batch_size=batch, show_progress_bar=False)
    np.save(out, z_NE)
    return time.perf_counter() - began, time.process_time() - worked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("texts", "tokenizer", "out"):
        parser.add_argument(name)
    for name in ("width", "layers", "heads", "longest", "guide"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    options = parser.parse_args()
    options.dtype, options.device = "float32", "cpu"
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    keep_freed_memory()
    with open(options.texts) as stream:
        texts = stream.read().split("\n")
    encoder = model(options)
    some = texts[: 2 * max(options.batches)]
    # Twice, as the first time of anything is slow.
    tried = {batch: encode(encoder, some, batch, options.out)[0] for batch in options.batches * 2}
    batch = min(tried, key=tried.get)
    seconds, worked = encode(encoder, texts, batch, options.out)
    line = {
        "texts_per_second": len(texts) / seconds,
        "cpu_seconds": worked,
        "batch": batch,
        "tokens": sum(map(len, encoder.tokenizer(texts)["input_ids"])),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "matmul_rate": matmul_rate(options),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
