"""Makes a tiny data set of made-up questions, a tokenizer and a BERT, with which a whole run takes a minute.

Every context is a sentence such as "Anna went to Paris in 1907 and bought a red hat.", so that the question word alone
tells which words are the answer. A run on these questions shows that training, distillation and scoring work. Nothing
is downloaded.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from bnn_itrd.files import write_json
from bnn_itrd.nlp.bert import transformers
from bnn_itrd.nlp.squad import FILES

__all__ = ["tiny_questions", "write_tiny"]

_WHO = ["Anna", "Bruno", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Louis"]
_WHERE = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi", "Tokyo", "Quito", "Accra", "Sofia", "Berlin", "Dublin"]
_WHEN = [str(year) for year in range(1900, 1912)]
_COLOUR = ["red", "blue", "green", "black", "white", "yellow"]
_WHAT = ["hat", "coat", "lamp", "clock", "chair", "mirror"]
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIZES = {"train": 192, "dev": 48}
_BERT = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,  # with the usual 0.02 a network as narrow as this learns little
}


def tiny_questions(count: int, *, seed: int) -> dict[str, Any]:
    """Returns the content of a SQuAD 1.1 file with `count` contexts, drawn by `seed`, and four questions about each.

    >>> tiny_questions(1, seed=0)["data"][0]["paragraphs"][0]["context"]
    'Greta went to Tokyo in 1900 and bought a green chair.'
    """
    rng = random.Random(seed)
    paragraphs = []
    for i in range(count):
        who, where, when, colour, what = (rng.choice(words) for words in (_WHO, _WHERE, _WHEN, _COLOUR, _WHAT))
        context = f"{who} went to {where} in {when} and bought a {colour} {what}."
        asked = {
            f"Who went to {where}?": who,
            f"Where did {who} go?": where,
            f"When did {who} go to {where}?": when,
            f"What did {who} buy?": f"a {colour} {what}",
        }
        qas = [
            {"id": f"{seed}-{i}-{k}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for k, (q, a) in enumerate(asked.items())
        ]
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "Journeys", "paragraphs": paragraphs}]}


def _vocabulary() -> list[str]:
    words = ["who", "where", "when", "what", "did", "go", "went", "to", "in", "and", "bought", "buy", "a", ".", "?"]
    return [*_SPECIAL, *words, *(word.lower() for word in (*_WHO, *_WHERE, *_WHEN, *_COLOUR, *_WHAT))]


def write_tiny(folder: Path) -> None:
    """Writes the made-up data set into a folder: train-v1.1.json, dev-v1.1.json, and a folder bert.

    The folder bert has a tokenizer and a config.json, but no weights. Nothing is written if its config.json exists.
    """
    if (folder / "bert" / "config.json").is_file():
        return
    library = transformers()
    import tokenizers

    vocabulary = {word: i for i, word in enumerate(_vocabulary())}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=made, **dict(zip(names, _SPECIAL, strict=True)))
    for seed, (split, name) in enumerate(FILES.items()):
        write_json(folder / name, tiny_questions(_SIZES[split], seed=seed))
    tokenizer.save_pretrained(folder / "bert")
    # config.json is written last, so that its presence shows that all files are there.
    config = library.BertConfig(vocab_size=len(vocabulary), **_BERT)
    write_json(folder / "bert" / "config.json", config.to_dict())
