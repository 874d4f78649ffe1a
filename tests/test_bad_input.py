"""A user's mistake ends in one clear sentence and exit code 2, before any work starts."""

from __future__ import annotations

import json
import shutil

import pytest

from research.door import FAILED, MISTAKE, exit_code
from research.training_door import run_training
from tests.pages import call, small_page


def mistake(arguments, door="pretrain") -> str:
    """The sentence that a door ends with, which must be the user's own fault."""
    with pytest.raises(ValueError) as caught:
        run_training(door, arguments)
    assert exit_code(caught.value) == MISTAKE
    return str(caught.value)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.num_step=3", "did you mean num_steps?"),
        ("--config.optimizer.peak_rat=3", "did you mean peak_rate?"),
        ("--config.objective.name=masked_lmm", "did you mean masked_lm?"),
        ("--config.model.name=brt", "did you mean bert?"),
        ("--config.data.tokenizer.name=bpee", "did you mean bpe?"),
        ("--config.num_steps=many", "wanted int"),
        ("--config.model.dropout=true", "wanted float"),
        ("--config.model.norm=batch", "wanted one of layer, rms"),
        ("--config.batch_size=12 --config.mesh.devices=8", "use a multiple of 8"),
        ("--config.mesh.fsdp=3 --config.mesh.devices=8", "fsdp=3 does not multiply to the 8 devices"),
        ("--config.mesh.data=-1 --config.mesh.fsdp=-1", "-1 (the rest) at most once"),
        (
            "--config.mesh.tensor=4 --config.mesh.devices=8",
            "does not divide heads=2 of params/backbone/layers",
        ),
        ("--config.mesh.fsdp=0", "wanted 1 or more each"),
        ("--config.mesh.context=3 --config.mesh.devices=3", "length 16 does not divide over mesh.context=3"),
        ("--config.mesh.rules=(vocab=width,)", "wanted LOGICAL=AXIS"),
        ("--config.accumulate=3", "use a multiple of 3"),
        ("--config.num_steps=0", "wanted 1 or more"),
        ("--config.data.path=/nowhere/text.jsonl", "/nowhere/text.jsonl"),
        ("--config.data.text_field=body", "label, text"),
        ("--config.model.num_heads=3", "does not divide"),
        ("--config.model.length=8", "longer than the model's 8 positions"),
        ("--config.mesh.devices=64", "there are 8 devices"),
        ("--config.evaluation.samples=no_mask_here,", "has no mask"),
        ("--config.evaluation.samples=<mask>_and_far_more_than_fits,", "tokens"),
        ("--config.data.valid_fraction=0", "valid_fraction"),
        ("--config.evaluation.robustness=true", "perturbs labelled or tagged texts"),
        ("--config.evaluation.forgetting=5", "starts from scratch has nothing to forget"),
    ],
)
def test_a_wrong_key_or_value_is_refused(corpus, tmp_path, flag, said):
    arguments = [*small_page(corpus, "masked_lm"), f"--workdir={tmp_path / 'run'}", *flag.split()]
    assert said in mistake(arguments)
    assert not (tmp_path / "run").exists(), "nothing may have been written yet"


def test_an_unknown_page_or_variant_is_refused(tmp_path):
    assert "no file configs/nothing.py" in mistake(["--config=configs/nothing.py", f"--workdir={tmp_path}"])
    assert "quickstart.py:tiny" in mistake(["--config=configs/quickstart.py:small", f"--workdir={tmp_path}"])


def bad_file(tmp_path, name: str, contents: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(contents)
    return mistake([*small_page(path, "masked_lm"), f"--workdir={tmp_path / 'run'}"])


def test_an_empty_file_is_refused(tmp_path):
    assert "empty.txt" in bad_file(tmp_path, "empty.txt", b"")


def test_a_broken_line_is_named(tmp_path):
    said = bad_file(tmp_path, "broken.jsonl", b'{"text": "a b c"}\n{"text": "d e f"}\n{"text": \n')
    assert "broken.jsonl" in said and "3" in said


def test_invalid_utf8_is_named(tmp_path):
    assert "latin.txt" in bad_file(tmp_path, "latin.txt", "na\xefve caf\xe9 ".encode("latin-1") * 30)


def test_the_same_file_for_training_and_evaluation_is_refused(corpus, tmp_path):
    said = mistake([*small_page(corpus, "masked_lm", data__valid_path=corpus), f"--workdir={tmp_path / 'run'}"])
    assert "corpus.jsonl" in said
    flags = ["--config.data.path=embedded:corpus[train]", "--config.data.valid_path=embedded:corpus[train]"]
    assert "embedded:corpus" in mistake([*small_page(corpus, "masked_lm"), f"--workdir={tmp_path / 'run'}", *flags])


def test_finetune_wants_a_run_to_start_from(corpus, tmp_path):
    page = ["--config=configs/finetune/text_classification.py:tiny", f"--workdir={tmp_path / 'run'}"]
    page.append(f"--config.data.path={corpus}")
    assert "--config.init_from=DIR" in mistake(page, "finetune")
    assert "no complete checkpoint" in mistake([*page, f"--config.init_from={tmp_path}"], "finetune")


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """A small masked language model, trained for ten steps with two checkpoints."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    arguments = small_page(corpus, "masked_lm", num_steps=10, checkpoint__every=5)
    run_training("pretrain", [*arguments, f"--workdir={workdir}"])
    return workdir, arguments


def test_a_workdir_that_holds_another_run_lists_what_differs(finished):
    workdir, arguments = finished
    said = mistake([*arguments, f"--workdir={workdir}", "--config.seed=5", "--config.model.width=32"])
    assert "seed: 0 before, 5 now" in said and "model.width" in said


def test_a_label_that_training_never_sees_is_refused(finished, corpus, tmp_path):
    test_path = tmp_path / "test.jsonl"
    test_path.write_text(json.dumps({"text": "a new one", "label": "novel"}) + "\n")
    page = ["--config=configs/finetune/text_classification.py:tiny", f"--workdir={tmp_path / 'run'}"]
    page += [
        f"--config.data.path={corpus}",
        f"--config.data.test_path={test_path}",
        f"--config.init_from={finished[0]}",
    ]
    assert "novel" in mistake(page, "finetune")


@pytest.mark.parametrize(
    ("page", "keys", "said"),
    [
        ("multi_label", {"objective.name": "classification"}, "learns from 'label', which data.name=text_multi_label"),
        ("regression", {"data.name": "text_classification"}, "objective.name=regression learns from 'value'"),
        ("prompt_answer", {}, "objective.name=causal_lm predicts each token from those before it, and the model of"),
        ("prompt_answer", {"objective.name": "masked_lm"}, "data.name=prompt_answer is for objective.name=causal_lm"),
    ],
)
def test_an_objective_that_does_not_fit_data_or_model_is_refused(finished, tmp_path, page, keys, said):
    shared = {"answer": "b", "prompt": "c"}
    rows = [{"text": f"a {n}", "label": n % 3, "labels": ["x"] * (n % 2)} | shared for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {"data.path": tmp_path / "rows.jsonl", "init_from": finished[0], "data.length": 16} | keys
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    arguments = [f"--config=configs/finetune/{page}.py:tiny", f"--workdir={tmp_path / 'run'}", *flags]
    assert said in mistake(arguments, "finetune")


def test_rows_shared_between_splits_are_counted_and_named_in_the_result(corpus, tmp_path):
    rows = corpus.read_text().splitlines()
    valid = tmp_path / "valid.jsonl"
    valid.write_text("\n".join([*rows[:3], '{"text": "four trees and a river", "label": "number"}']) + "\n")
    arguments = small_page(corpus, "masked_lm", num_steps=2, data__valid_path=valid)
    run_training("pretrain", [*arguments, f"--workdir={tmp_path / 'run'}"])
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["shared_rows"] == {"train-val": 3}


@pytest.fixture
def damaged(finished, tmp_path):
    """A copy of the finished run whose newest checkpoint has one flipped bit in its parameters."""
    workdir = tmp_path / "damaged"
    shutil.copytree(finished[0], workdir)
    file = max(
        (path for path in (workdir / "checkpoints/10/params").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return workdir, finished[1]


def test_a_damaged_checkpoint_is_refused_and_goes_back_only_when_told_to(damaged):
    workdir, arguments = damaged
    more = [*arguments, f"--workdir={workdir}", "--config.num_steps=12"]
    assert "fall_back" in mistake(more)
    assert run_training("pretrain", [*more, "--config.checkpoint.fall_back=true"]) == 0
    assert "continuing from step 5" in (workdir / "log.txt").read_text()


def test_a_loss_that_is_not_finite_names_step_batch_and_layer_and_keeps_the_last_good_checkpoint(corpus, tmp_path):
    arguments = small_page(
        corpus,
        "masked_lm",
        num_steps=40,
        checkpoint__every=1,
        log__every=1,
        optimizer__name="sgd",
        optimizer__peak_rate=1e30,
        optimizer__clip_norm=0,
    )
    with pytest.raises(RuntimeError) as caught:
        run_training("pretrain", [*arguments, f"--workdir={tmp_path / 'run'}"])
    assert exit_code(caught.value) == FAILED
    said = str(caught.value)
    bad = int(said.split("step ")[1].split()[0])
    assert f"examples {8 * (bad - 1)} to {8 * bad - 1}" in said and "not finite" in said
    kept = [int(path.parent.name) for path in (tmp_path / "run/checkpoints").glob("*/checksums.json")]
    assert kept and max(kept) == bad - 1


def test_exit_codes_come_without_a_traceback(corpus, tmp_path):
    done = call("pretrain", [*small_page(corpus, "masked_lm"), f"--workdir={tmp_path}", "--config.sed=1"], check=2)
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    done = call("pretrain", ["--config.sed=1", "--config=configs/quickstart.py", "--debug", "--workdir=x"], check=2)
    assert "Traceback" in done.stderr


def test_an_unexpected_error_is_a_failure_not_a_mistake():
    try:
        json.loads("{")
    except ValueError as error:
        assert exit_code(error) == FAILED
