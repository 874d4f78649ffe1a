"""The predict door: where texts come from, what it answers, and which mistakes it names."""

import io
import json

import pytest

from research.predict import choose_task, main, options, parse, read
from research.training_door import run_training
from tests.pages import ROOT, call, small_page


def test_the_task_is_the_objective_s_and_no_other():
    assert choose_task(None, "masked_lm") == choose_task("fill_mask", "masked_lm") == "fill_mask"
    assert choose_task(None, "causal_lm") == "generate"
    assert choose_task(None, "multi_label") == "classify" and choose_task(None, "regression") == "regress"
    with pytest.raises(ValueError, match="this one is a causal_lm model; use --task=generate"):
        choose_task("fill_mask", "causal_lm")


def test_options_have_the_task_s_defaults_and_refuse_another_task_s():
    flags = parse(["--workdir=x", "--temperature=0", "a"])
    assert options(flags, "generate")["temperature"] == 0.0
    assert options(flags, "generate")["max_tokens"] == 64
    with pytest.raises(ValueError, match="--temperature belongs to --task=generate; this is fill_mask"):
        options(flags, "fill_mask")


def test_bad_flags_exit_with_2():
    for wrong in ([], ["--workdir=x", "--task=fill"], ["--workdir=x", "--top=many"], ["--workdir=x", "a", "--input=b"]):
        with pytest.raises(SystemExit) as ended:
            parse(["a", *wrong])
        assert ended.value.code == 2


def test_texts_come_from_arguments_and_files(tmp_path):
    lines = tmp_path / "texts.txt"
    lines.write_bytes("one\r\n\n  two \u2028 \nthree".encode())
    rows = tmp_path / "texts.jsonl"
    rows.write_text('{"body": "one", "more": 1}\n\n{"body": "two"}\n')
    assert list(read(["a", ""], "", ("text",))) == [[("a",), ("",)]]
    assert list(read([], str(lines), ("text",))) == [[("one",), ("  two \u2028 ",), ("three",)]]
    assert list(read([], str(rows), ("body",))) == [[("one",), ("two",)]]


def test_standard_input_is_answered_line_by_line(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"one\n\ntwo\tthree\n"))
    monkeypatch.setattr("sys.stdin", stream)
    assert list(read([], "-", ("text",))) == [[("one",)], [("two\tthree",)]]


def test_pairs_are_parted_by_a_tab():
    fields = ("text", "pair")
    assert list(read(["a b\tc\td"], "", fields)) == [[("a b", "c\td")]]
    with pytest.raises(ValueError, match="argument 2: this model was trained on pairs"):
        list(read(["a\tb", "c"], "", fields))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.txt", None, "cannot be read"),
        ("blank.txt", b"\n \n", "holds no text"),
        ("latin.txt", b"one\ncaf\xe9\n", "line 2: not UTF-8 at byte 4"),
        ("broken.jsonl", b'{"text": "a"}\n{"text\n', "line 2: not JSON"),
        ("field.jsonl", b'{"body": "a"}\n', "no field 'text'.*body"),
        ("number.jsonl", b'{"text": 3}\n', "is int, wanted text"),
        ("none.jsonl", None, "does not exist"),
    ],
)
def test_bad_input_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read([], str(path), ("text",)))


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """One small trained run for each task, by its name."""
    folder = tmp_path_factory.mktemp("runs")
    for task, objective in (("fill_mask", "masked_lm"), ("generate", "causal_lm")):
        page = small_page(corpus, objective, num_steps=3, evaluation__samples="()")
        run_training("pretrain", [*page, f"--workdir={folder / task}"])
    page = f"--config={ROOT / 'configs/finetune/text_classification.py'}:tiny"
    keys = {"data.path": corpus, "data.length": 16, "num_steps": 3, "init_from": folder / "fill_mask"}
    keys |= {"log.tensorboard": "false", "evaluation.floors": "false"}
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    run_training("finetune", [page, *flags, f"--workdir={folder / 'classify'}"])
    return folder


def answers(capsys, *arguments):
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_masks_are_filled_by_default_where_the_run_was_masked(runs, capsys):
    found = answers(capsys, f"--workdir={runs / 'fill_mask'}", "--top=2", "on<mask> tw[MASK]", "c<mask>t")
    assert [result["input"] for result in found] == ["on<mask> tw[MASK]", "c<mask>t"]
    assert [len(result["masks"]) for result in found] == [2, 1]
    assert all(len(candidates) == 2 for result in found for candidates in result["masks"])
    assert not any("MASK" in result["output"] or "<mask>" in result["output"] for result in found)


def test_the_same_seed_continues_a_text_the_same(runs, capsys, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"body": "one"}\n{"body": "cat"}\n')
    flags = [f"--workdir={runs / 'generate'}", "--task=generate", "--max_tokens=7", "--seed=3"]
    from_file = answers(capsys, *flags, f"--input={path}", "--text_field=body")
    assert [result["input"] for result in from_file] == ["one", "cat"]
    assert all(result["output"].startswith(result["input"]) for result in from_file)
    assert answers(capsys, *flags, "one", "cat") == from_file


def test_labels_and_their_probabilities(runs, capsys):
    (found,) = answers(capsys, f"--workdir={runs / 'classify'}", "one cat dog")
    assert found["probabilities"].keys() == {"number", "thing"}
    assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)
    assert sum(found["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("run", "flags", "message"),
    [
        ("generate", ["--task=fill_mask", "a <mask>"], "this one is a causal_lm model; use --task=generate"),
        ("fill_mask", ["no mask"], "text 1 has no mask"),
        ("fill_mask", ["--seed=1", "<mask>"], "--seed belongs to --task=generate"),
        ("classify", ["--pair_field=pair", "a\tb"], "--pair_field=pair: this run was trained on one text a row"),
        ("classify", ["--task=embed", "--pair_field=pair", "a"], "--task=embed reads one text a row"),
        ("generate", ["--max_tokens=999", "one"], "with max_tokens=999 1003; the model has 16 positions"),
        ("generate", ["--step=1", "one"], "no checkpoint 1"),
        ("nothing", ["one"], "holds no complete checkpoint"),
    ],
)
def test_mistakes_are_named(runs, run, flags, message):
    with pytest.raises(ValueError, match=message):
        main([f"--workdir={runs / run}", *flags])


def test_the_door_exits_with_2_for_a_mistake(runs):
    done = call("predict", [f"--workdir={runs / 'fill_mask'}", "--batch_size=0", "<mask>"], check=2)
    assert done.stderr.strip() == "error: batch_size=0; wanted 1 or more"
    assert done.stdout == ""
