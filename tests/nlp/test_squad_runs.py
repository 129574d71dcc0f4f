"""Question answering: the metric by hand, windows and spans against loops, losses against NumPy, and a whole run."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bnn_itrd import recipes
from bnn_itrd.cli import main
from bnn_itrd.errors import UserError
from bnn_itrd.nlp import exact_match, f1, normalise_answer, read_squad, score_answers
from bnn_itrd.nlp.bert import layer_map, load_bert, load_tokenizer, make_student
from bnn_itrd.nlp.config import (
    HiddenConfig,
    LayerITRDConfig,
    LogitKDConfig,
    SquadConfig,
    SquadDataConfig,
    StudentConfig,
)
from bnn_itrd.nlp.features import Batch, Window, make_windows, pad_windows, train_batches
from bnn_itrd.nlp.objective import QAObjective
from bnn_itrd.nlp.options import squad_config
from bnn_itrd.nlp.spans import answers, best_spans
from bnn_itrd.nlp.squad import Example
from bnn_itrd.runs.identity import weights_hash
from bnn_itrd.training.optimizer import learning_rate

# ---- metric


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Cat's,\that!", "cats hat"),
        ("A.B. an apple-a-day", "ab appleaday"),  # punctuation goes before articles
        ("theatre and a Thé", "theatre and thé"),  # articles are whole words
        ("an the a.", ""),
        ("5–4", "5–4"),  # noqa: RUF001  the official script keeps punctuation outside ASCII
    ],
)
def test_normalise_answer(text: str, expected: str) -> None:
    assert normalise_answer(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "f"),
    [
        ("the Eiffel Tower.", ["Eiffel Tower"], 1, 1),
        ("in the year 1990", ["1990"], 0, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
        ("to be or not to be", ["to be"], 0, 0.5),  # as multisets: P = 2/6, R = 1
        ("red hat", ["a blue hat", "the red hat!"], 1, 1),  # the best of the gold answers
        ("red hat", ["blue hat", "old red hat"], 0, 0.8),
        ("Rome", ["Paris"], 0, 0),
        ("the", ["a"], 1, 0),  # nothing left of both: equal, but no common word
        ("", ["Paris"], 0, 0),
    ],
)
def test_exact_match_and_f1_by_hand(prediction: str, golds: list[str], em: float, f: float) -> None:
    assert exact_match(prediction, golds) == em
    assert f1(prediction, golds) == pytest.approx(f)


def test_score_is_the_mean_over_all_questions() -> None:
    golds = {"1": ["Rome"], "2": ["red hat"], "3": ["1990"], "4": ["x"]}
    made = score_answers({"1": "Rome.", "2": "hat", "3": "in 1990"}, golds)  # nothing for 4
    assert made["em"] == pytest.approx(25.0)
    assert made["f1"] == pytest.approx(100 * (1 + 2 / 3 + 2 / 3) / 4)
    with pytest.raises(ValueError, match="at least one question, got none"):
        score_answers({}, {})


# ---- JSON


def tree(*paragraphs: tuple[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """SQuAD's tree of (context, [(question, answer)])."""
    made = []
    for p, (context, pairs) in enumerate(paragraphs):
        qas = [
            {"id": f"q{p}.{i}", "question": q, "answers": [{"text": a, "answer_start": context.index(a)}]}
            for i, (q, a) in enumerate(pairs)
        ]
        made.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": made}]}


ZURICH = "Zürich lies in Switzerland. Its lake, the Zürichsee, is 88 km² large; ETH was founded in 1855."
TURING = "Alan Turing was born in London in 1912. He worked at Bletchley Park and liked to run."
APPLES = "The red apples cost 3 euros. The green pears cost 5 euros, but the plums are free."
HAND_MADE = tree(
    (ZURICH, [("Where is the city?", "Switzerland"), ("Which lake is it?", "Zürichsee"), ("How large?", "88 km²"),
              ("When was ETH founded?", "1855")]),
    (TURING, [("Who is this about?", "Alan Turing"), ("Where was he born?", "London"), ("When was he born?", "1912"),
              ("Where did he work?", "Bletchley Park")]),
    (APPLES, [("What costs 3 euros?", "The red apples"), ("What costs 5 euros?", "green pears"),
              ("What do pears cost?", "5 euros"), ("What is free?", "plums")]),
)  # fmt: skip


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


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_reading_squad(tmp_path: Path) -> None:
    examples = read_squad(write_json(tmp_path / "a.json", HAND_MADE), training=True)
    assert len(examples) == 12
    for example in examples:
        assert example.start is not None and example.context[example.start :].startswith(example.answers[0])
    assert examples[1].answers == ("Zürichsee",) and examples[1].start == ZURICH.index("Zürichsee")


def damaged(change: str) -> Any:
    made = json.loads(json.dumps(HAND_MADE))
    question = made["data"][0]["paragraphs"][0]["qas"][1]
    if change == "moved":
        question["answers"][0]["answer_start"] += 5
    elif change == "twice":
        question["id"] = "q0.0"
    elif change == "unanswerable":
        question["answers"] = []
    elif change == "no text":
        question["answers"] = [{"answer_start": 3}]
    elif change == "no context":
        del made["data"][0]["paragraphs"][2]["context"]
    elif change == "empty":
        made["data"] = []
    elif change == "list":
        made = []
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("moved", "question 'q0.1': the context does not hold 'Zürichsee' at its answer_start"),
        ("twice", "the question id 'q0.0' is given twice"),
        ("unanswerable", r"data\[0\].paragraphs\[0\].qas\[1\]: question 'q0.1' has no answer: SQuAD 2.0"),
        ("no text", r"qas\[1\].answers\[0\] must have 'text', a str"),
        ("no context", r"paragraphs\[2\] must have 'context', a str: is this SQuAD 1.1\?"),
        ("empty", "holds no question"),
        ("list", "must have 'data', a list"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_squad(write_json(tmp_path / "a.json", damaged(change)), training=True)


def test_small_shifts_are_mended_and_evaluation_reads_texts_alone(tmp_path: Path) -> None:
    made = json.loads(json.dumps(HAND_MADE))
    for shift in (-2, -1, 1, 2):
        question = made["data"][0]["paragraphs"][0]["qas"][0]
        question["answers"][0]["answer_start"] = ZURICH.index("Switzerland") + shift
        examples = read_squad(write_json(tmp_path / "a.json", made), training=True)
        assert examples[0].start == ZURICH.index("Switzerland")
    path = write_json(tmp_path / "b.json", damaged("moved"))
    assert read_squad(path, training=False)[1].start is None
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        read_squad(tmp_path / "c.json", training=True)
    with pytest.raises(UserError, match="no file .*: SQuAD 1.1 is train-v1.1.json"):
        read_squad(tmp_path / "none.json", training=True)


# ---- spans


@pytest.mark.parametrize("length", [1, 2, 7, 23])
def test_best_spans_are_those_of_a_search_over_all(length: int) -> None:
    rng = np.random.default_rng(length)
    for ties in (False, True):
        start, end = rng.normal(size=(2, length))
        if ties:
            start, end = start.round(), end.round()
        for max_answer in (1, 3, 40):
            every = [(-(start[i] + end[j]), i, j) for i in range(length) for j in range(i, min(i + max_answer, length))]
            expected = [(i, j) for _, i, j in sorted(every)[:6]]
            made = best_spans(start, end, n_best=6, max_answer=max_answer)
            assert [(i, j) for i, j, _ in made] == expected
            assert all(s == pytest.approx(start[i] + end[j]) for i, j, s in made)


def test_the_best_span_of_all_windows_is_cut_from_the_context() -> None:
    context = "Über  den Wolken"  # two spaces: the text is the original's, not words joined again
    offsets = np.array([[0, 4], [6, 9], [10, 16]], dtype=np.int32)
    ids = np.zeros(7, dtype=np.int32)
    windows = [Window(0, ids, 3, offsets[:2], (0, 0)), Window(0, ids, 3, offsets[1:], (0, 0))]
    example = Example("x", "?", context, ("den",), 6)
    low = np.full(9, -9.0)  # longer than the window: padding

    def logits(**at: float) -> np.ndarray:
        made = low.copy()
        made[[int(k[1:]) for k in at]] = list(at.values())
        return made

    # [CLS], question and padding have high logits too: they are no answers.
    first = (logits(p0=50, p1=50, p3=1.0, p8=50), logits(p0=50, p4=1.5, p7=50))
    second = (logits(p3=1.0, p0=50), logits(p3=1.2, p4=0.0, p8=50))
    made = answers([example], windows, [first, second], n_best=3, max_answer=8)["x"]
    assert [(a.text, a.score) for a in made[:2]] == [("Über  den", 2.5), ("den", 2.2)]
    assert len({(a.start, a.end) for a in made}) == 3, "a span that two windows hold comes once"
    assert answers([example], windows, [first, second], n_best=1, max_answer=1)["x"][0].text == "den"


# ---- what needs transformers


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
SMALL = SquadDataConfig(max_length=64, doc_stride=16, max_question=16, n_best=5, max_answer=8)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert") / "b", TEXTS)


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return read_squad(write_json(tmp_path_factory.mktemp("json") / "a.json", HAND_MADE), training=True)


def test_a_short_context_is_one_window_as_the_tokenizer_makes_it(bert: Path, questions: list[Example]) -> None:
    tokenizer = load_tokenizer(bert)
    windows = make_windows(questions, tokenizer, SMALL)
    assert [w.example for w in windows] == list(range(12))
    for example, window in zip(questions, windows, strict=True):
        pair = tokenizer(example.question, example.context, return_token_type_ids=True)
        assert window.ids.tolist() == pair["input_ids"]
        assert example.start is not None
        ends = (example.start, example.start + len(example.answers[0]) - 1)
        assert window.target == tuple(pair.char_to_token(0, place, sequence_index=1) for place in ends)
        batch = pad_windows([window], pad_id=0)
        assert batch.segments[0].tolist() == pair["token_type_ids"]
        assert 1 not in window.ids, "every word of the hand-made file is in its vocabulary"


def test_windows_cover_a_long_context_and_map_the_answer(bert: Path, questions: list[Example]) -> None:
    tokenizer = load_tokenizer(bert)
    short = SquadDataConfig(max_length=20, doc_stride=4, max_question=5, max_answer=8)
    windows = make_windows(questions, tokenizer, short)
    for index, example in enumerate(questions):
        own = [w for w in windows if w.example == index]
        tokens = tokenizer(example.context, add_special_tokens=False, return_offsets_mapping=True)
        offsets = [tuple(o) for o in tokens["offset_mapping"]]
        question = tokenizer(example.question, add_special_tokens=False)["input_ids"][:5]
        starts = [offsets.index(tuple(w.offsets[0])) for w in own]
        assert len(own) > 2 and starts == list(range(0, 4 * len(own), 4))
        assert {tuple(o) for w in own for o in w.offsets} == set(offsets), "no token is lost"
        held = 0
        for window, low in zip(own, starts, strict=True):
            inside = tokens["input_ids"][low : low + len(window.offsets)]
            assert window.ids.tolist() == [2, *question, 3, *inside, 3] and len(window.ids) <= 20
            text = [example.context[a:b] for a, b in window.offsets]
            assert example.start is not None
            end = example.start + len(example.answers[0])
            whole = window.offsets[0][0] <= example.start and end <= window.offsets[-1][1]
            assert (window.target != (0, 0)) == whole
            if whole:
                held += 1
                i, j = (place - window.context for place in window.target)
                assert example.context[window.offsets[i][0] : window.offsets[j][1]] == example.answers[0], text
        assert held >= 1


def test_answers_inside_a_token_and_without_one(bert: Path) -> None:
    tokenizer = load_tokenizer(bert)
    inside = Example("a", "Which lake?", ZURICH, ("ETH was found",), ZURICH.index("ETH"))
    window = make_windows([inside], tokenizer, SMALL)[0]
    i, j = (place - window.context for place in window.target)
    assert ZURICH[window.offsets[i][0] : window.offsets[j][1]] == "ETH was founded", "a token that is cut counts whole"
    space = Example("b", "Which lake?", ZURICH, (" ",), ZURICH.index(" lies"))
    assert make_windows([space], tokenizer, SMALL)[0].target == (0, 0)
    with pytest.raises(UserError, match="question 'c': its context has no token"):
        make_windows([Example("c", "Which lake?", " ", ("x",), None)], tokenizer, SMALL)
    slow = type("Slow", (), {"is_fast": False})()
    with pytest.raises(UserError, match="Slow knows no character offsets"):
        make_windows([inside], slow, SMALL)


def batch_of(bert: Path, questions: list[Example], *, max_rows: int | None = None, seed: int = 0) -> Batch:
    windows = make_windows(questions, load_tokenizer(bert), SMALL)
    return pad_windows([windows[i] for i in (0, 5, 9)], pad_id=0, max_rows=max_rows, seed=seed)


def test_rows_are_the_tokens_that_are_not_padding(bert: Path, questions: list[Example]) -> None:
    batch = batch_of(bert, questions)
    size = batch.ids.shape[1]
    assert batch.mask.sum() < batch.mask.numel(), "the test needs padding"
    expected = [b * size + t for b in range(3) for t in range(size) if batch.ids[b, t] != 0]
    assert batch.rows.tolist() == expected
    few = batch_of(bert, questions, max_rows=7, seed=1).rows
    assert len(few) == 7 and set(few.tolist()) < set(expected)
    assert torch.equal(few, batch_of(bert, questions, max_rows=7, seed=1).rows)
    assert not torch.equal(few, batch_of(bert, questions, max_rows=7, seed=2).rows)
    assert batch_of(bert, questions, max_rows=len(expected)).rows.tolist() == expected


def test_an_epoch_of_batches_is_a_function_of_seed_and_epoch(bert: Path, questions: list[Example]) -> None:
    windows = make_windows(questions, load_tokenizer(bert), SMALL)

    def epoch(seed: int, number: int) -> list[list[int]]:
        made = train_batches(windows, 5, pad_id=0, max_rows=9, seed=seed, epoch=number)
        return [batch.ids.flatten().tolist() + batch.rows.tolist() for batch in made]

    assert epoch(0, 0) == epoch(0, 0) and len(epoch(0, 0)) == 2, "12 windows: two full batches of 5"
    assert epoch(0, 0) != epoch(0, 1) and epoch(0, 0) != epoch(1, 0)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(6, 12, (2, 4, 6, 8, 10, 12)), (3, 12, (4, 8, 12)), (4, 4, (1, 2, 3, 4)), (1, 4, (4,))],
)
def test_layer_map(student: int, teacher: int, expected: tuple[int, ...]) -> None:
    assert layer_map(student, teacher) == expected


@pytest.mark.parametrize("student", [5, 8, 24, 0])
def test_layers_that_do_not_divide_are_refused(student: int) -> None:
    with pytest.raises(UserError, match=f"layers must divide the teacher's 12, got {student}"):
        layer_map(student, 12)


def test_a_student_is_every_second_layer_of_its_teacher(bert: Path) -> None:
    torch.manual_seed(0)
    teacher = load_bert(bert, random_init=True).eval()
    student = make_student(teacher, 2).eval()
    theirs = teacher.state_dict()
    for name, value in student.state_dict().items():
        for own, kept in (("layer.0.", "layer.1."), ("layer.1.", "layer.3.")):
            if own in name:
                name = name.replace(own, kept)
                break
        assert torch.equal(value, theirs[name]), name
    assert student.config.num_hidden_layers == 2 and teacher.config.num_hidden_layers == 4
    same = make_student(teacher, 4).eval()
    ids = torch.arange(12).reshape(2, 6)
    assert torch.equal(same(input_ids=ids).start_logits, teacher(input_ids=ids).start_logits)
    student.qa_outputs.weight.data.zero_()
    assert teacher.qa_outputs.weight.abs().sum() > 0, "a student shares no memory with its teacher"


# ---- the objective


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(student: Any, teacher: Any, objective: QAObjective, batch: Batch, *, alpha: float, tau: float) -> list:
    """[ce, kd, itrd] in float64 with loops: unpadded windows, one at a time, through the networks."""
    ce = kd = 0.0
    n = len(batch.ids)
    hidden: dict[str, list[list[np.ndarray]]] = {"s": [], "t": []}
    for b in range(n):
        size = int(batch.mask[b].sum())
        cut = {"input_ids": batch.ids[b : b + 1, :size], "token_type_ids": batch.segments[b : b + 1, :size]}
        with torch.no_grad():
            outs = {k: m(**cut, output_hidden_states=True) for k, m in (("s", student), ("t", teacher))}
        for k, out in outs.items():
            hidden[k].append([h[0].numpy() for h in out.hidden_states])
        for field, target in (("start_logits", batch.start), ("end_logits", batch.end)):
            s, t = (outs[k][field][0].numpy() for k in "st")
            ce -= np.log(softmax(s)[int(target[b])]) / 2 / n
            p, q = softmax(t / tau), softmax(s / tau)
            kd += tau**2 * sum(p[i] * np.log(p[i] / q[i]) for i in range(size)) / 2 / n
    itrd = 0.0
    for layer, (own, number) in enumerate(((1, 2), (2, 4))):
        z_s = np.concatenate([h[own] for h in hidden["s"]])
        z_t = np.concatenate([h[number] for h in hidden["t"]])
        embed = objective.embeds[layer].embed
        mapped = z_s @ embed.weight.detach().numpy().T + embed.bias.detach().numpy()
        total = 0.0
        for i in range(z_t.shape[1]):
            a, b = mapped[:, i], z_t[:, i]
            v = ((a - a.mean()) / a.std(ddof=1) * (b - b.mean()) / b.std(ddof=1)).mean()
            total += abs(v - 1) ** (2 * alpha)
        z_s, z_t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z_s, z_t))
        g_s = z_s @ z_s.T
        g_st = g_s * (z_t @ z_t.T)
        mi = ((g_s / np.trace(g_s)) ** 2).sum() - ((g_st / np.trace(g_st)) ** 2).sum()
        itrd += 2.0 * np.log2(total) + 1.0 * mi
    return [0.5 * ce, 0.7 * kd, itrd]


def objective_of(bert: Path, **changes: Any) -> tuple[QAObjective, Any]:
    """An objective in float64 without dropout: a student of 2 layers moved off its teacher of 4."""
    torch.manual_seed(1)
    teacher = load_bert(bert, random_init=True).double().eval()
    student = make_student(teacher, 2).double().eval()
    with torch.no_grad():
        for p in [*student.parameters(), *teacher.parameters()]:
            p += 0.05 * torch.randn_like(p)
    config = StudentConfig(2, ce=0.5, kd=LogitKDConfig(0.7, 3.0), itrd=LayerITRDConfig(alpha=1.5, **changes))
    return QAObjective(student, teacher, config).double().eval(), teacher


def test_the_objective_is_that_of_loops_over_unpadded_windows(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    batch = batch_of(bert, questions)
    loss, parts = objective(batch)
    expected = reference(objective.student, teacher, objective, batch, alpha=1.5, tau=3.0)
    assert objective.names == ("ce", "kd", "itrd")
    np.testing.assert_allclose(parts.numpy(), expected, rtol=1e-9)
    assert loss.item() == pytest.approx(sum(expected))


def test_padding_never_enters_the_loss_or_its_gradients(bert: Path, questions: list[Example]) -> None:
    objective, _ = objective_of(bert)
    batch = batch_of(bert, questions)

    def step(given: Batch) -> tuple[float, list[torch.Tensor]]:
        objective.zero_grad(set_to_none=False)
        loss, _ = objective(given)
        loss.backward()
        return loss.item(), [torch.zeros(1) if p.grad is None else p.grad.clone() for p in objective.parameters()]

    def close(other: Batch) -> None:
        loss, gradients = step(other)
        assert loss == pytest.approx(plain, rel=1e-12)
        for a, b in zip(gradients, plain_gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

    plain, plain_gradients = step(batch)
    assert sum(float(g.abs().sum()) for g in plain_gradients) > 0
    noise = torch.randint(5, 20, batch.ids.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(batch.mask == 1, batch.ids, noise)
    assert not torch.equal(other, batch.ids)
    close(batch._replace(ids=other))
    close(batch._replace(segments=torch.where(batch.mask == 1, batch.segments, 1)))
    wide = [torch.nn.functional.pad(t, (0, 4)) for t in batch[:3]]
    close(Batch(*wide, batch.start, batch.end, torch.nonzero(wide[1].flatten()).flatten()))

    # The same test can fail: a real token counts, and so would padding among the rows.
    first = batch.ids.clone()
    first[0, 1] = 7
    assert step(batch._replace(ids=first))[0] != pytest.approx(plain, rel=1e-6)
    every = torch.arange(batch.ids.numel())
    assert step(batch._replace(rows=every))[0] != pytest.approx(plain, rel=1e-6)


def test_only_the_student_and_the_embeddings_learn(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    assert not any(p.requires_grad for p in teacher.parameters())
    names = {name.split(".")[0] for name in objective.state_dict()}
    assert names == {"student", "embeds"} and len(objective.embeds) == 2
    loss, _ = objective.train()(batch_of(bert, questions, max_rows=9))
    loss.backward()
    assert not teacher.training
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    with pytest.raises(ValueError, match="kd, itrd and hidden need a teacher"):
        QAObjective(objective.student, None, StudentConfig(kd=LogitKDConfig()))


def test_a_term_that_is_off_is_not_computed(bert: Path, questions: list[Example]) -> None:
    objective, teacher = objective_of(bert)
    plain = QAObjective(objective.student, teacher, StudentConfig(2)).eval()
    assert plain.names == ("ce",) and len(plain.embeds) == 0
    only = QAObjective(objective.student, teacher, StudentConfig(2, ce=0.0, kd=LogitKDConfig(0.7, 3.0))).eval()
    batch = batch_of(bert, questions)
    assert only.names == ("kd",)
    torch.testing.assert_close(only(batch)[0], objective(batch)[1][1])
    torch.testing.assert_close(plain(batch)[0], 2 * objective(batch)[1][0])


def test_hidden_states_are_those_of_the_matched_layers(bert: Path, questions: list[Example]) -> None:
    """Against unpadded windows, one at a time: the embeddings, and student layers 1, 2 beside 2, 4 of the teacher."""
    objective, teacher = objective_of(bert)
    config = StudentConfig(2, ce=0.0, hidden=HiddenConfig(mse=0.5, mmd=3.0, cosine=2.0))
    hidden = QAObjective(objective.student, teacher, config).double().eval()
    assert hidden.names == ("hidden",) and not [*hidden.embeds]
    batch = batch_of(bert, questions)
    seen: dict[str, list[list[np.ndarray]]] = {"s": [], "t": []}
    for b in range(len(batch.ids)):
        size = int(batch.mask[b].sum())
        cut = {"input_ids": batch.ids[b : b + 1, :size], "token_type_ids": batch.segments[b : b + 1, :size]}
        for key, model in (("s", objective.student), ("t", teacher)):
            with torch.no_grad():
                states = model(**cut, output_hidden_states=True).hidden_states
            seen[key].append([h[0].numpy() for h in states])
    expected = 0.0
    for own, number in ((0, 0), (1, 2), (2, 4)):
        pairs = [(s[own], t[number]) for s, t in zip(seen["s"], seen["t"], strict=True)]
        tokens = [np.concatenate([pair[k] for pair in pairs]) for k in (0, 1)]
        expected += 0.5 * ((tokens[0] - tokens[1]) ** 2).mean()
        grams = [((s @ s.T - t @ t.T) / s.shape[1]).ravel() for s, t in pairs]
        expected += 3.0 * (np.concatenate(grams) ** 2).mean()
    s, t = tokens
    expected += 2.0 * (1 - ((s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)).mean())
    assert hidden(batch)[0].item() == pytest.approx(expected, rel=1e-9)


def test_learning_rate_rises_and_falls_linearly() -> None:
    rates = [learning_rate(s, steps=10, warmup=4, peak=2.0, schedule="linear") for s in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2 * 5 / 6, 2 * 4 / 6, 1.0, 2 * 2 / 6, 2 / 6])
    assert learning_rate(0, steps=3, warmup=0, peak=1.0, schedule="linear") == 1.0


# ---- the road


EPOCHS = {"teacher": 24, "s2": 18, "s2-itrd": 18}


def arguments(root: Path, bert: Path, out: Path, *more: str) -> list[str]:
    students = "{s2: {layers: 2}, s2-itrd: {layers: 2, kd: {tau: 4.0}, itrd: {max_tokens: 64}}}"
    training = [
        f"--{name}.{field}"
        for name, epochs in (("train", EPOCHS["s2"]), ("teacher_train", EPOCHS["teacher"]))
        for field in (f"epochs={epochs}", "batch_size=12", "lr=4e-3")
    ]
    return [
        "run", "squad", f"--data.root={root}", f"--pretrained={bert}", "--random_init=true", f"--out={out}",
        "--data.max_length=64", "--data.doc_stride=16", "--data.max_question=16", "--data.max_answer=8",
        "--fabric.accelerator=cpu", "--fabric.threads=1", "--log.tensorboard=false", "--log.progress=false",
        *training, f"--students={students}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-made questions as both splits, in training five times: what is learned by heart is asked again."""
    root = tmp_path_factory.mktemp("squad")
    write_json(root / "train-v1.1.json", repeated(5))
    write_json(root / "dev-v1.1.json", HAND_MADE)
    return root


@pytest.fixture(scope="module")
def road(squad: Path, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with the network out of reach."""
    out = tmp_path_factory.mktemp("road")

    def refuse(*_: Any) -> None:
        raise AssertionError("the network was touched")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        assert main(arguments(squad, bert, out)) == 0
    return out


def test_the_road_learns_the_hand_made_questions(road: Path, squad: Path) -> None:
    comparison = json.loads((road / "comparison.json").read_text())
    assert comparison["task"] == "squad"
    assert (comparison["dataset"]["train"], comparison["dataset"]["test"]) == (60, 12)
    rows = {row["name"]: row for row in comparison["models"]}
    assert list(rows) == ["teacher", "s2", "s2-itrd"]
    assert [row["layers"] for row in rows.values()] == [4, 2, 2]
    assert rows["s2-itrd"]["teacher_layers"] == [2, 4] and rows["s2"]["teacher_layers"] is None
    golds = {q["id"]: q["answers"] for p in HAND_MADE["data"][0]["paragraphs"] for q in p["qas"]}
    for name, row in rows.items():
        assert row["em_last"] == row["f1_last"] == 100.0, name
        predictions = json.loads((road / name / "predictions.json").read_text())
        assert predictions == {key: answers[0]["text"] for key, answers in golds.items()}, name
        best = json.loads((road / name / "nbest.json").read_text())
        assert all(len(found) == 20 and found[0]["text"] == predictions[key] for key, found in best.items())
        assert all(a["score"] >= b["score"] for found in best.values() for a, b in itertools.pairwise(found))
        metrics = (road / name / "metrics.csv").read_text().splitlines()
        assert len(metrics) == 1 + EPOCHS[name]
        expected = ["loss_ce"] if name != "s2-itrd" else ["loss_ce", "loss_kd", "loss_itrd"]
        assert [c for c in metrics[0].split(",") if c.startswith("loss_")] == expected
        assert (road / name / "environment.json").is_file() and (road / name / "config.yaml").is_file()
    assert yaml.safe_load((road / "config.yaml").read_text())["task"] == "squad"


def test_a_saved_student_opens_in_transformers_and_answers_alike(road: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertForQuestionAnswering.from_pretrained(road / "s2-itrd" / "model", local_files_only=True)
    tokenizer = load_tokenizer(road / "s2-itrd" / "model")
    asked = ("Where was he born?", TURING)
    pair = tokenizer(*asked, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
    offsets = pair.pop("offset_mapping")[0]
    with torch.no_grad():
        out = model.eval()(**pair)
    i, j = int(out.start_logits.argmax()), int(out.end_logits.argmax())
    assert TURING[offsets[i][0] : offsets[j][1]] == "London"


def test_the_same_command_again_changes_nothing_and_another_is_refused(
    road: Path, squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in road.rglob("last.pt")}
    rows = (road / "s2" / "metrics.csv").read_bytes()
    assert main(arguments(squad, bert, road)) == 0
    assert len(before) == 3 and all(p.read_bytes() == content for p, content in before.items())
    assert (road / "s2" / "metrics.csv").read_bytes() == rows
    capsys.readouterr()
    assert main(arguments(squad, bert, road, "--train.lr=1e-3")) == 2
    assert "train.lr: 0.004 there, 0.001 given" in capsys.readouterr().err
    other = json.loads(json.dumps(HAND_MADE))
    other["data"][0]["paragraphs"][2]["qas"][3]["question"] = "What is red?"
    write_json(tmp_path / "train-v1.1.json", other)
    write_json(tmp_path / "dev-v1.1.json", other)
    assert main(arguments(tmp_path, bert, road)) == 2
    assert "sha256.train" in capsys.readouterr().err
    assert main(["compare", str(road)]) == 2
    assert "another task (squad)" in capsys.readouterr().err


def test_a_run_that_was_killed_continues_exactly(
    road: Path, squad: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnn_itrd.nlp import training

    seen = 0
    plain = training.evaluate_answers

    def killed(*given: Any, **named: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:
            raise KeyboardInterrupt
        return plain(*given, **named)

    more = ["--member=s2-itrd", f"--teacher={road}"]
    command = ["train", *arguments(squad, bert, tmp_path, *more)[1:]]
    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_answers", killed)
        assert main(command) == 130
    assert len((tmp_path / "s2-itrd" / "metrics.csv").read_text().splitlines()) == 5
    assert main(command) == 0
    there, here = (torch.load(p / "s2-itrd" / "last.pt", weights_only=True) for p in (road, tmp_path))
    assert there["identity"]["teacher_sha256"] == here["identity"]["teacher_sha256"]
    for name, value in there["objective"].items():
        assert torch.equal(value, here["objective"][name]), name
    assert not (tmp_path / "teacher" / "last.pt").exists() and not (tmp_path / "s2").exists()


def test_one_student_takes_the_teacher_of_its_folder(
    road: Path, squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *arguments(squad, bert, tmp_path, "--member=s2", "--train.epochs=1")[1:]]
    assert main(command) == 2
    assert "s2 learns from a teacher: give --teacher PATH" in capsys.readouterr().err
    shutil.copytree(road / "teacher" / "model", tmp_path / "teacher" / "model")
    assert main(command) == 0
    identity = torch.load(tmp_path / "s2" / "last.pt", weights_only=True)["identity"]
    assert identity["teacher_sha256"] == weights_hash(load_bert(road / "teacher" / "model"))
    assert not (tmp_path / "comparison.json").exists()


def test_the_tiny_recipe_brings_its_own_questions(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert main([
        "run", "squad-tiny", f"--out={tmp_path}", "--train.epochs=1", "--teacher_train.epochs=1",
        "--students={t1: {layers: 1, itrd: {max_tokens: 64}}}", "--fabric.accelerator=cpu", "--fabric.threads=1",
        "--log.tensorboard=false", "--log.progress=false",
    ]) == 0  # fmt: skip
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["dataset"]["name"] == "tiny" and comparison["dataset"]["train"] == 768
    assert all(read_squad(tmp_path / "tiny" / name, training=True) for name in ("train-v1.1.json", "dev-v1.1.json"))


# ---- configuration and bad input


def parsed(*given: str, recipe: str = "squad") -> SquadConfig:
    return squad_config("run", "", recipes.read(recipe), given, extra={"out": "folder"})[0]


def test_the_recipe_holds_what_the_papers_say() -> None:
    made = parsed()
    assert [s.layers for s in made.students.values()] == [6, 6, 6, 6, 3, 3, 3]
    for name in ("t6-itrd", "t3-itrd"):
        itrd, kd = made.students[name].itrd, made.students[name].kd
        assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (1.01, 2.0, 1.0)
        assert kd is not None and kd.tau == 8.0
    assert (made.teacher_train.epochs, made.teacher_train.lr, made.train.lr) == (3, 5e-5, 1e-4)
    assert {s.layers for s in parsed(recipe="squad-tiny").students.values()} == {2, 1}


def test_fields_from_the_command_line() -> None:
    made = parsed(
        "--seed=7", "--train.lr", "2e-4", "--students.t6.itrd.max_tokens=99", "--students.mine.layers", "4",
        "--students.mine.kd.tau=2",
    )  # fmt: skip
    assert (made.train.seed, made.teacher_train.seed, made.train.lr) == (7, 7, 2e-4)
    t6, mine = made.students["t6"], made.students["mine"]
    assert t6.itrd is not None and t6.itrd.max_tokens == 99 and t6.itrd.beta_corr == 2.0
    assert mine.layers == 4 and mine.kd is not None and mine.kd.tau == 2.0 and mine.itrd is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--train.lrr=1"], "unknown option '--train.lrr'.*did you mean '--train.lr'"),
        (["--train.lr=much"], "train.lr"),
        (["--train.epochs=0"], "train.epochs must be in .1, 1000000. .--train.epochs 30., got 0"),
        (["--data.max_length=100"], "data.max_length must be >= max_question .* = 195.*got 100"),
        (["--students.t6.layer=3"], "unknown field of students.t6 'layer'.*did you mean 'layers'"),
        (["--students.t6.ce=0"], "students.t6: ce must be > 0 for a student without kd, itrd and hidden, got 0"),
        (["--students.t6.itrd.max_tokens=1"], "itrd.max_tokens must be >= 2, got 1"),
        (["--students={teacher: {}}"], "'teacher' cannot be a student's name"),
        (["--fabric.devices=2"], "runs in one process, got 2"),
        (["stray"], "unexpected 'stray'"),
        (["--train.lr"], "--train.lr needs a value"),
    ],
)
def test_bad_fields_are_told(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "squad", *given]) == 2
    import re

    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def test_other_commands_refuse_the_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["summary", "squad"]) == 2
    assert "takes recipes of images" in capsys.readouterr().err
    path = tmp_path / "mine.yaml"
    path.write_text("task: sqaud\n")
    assert main(["run", str(path)]) == 2
    assert "task must be 'squad' or absent, got 'sqaud'" in capsys.readouterr().err
    assert main(["train", "squad"]) == 2
    assert "--member is missing: one of teacher, t6" in capsys.readouterr().err


def test_without_transformers_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["run", "squad", f"--data.root={tmp_path}", f"--out={tmp_path / 'out'}"]) == 2
    assert 'pip install "bnn-itrd[nlp]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_folders_are_told_before_any_training(
    squad: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")

    def error(*more: str, drop: str = "--nothing") -> str:
        given = [a for a in arguments(squad, bert, tmp_path / "out", *more) if not a.startswith(drop)]
        assert main(given) == 2
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "give the folder of train-v1.1.json" in error(drop="--data.root")
    assert "--teacher, or a pre-trained one with --pretrained" in error(drop="--pretrained")
    assert "no folder nowhere" in error("--pretrained=nowhere")
    assert "cannot be read as a BERT" in error("--random_init=false")  # config.json alone
    assert "students.odd.layers must divide the teacher's 4, got 3" in error("--students={odd: {layers: 3}}")
    assert "data.max_length must be <= 64" in error("--data.max_length=65")
    assert "no tokenizer in" in error(f"--pretrained={squad}")
    head = tmp_path / "pretrained"
    transformers.BertModel(transformers.AutoConfig.from_pretrained(bert)).save_pretrained(head)
    load_tokenizer(bert).save_pretrained(head)
    assert "has no answer head" in error(f"--teacher={head}")
    assert load_bert(head).qa_outputs.weight.shape == (2, 32)
    other = json.loads((bert / "config.json").read_text()) | {"model_type": "distilbert"}
    write_json(head / "config.json", other)
    assert "of type 'distilbert': only 'bert'" in error(f"--pretrained={head}")
    small = json.loads((bert / "config.json").read_text()) | {"vocab_size": 9}
    write_json(head / "config.json", small)
    assert "the BERT knows 9" in error(f"--pretrained={head}")
    assert "teacher_train.batch_size 61 is larger than the 60 windows" in error("--teacher_train.batch_size=61")
