"""Every family and head against transformers, on models drawn at random: nothing is downloaded."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs the extra hf: pip install -e '.[hf]'")
transformers = pytest.importorskip("transformers", reason="parity needs the extra hf: pip install -e '.[hf]'")

from tokenizers import Tokenizer, models  # noqa: E402

from research.conversion import outputs, write_published  # noqa: E402
from research.data.labelled import encode_rows  # noqa: E402
from research.inference import Sampling, classify  # noqa: E402
from research.inference.generate import generate_tokens  # noqa: E402
from research.interop import read_folder, write_folder  # noqa: E402
from research.interop.tensor_files import read_tensors  # noqa: E402
from research.interop.verify import TOLERANCE, compare, draw_inputs, run  # noqa: E402
from research.models import MODELS  # noqa: E402
from research.trained import open_trained, text_model  # noqa: E402
from tests.drawn import FAMILIES  # noqa: E402
from tests.drawn import draw as draw_trained  # noqa: E402

pytestmark = pytest.mark.parity

VOCABULARY = 300

# (width, heads, depth, mlp): a small shape of odd sizes, and the real width.
SHAPES = {"small": (24, 3, 3, 40), "real": (768, 12, 2, 3072)}
ARCHITECTURES = [
    "BertModel",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "RobertaModel",
    "RobertaForMaskedLM",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "RobertaForQuestionAnswering",
    "GPT2Model",
    "GPT2LMHeadModel",
    "GPT2ForSequenceClassification",
    "GPT2ForQuestionAnswering",
    "LlamaModel",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
]
SINGLE = "single_label_classification"
PROBLEMS = {"multi_label_classification": "multi_label", "regression": "regression"}
CASES = [(architecture, "") for architecture in ARCHITECTURES]
CASES += [(name, problem) for name in ARCHITECTURES if "SequenceClassification" in name for problem in PROBLEMS]


def settings(architecture, shape, problem):
    width, heads, depth, mlp = SHAPES[shape]
    labels = dict(num_labels={"regression": 1}.get(problem, 2 if architecture.endswith("QuestionAnswering") else 3))
    labels |= dict(problem_type=problem) if problem else {}
    if architecture.startswith("GPT2"):
        sizes = dict(n_embd=width, n_head=heads, n_layer=depth, n_inner=mlp, n_positions=40)
        return transformers.GPT2Config(vocab_size=VOCABULARY, pad_token_id=0, **labels, **sizes)
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=depth, intermediate_size=mlp)
    sizes |= dict(vocab_size=VOCABULARY, max_position_embeddings=40, **labels)
    if architecture.startswith("Llama"):
        kv_heads = 1 if shape == "small" else 4
        return transformers.LlamaConfig(num_key_value_heads=kv_heads, pad_token_id=0, rope_theta=5e4, **sizes)
    if architecture.startswith("Roberta"):
        return transformers.RobertaConfig(type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **sizes)
    return transformers.BertConfig(**sizes)


def draw(architecture, shape, folder, problem=""):
    """A model of transformers with no parameter at its initial zero or one, saved, with a tokenizer of its size."""
    torch.manual_seed(3)
    model = getattr(transformers, architecture)(settings(architecture, shape, problem)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.tie_weights()
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def write_tokenizer(folder, size=VOCABULARY):
    vocabulary = {"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, "<mask>": 4} | {f"w{i}": i for i in range(5, size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<pad>", "<unk>", "<s>", "</s>", "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def special(pad_id):
    ids = {"pad_token_id": pad_id, "bos_token_id": 2, "eos_token_id": 3}
    return {"ids": ids, "tokens": {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("architecture", "problem"), CASES)
def test_values_agree_and_export_is_the_inverse(architecture, problem, shape, tmp_path):
    given = tmp_path / "given"
    model = draw(architecture, shape, given, problem)
    pad_id = model.config.pad_token_id
    tokens, mask, types = draw_inputs(VOCABULARY, pad_id=pad_id)
    real = mask == 1

    trained = open_trained(given)
    wanted_hidden, wanted_logits = run(model, tokens, mask, types)
    has_head = architecture not in ("GPT2Model", "LlamaModel")
    assert (wanted_logits is not None) == has_head
    found = compare(outputs(trained, tokens, mask, types), (wanted_hidden, wanted_logits), real, head=has_head)
    assert max(found.values()) < TOLERANCE

    published = read_folder(given)
    assert published.task == PROBLEMS.get(problem, published.task) == trained.about["objective"].get("name", "features")
    block = dict(trained.about["model"])
    exported = tmp_path / "exported"
    written = write_folder(
        exported,
        model=MODELS[block.pop("name")](**block),
        name=published.model["name"],
        head=trained.about["head"],
        task=published.task,
        params=published.params,
        tokenizer=published.tokenizer,
        label_names=published.label_names,
        **special(pad_id),
    )
    assert written == architecture
    first, second = read_tensors(given), read_tensors(exported)
    for name, array in second.items():
        if name.endswith("embeddings.position_embeddings.weight") and "Roberta" in architecture:
            offset = pad_id + 1  # the rows before are never looked up
            array, expected = array[offset:], first[name][offset:]
        else:
            expected = first[name]
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert not [name for name in first if name not in second and name not in published.unused]

    again = read_folder(exported)
    assert again.params.keys() == published.params.keys()
    for left, right in zip(leaves(published.params), leaves(again.params), strict=True):
        np.testing.assert_array_equal(left, right)
    reloaded = getattr(transformers, f"Auto{auto(architecture)}").from_pretrained(exported).eval()
    assert type(reloaded).__name__ == architecture and (reloaded.config.problem_type or "") in (problem, SINGLE)
    reloaded_hidden, reloaded_logits = run(reloaded, tokens, mask, types)
    np.testing.assert_array_equal(reloaded_hidden[real], wanted_hidden[real])
    if wanted_logits is not None:
        assert reloaded_logits is not None
        where = real if wanted_logits.ndim == 3 else slice(None)
        np.testing.assert_array_equal(reloaded_logits[where], wanted_logits[where])


def auto(architecture):
    for end, name in {
        "ForMaskedLM": "ModelForMaskedLM",
        "LMHeadModel": "ModelForCausalLM",
        "ForCausalLM": "ModelForCausalLM",
        "ForSequenceClassification": "ModelForSequenceClassification",
        "ForTokenClassification": "ModelForTokenClassification",
        "ForQuestionAnswering": "ModelForQuestionAnswering",
    }.items():
        if architecture.endswith(end):
            return name
    return "Model"


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
    return [tree]


def test_half_precision_shards_and_old_names(tmp_path):
    """bf16, several files, and LayerNorm.gamma as in Google's first BERT files."""
    model = draw("BertForMaskedLM", "small", tmp_path)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half", max_shard_size="20KB")
    write_tokenizer(tmp_path / "half")
    assert len(list((tmp_path / "half").glob("*.safetensors"))) > 2
    published = read_folder(tmp_path / "half")
    assert {leaf.dtype.name for leaf in leaves(published.params)} == {"bfloat16"}

    from safetensors.numpy import load_file, save_file

    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in load_file(tmp_path / "model.safetensors").items()
    }
    expected = read_folder(tmp_path)
    save_file(old, tmp_path / "model.safetensors")
    for left, right in zip(leaves(expected.params), leaves(read_folder(tmp_path).params), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_exported_causal_model_gives_the_same_greedy_tokens(family, tmp_path):
    trained = draw_trained(*FAMILIES[family])
    write_published(tmp_path, trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ours = text_model(trained.model, trained.params, trained.spec, trained.about)
    for text in ("w7 w8", "w30", "w9 w10 w11 w12"):
        prompt = [*ours.start(), *ours.encode(text)]
        given = tokenizer(text, return_tensors="pt")
        assert given["input_ids"][0].tolist() == prompt
        with torch.no_grad():
            found = model.generate(**given, max_new_tokens=6, do_sample=False)[0].tolist()
        (answer,) = generate_tokens(
            trained.model,
            trained.params,
            [prompt],
            sampling=Sampling(max_tokens=6, temperature=0.0),
            vocab_size=trained.spec.vocab_size,
            stop=(trained.spec.eos_id,),
            banned=(),
            first_index=0,
        )
        assert list(answer) == found[len(prompt) :]


def test_an_exported_classifier_reads_texts_and_pairs_as_ours(tmp_path):
    trained = draw_trained(*FAMILIES["bert classifier"])
    write_published(tmp_path, trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ours = text_model(trained.model, trained.params, trained.spec, trained.about)
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=12)
    for text in (("w7 w8 w9",), ("w7 w8", "w20 w21 w22")):
        (answer,) = classify(ours, [text], encode=encode)
        with torch.no_grad():
            logits = model(**tokenizer(*text, return_tensors="pt")).logits[0]
        for index, probability in enumerate(torch.softmax(logits, dim=-1).tolist()):
            label = model.config.id2label[index]
            assert answer["probabilities"][label] == pytest.approx(probability, abs=1e-5)
