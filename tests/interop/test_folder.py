"""Published folders without another library: what is written is read again to the bit, and every fault is named."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research.conversion import convert, in_float32, outputs, write_published
from research.interop import read_folder
from research.interop.tensor_files import read_tensors, write_tensors
from research.interop.verify import difference, draw_inputs
from research.predict import main as predict
from research.trained import open_trained
from tests.drawn import FAMILIES, LENGTH, VOCABULARY, draw, tokenizer


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The BERT of the tests below, written once."""
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, draw(*FAMILIES["bert"]))
    return folder


@pytest.fixture
def copy(published, tmp_path):
    for path in published.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, folder / "model.safetensors")


def change_config(folder, **changes):
    place = folder / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_written_and_read_again_it_is_the_same_model(family, tmp_path):
    trained = draw(*FAMILIES[family])
    write_published(tmp_path / "there", trained)
    again = open_trained(tmp_path / "there")
    flat, again_flat = (jax.tree_util.tree_leaves_with_path(found.params) for found in (trained, again))
    assert [path for path, _ in flat] == [path for path, _ in again_flat]
    for (path, left), (_, right) in zip(flat, again_flat, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=str(path))
    ignored = {"remat", "unroll", "dtype", "param_dtype"}
    assert {key: value for key, value in again.about["model"].items() if key not in ignored} == {
        key: (trained.model.backbone.config.kv_heads if key == "num_kv_heads" and family == "llama" else value)
        if key != "mlp_dim"
        else trained.model.backbone.config.inner_dim
        for key, value in trained.about["model"].items()
        if key not in ignored
    }
    assert again.spec.label_names == trained.spec.label_names


def test_a_folder_becomes_a_run_and_the_run_that_folder(published, tmp_path):
    said = []
    convert(published, tmp_path / "run", say=said.append)
    convert(tmp_path / "run", tmp_path / "back", say=said.append)
    first, second = read_tensors(published), read_tensors(tmp_path / "back")
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert (published / "config.json").read_text() == (tmp_path / "back" / "config.json").read_text()
    with pytest.raises(ValueError, match="is in use; give a new folder"):
        convert(published, tmp_path / "run")


def test_shards_of_several_files_are_one_model(published, copy):
    tensors = read_tensors(published)
    (copy / "model.safetensors").unlink()
    write_tensors(copy, tensors, shard_bytes=4000)
    assert len(list(copy.glob("model-*.safetensors"))) > 3
    for name, array in read_tensors(copy).items():
        np.testing.assert_array_equal(array, tensors[name])
    lost = sorted(copy.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ValueError, match=f"lacks {lost.name}"):
        read_folder(copy)


def test_vocabulary_rows_of_padding_are_left_out(published):
    assert read_tensors(published)["bert.embeddings.word_embeddings.weight"].shape == (VOCABULARY, 16)


def test_tensors_that_do_not_fit_are_all_listed(copy):
    def change(tensors):
        del tensors["bert.embeddings.LayerNorm.bias"]
        tensors["bert.encoder.layer.7.output.dense.bias"] = np.zeros(3, np.float32)
        tensors["cls.predictions.bias"] = np.zeros(7, np.float32)

    change_tensors(copy, change)
    with pytest.raises(ValueError) as error:
        read_folder(copy)
    for part in (
        "missing bert.embeddings.LayerNorm.bias [16]",
        "extra bert.encoder.layer.7.output.dense.bias [3]",
        "cls.predictions.bias is [7], wanted [40]",
    ):
        assert part in str(error.value)


def test_what_the_architecture_leaves_out_is_named_and_not_refused(copy):
    change_tensors(copy, lambda tensors: tensors.update({"bert.pooler.dense.weight": np.zeros((16, 16), np.float32)}))
    assert read_folder(copy).unused == ["bert.pooler.dense.weight"]


def test_layer_norms_of_the_first_bert_files_are_read(published, copy):
    def change(tensors):
        for name in list(tensors):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[new] = tensors.pop(name)

    change_tensors(copy, change)
    assert "bert.embeddings.LayerNorm.gamma" in load_file(copy / "model.safetensors")
    for left, right in zip(*(jax.tree.leaves(read_folder(at).params) for at in (published, copy)), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_file_cut_short_is_refused(copy):
    place = copy / "model.safetensors"
    place.write_bytes(place.read_bytes()[:-7])
    with pytest.raises(ValueError, match="is damaged or cut short"):
        read_folder(copy)


def test_a_pickle_is_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="a pickle can run any code"):
        read_folder(copy)


def test_a_name_on_the_hub_is_no_folder():
    with pytest.raises(ValueError, match="hf download google-bert/bert-base-uncased --local-dir"):
        open_trained("google-bert/bert-base-uncased")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model_type="deberta"), "model_type='deberta' is not read here; it can be bert, gpt2, llama, roberta"),
        (dict(architectures=["BertForMagic"]), "architecture BertForMagic is not read here"),
        (dict(hidden_act="mish"), "hidden_act='mish'"),
        (dict(position_embedding_type="relative_key"), "position_embedding_type='relative_key'; here it can be"),
    ],
)
def test_models_that_are_not_had_here_are_named(copy, changes, message):
    change_config(copy, **changes)
    with pytest.raises(ValueError, match=message):
        read_folder(copy)


def test_config_json_that_lacks_a_size_is_refused(copy):
    settings = json.loads((copy / "config.json").read_text())
    del settings["hidden_size"]
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="lacks 'hidden_size'"):
        read_folder(copy)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(copy):
    (copy / "tokenizer.json").write_text(tokenizer(VOCABULARY + 1))
    with pytest.raises(ValueError, match="tokenizer.json has 41 tokens, the model only 40"):
        open_trained(copy)


def test_a_folder_without_tokenizer_json_says_how_to_write_one(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="has no tokenizer.json; write one with AutoTokenizer"):
        read_folder(copy)


def test_a_transformer_of_no_family_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"no published family has such a transformer \(bert has"):
        write_published(tmp_path / "x", draw("modern", "masked_lm", dict(name="language")))
    for family in ("bert", "gpt2"):
        with pytest.raises(ValueError, match=f"{family} has qkv_bias=False, wanted True"):
            write_published(tmp_path / "x", draw(*FAMILIES[family], qkv_bias=False))
    with pytest.raises(ValueError, match="BertForMaskedLM has another head"):
        write_published(tmp_path / "x", draw("bert", "masked_lm", dict(name="language")))


def test_a_sentence_encoder_keeps_its_pooling(copy, capsys):
    def change(tensors):
        for name in list(tensors):
            if name.startswith("cls."):
                del tensors[name]

    change_tensors(copy, change)
    change_config(copy, architectures=["BertModel"])
    modules = [
        dict(idx=0, name="0", path="", type="sentence_transformers.models.Transformer"),
        dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling"),
        dict(idx=2, name="2", path="2_Normalize", type="sentence_transformers.models.Normalize"),
    ]
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "1_Pooling").mkdir()
    pooling = dict(word_embedding_dimension=16, pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling))

    trained = open_trained(copy)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0]])
    hidden, vectors = outputs(trained, np.array([[2, 7, 8, 0], [2, 9, 0, 0]]), mask, np.zeros_like(mask))
    mean = np.stack([hidden[0, :3].mean(axis=0), hidden[1, :2].mean(axis=0)])
    np.testing.assert_allclose(vectors, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)

    predict([f"--workdir={copy}", "w7 w8", "w9 w10 w11 w12"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Its tokenizer.json, that of a masked language model, writes <bos> alone around a text.
    wanted = outputs(trained, np.array([[2, 7, 8]]), np.ones((1, 3), int), np.zeros((1, 3), int))[1][0]
    np.testing.assert_allclose(lines[0]["embedding"], wanted, atol=1e-6)
    assert np.linalg.norm(lines[1]["embedding"]) == pytest.approx(1.0)

    write_published(copy / "again", trained)
    assert json.loads((copy / "again" / "modules.json").read_text()) == modules
    assert read_folder(copy / "again").head == read_folder(copy).head
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(pooling | dict(pooling_mode_max_tokens=True)))
    with pytest.raises(ValueError, match="pooling by pooling_mode_mean_tokens and pooling_mode_max_tokens"):
        read_folder(copy)


@pytest.mark.parametrize("changes", [dict(matmul_dtype="bfloat16"), dict(dtype="bfloat16")])
def test_what_was_trained_in_bfloat16_is_compared_in_float32(changes):
    inputs = draw_inputs(VOCABULARY, pad_id=0, length=LENGTH)
    single, rounded = (draw(*FAMILIES["bert"], **more) for more in ({}, changes))
    wanted = outputs(single, *inputs)[0]
    assert difference(outputs(rounded, *inputs)[0], wanted) > 1e-4
    assert difference(outputs(in_float32(rounded), *inputs)[0], wanted) == 0.0
