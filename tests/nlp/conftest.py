"""A tiny BERT on disk, and questions that were made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.squad import APPLES, HAND_MADE, TURING, ZURICH, write_json

from bnn_itrd.nlp import read_squad
from bnn_itrd.nlp.squad import Example


def repeated(times: int) -> dict[str, Any]:
    """The hand-made questions, under `times` ids each."""
    data = []
    for i in range(times):
        (article,) = json.loads(json.dumps(HAND_MADE))["data"]
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["id"] += f"-{i}"
        data.append(article)
    return {"version": "1.1", "data": data}


def write_bert(folder: Path, texts: list[str], *, layers: int = 4, words: int = 64) -> Path:
    """config.json and a WordPiece tokenizer whose pieces are the texts' words, some of them split."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    import unicodedata

    plain = unicodedata.normalize("NFD", " ".join(texts).lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    found = sorted(set("".join(c if c.isalnum() else f" {c} " for c in plain).split()) - {"switzerland", "zurichsee"})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "switzer", "##land", "zurich", "##see", *found]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **{f"{name}_token": value for name, value in special.items()}
    )
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=words, hidden_dropout_prob=0.02, attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )  # fmt: skip
    config.save_pretrained(folder)
    return folder


TEXTS = [ZURICH, TURING, APPLES, *(q["question"] for p in HAND_MADE["data"][0]["paragraphs"] for q in p["qas"])]


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "b", TEXTS)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return read_squad(write_json(tmp_path_factory.mktemp("json") / "a.json", HAND_MADE), training=True)


@pytest.fixture(scope="session")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-made questions as both splits, in training five times: what is learned by heart is asked again."""
    root = tmp_path_factory.mktemp("squad")
    write_json(root / "train-v1.1.json", repeated(5))
    write_json(root / "dev-v1.1.json", HAND_MADE)
    return root
