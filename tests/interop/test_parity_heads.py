"""What is published for several labels, a number or answers, used by transformers; --verify of every head."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch", reason="parity needs the extra hf: pip install -e '.[hf]'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")

from research import conversion  # noqa: E402
from research.conversion import verify, write_published  # noqa: E402
from research.convert import main as convert  # noqa: E402
from research.data.labelled import encode_rows  # noqa: E402
from research.data.question_answering import encode_questions  # noqa: E402
from research.inference import label, regress  # noqa: E402
from research.trained import text_model  # noqa: E402
from tests.drawn import BERT_POOLED, FAMILIES, LENGTH, draw, write_run  # noqa: E402

pytestmark = pytest.mark.parity

TARGETS = dict(target_mean=71.5, target_scale=12.25)
TEXTS = ["w7 w8 w9", "w30 w5", "w9 w10 w11 w12 w39"]


def pipeline(folder):
    return transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)


def ours(trained):
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=LENGTH)
    return text_model(trained.model, trained.params, trained.spec, trained.about), [(text,) for text in TEXTS], encode


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_pipeline_gives_each_label_our_probability(name, tmp_path):
    trained = draw(*FAMILIES[f"{name} multi_label"])
    write_published(tmp_path, trained)
    model, texts, encode = ours(trained)
    found = pipeline(tmp_path)(TEXTS)
    for theirs, answer in zip(found, label(model, texts, encode=encode), strict=True):
        assert {each["label"]: each["score"] for each in theirs} == pytest.approx(answer["probabilities"], abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_pipeline_gives_the_number_in_its_own_units(name, tmp_path):
    trained = draw(name, "regression", BERT_POOLED, targets=TARGETS)
    write_published(tmp_path, trained)
    model, texts, encode = ours(trained)
    told = dict(mean=TARGETS["target_mean"], scale=TARGETS["target_scale"])
    wanted = [answer["value"] for answer in regress(model, texts, encode=encode, **told)]
    assert np.ptp(wanted) > 1e-2
    found = pipeline(tmp_path)(TEXTS)
    assert [[each["label"] for each in theirs] for theirs in found] == [["stars"]] * 3
    assert [theirs[0]["score"] for theirs in found] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.endswith("question_answering")])
def test_an_exported_model_finds_answers_where_ours_does(family, tmp_path):
    trained = draw(*FAMILIES[family])
    write_published(tmp_path, trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path).eval()
    question, context = "w7 w8", "w20 w21 w22 w23"
    rows = encode_questions([(question, context)], trained.tokenizer, length=LENGTH, max_question=4, stride=1).rows(
        np.arange(1)
    )
    batch = {key: jnp.asarray(value) for key, value in rows.items()}
    given = tokenizer(question, context, return_tensors="pt")
    size = given["input_ids"].shape[1]
    assert rows["segment_ids"].sum() == size
    assert rows["tokens"][0, :size].tolist() == given["input_ids"][0].tolist()
    if family.startswith("bert"):
        assert rows["token_types"][0, :size].tolist() == given["token_type_ids"][0].tolist()
    with torch.no_grad():
        found = model(**given)
    wanted = trained.objective.outputs({"params": trained.params}, batch)
    allowed = rows["answer_mask"][0, :size]
    for name in ("start", "end"):
        logits = np.asarray(wanted[name])[0, :size][allowed]
        np.testing.assert_allclose(found[f"{name}_logits"][0].numpy()[allowed], logits, atol=1e-5 * abs(logits).max())
    assert np.abs(wanted["start"] - wanted["end"])[0, :size].max() > 0.1  # so that one is not taken for the other


@pytest.mark.parametrize("family", [*FAMILIES, "own units"])
def test_verify_compares_every_head(family, tmp_path, capsys):
    own_units = family == "own units"
    trained = draw("bert", "regression", BERT_POOLED, targets=TARGETS) if own_units else draw(*FAMILIES[family])
    write_run(tmp_path / "run", trained)
    assert convert([f"--from={tmp_path / 'run'}", f"--to={tmp_path / 'there'}", "--verify"]) == 0
    said = capsys.readouterr().out
    assert "vectors: largest difference" in said and "head: largest difference" in said
    assert convert([f"--from={tmp_path / 'there'}", f"--to={tmp_path / 'back'}", "--verify"]) == 0
    assert "head: largest difference" in capsys.readouterr().out


def test_verify_sees_start_and_end_exchanged(tmp_path):
    trained = draw(*FAMILIES["bert question_answering"])
    write_published(tmp_path, trained)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("weight", "bias"):
        tensors[f"qa_outputs.{name}"] = np.ascontiguousarray(tensors[f"qa_outputs.{name}"][::-1])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    said = []
    assert verify(tmp_path, trained, say=said.append) == 1
    assert said[-1].startswith("DIFFERENT")


@pytest.mark.parametrize("family", ["bert question_answering", "bert regression", "bert multi_label"])
def test_verify_fails_where_scores_have_another_shape(family, tmp_path, monkeypatch):
    trained = draw(*FAMILIES[family])
    write_published(tmp_path, trained)
    outputs = conversion.outputs
    monkeypatch.setattr(conversion, "outputs", lambda *inputs: (outputs(*inputs)[0], outputs(*inputs)[1][..., 0]))
    with pytest.raises(RuntimeError, match=r"^head: \[5.*\] here and \[5.*\] in transformers cannot be compared$"):
        verify(tmp_path, trained, say=lambda line: None)


def test_verify_says_that_pooling_is_left_to_others(tmp_path, capsys):
    """all-MiniLM and its like: the file has BERT's pooler, and modules.json another pooling."""
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=LENGTH,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "given")
    (tmp_path / "given" / "tokenizer.json").write_text(draw(*FAMILIES["bert"]).about["tokenizer"])
    kinds = ("Transformer", "Pooling")
    modules = [
        dict(path="p" * number, type=f"sentence_transformers.models.{kind}") for number, kind in enumerate(kinds)
    ]
    (tmp_path / "given" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "given" / "p").mkdir()
    (tmp_path / "given" / "p" / "config.json").write_text(json.dumps(dict(pooling_mode_mean_tokens=True)))
    assert convert([f"--from={tmp_path / 'given'}", f"--to={tmp_path / 'run'}", "--verify"]) == 0
    said = capsys.readouterr().out
    assert "head: not compared" in said and "vectors: largest difference" in said
