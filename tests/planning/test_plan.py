"""Plans of this repository's pages: exact state, estimates beside compiled programs, search, exit codes."""

import json
from types import SimpleNamespace

import jax
import pytest

from research.expected import expect
from research.experiment import complete, load_page
from research.plan import main
from research.planned import find_settings, make_plan, prepare_on, read_subject
from research.planning.memory import device_memory, host_memory
from research.planning.report import as_json
from research.planning.search import Setting, confirm
from research.planning.topologies import parse_topology
from tests.pages import ROOT

QUICKSTART = f"{ROOT}/configs/quickstart.py"
LM = f"{ROOT}/configs/pretrain/text_lm.py"
SMALL_LM = {
    "model.width": 64,
    "model.depth": 3,
    "model.num_heads": 2,
    "data.path": "nowhere",
    "data.length": 128,
    "data.tokenizer.vocab_size": 1024,
    "batch_size": 32,
    "accumulate": 2,
}


def page(config: str, **keys: object) -> dict:
    read = complete(load_page(config, [(key.replace("__", "."), str(value)) for key, value in keys.items()]))
    return read | {"dtype": "float32"}


def plan(config: str, topology: str, *, compiling: str = "never", **keys: object):
    subject = read_subject(page(config, **keys))
    options = dict(config=config, compiling=compiling, bandwidth=1e9, say=lambda line: None)
    return make_plan(subject, parse_topology(topology), **options)


def flags(**keys: object) -> list[str]:
    return [f"--config.{key}={value}" for key, value in keys.items()]


@pytest.mark.parametrize("mesh", [dict(fsdp=8), dict(fsdp=4, tensor=2), dict(data=2, fsdp=2, tensor=2)])
def test_state_bytes_are_those_of_the_shardings(mesh):
    keys = {f"mesh__{axis}": size for axis, size in {"data": 1, **mesh}.items()}
    prepared = prepare_on(read_subject(page(f"{QUICKSTART}:tiny", ema_decay=0.9, **keys)), jax.devices())
    found = device_memory(prepared.abstract, prepared.batch, dict(prepared.layout.mesh.shape), 0.0)

    def exact(tree):
        return sum(
            jax.numpy.zeros(leaf.sharding.shard_shape(leaf.shape), leaf.dtype).nbytes for leaf in jax.tree.leaves(tree)
        )

    state = prepared.abstract
    assert found.parameters == exact(state.variables["params"])
    assert found.optimizer == exact(state.opt_state)
    assert found.average == found.parameters
    assert found.state == exact(state)
    assert found.batch == exact(prepared.batch)


def test_hosts_share_what_is_read_ahead_and_what_is_saved():
    prepared = prepare_on(read_subject(page(f"{QUICKSTART}:tiny")), jax.devices())
    one, four = (
        host_memory(prepared.abstract, prepared.batch, parse_topology(name), 1e6) for name in ("v5e:2x2", "v5e:4x4")
    )
    batch, state = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (prepared.batch, prepared.abstract)
    )
    assert (one.input, four.input) == (3 * batch, 3 * batch / 4)
    assert (one.save, four.save) == (state, state / 4)
    assert one.checkpoint == four.checkpoint == state and four.save_seconds == state / 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (QUICKSTART, {"mesh__fsdp": 4, "mesh__tensor": 2, "model__unroll": 1}),
        (LM, {"mesh__fsdp": 8, "mesh__data": 1, **{key.replace(".", "__"): size for key, size in SMALL_LM.items()}}),
    ],
)
def test_the_estimate_is_within_a_quarter_of_the_compiled_step(config, keys):
    found = plan(config, "cpu:8", compiling="always", **keys)
    assert found.compiled is not None and not found.compiled.rematerializations
    assert found.estimated == pytest.approx(found.memory.total, rel=0.25)
    assert found.memory.state + found.memory.batch == pytest.approx(found.compiled.arguments, rel=0.01)
    assert found.sent and found.largest


def test_search_finds_a_setting_for_what_does_not_fit(monkeypatch):
    """With a quarter of the memory that the page takes on one whole mesh of copies."""
    monkeypatch.setattr("research.planning.search._MESHES", 3)
    keys = {key.replace(".", "__"): size for key, size in SMALL_LM.items()} | {"accumulate": 1, "model__remat": "none"}
    whole = plan(LM, "h100:8", **keys)
    capacity = 0.5 * whole.memory.total
    topology = parse_topology("h100:8")
    monkeypatch.setattr(type(topology), "capacity", capacity)
    assert not plan(LM, "h100:8", **keys).fits
    as_read = page(LM, **keys)
    settings, remat = find_settings(as_read, read_subject(as_read), topology)
    assert settings and remat == "model.remat"
    assert all(setting.total <= capacity for setting in settings)
    times = [setting.time for setting in settings]
    assert times == sorted(times)


def test_a_search_goes_on_where_the_compiler_needs_more_than_the_estimate():
    first, second = (
        Setting(dict(replica=1, data=1, fsdp=fsdp, tensor=tensor, context=1), "full", 2, 1.0, None)
        for fsdp, tensor in ((4, 1), (2, 2))
    )
    asked, said = [], []

    def plan_of(chosen, fitting):
        asked.append((chosen["mesh.fsdp"], chosen["accumulate"]))
        return SimpleNamespace(fits=asked[-1] == fitting, verdict="does not fit")

    def found(fitting, batch_size=64):
        asked.clear()
        options = dict(batch_size=batch_size, say=said.append)
        return confirm([first, second], "model.remat", lambda chosen: plan_of(chosen, fitting), **options)

    chosen, made = found(("4", "4"))
    assert made.fits and chosen["accumulate"] == "4" and chosen["model.remat"] == "full"
    assert said == [
        "--config.mesh.data=1 --config.mesh.fsdp=4 --config.accumulate=2 --config.model.remat=full: does not fit"
    ]
    assert found(("2", "2"))[1].fits and asked == [("4", "2"), ("4", "4"), ("4", "8"), ("2", "2")]
    assert not found(None, batch_size=16)[1].fits and asked == [
        ("4", "2"),
        ("4", "4"),
        ("2", "2"),
        ("2", "4"),
        ("2", "8"),
    ]


@pytest.mark.slow
def test_the_door_plans_what_its_search_has_found(capsys):
    keys = SMALL_LM | {"accumulate": 1, "model.remat": "none", "batch_size": 256}
    given = [f"--config={LM}", "--topology=h100:8", "--search", "--json", *flags(**keys)]
    assert main(given) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (
        found["fits"]
        and {key: str(size) for key, size in found["mesh"].items()}.items()
        <= {key.removeprefix("mesh."): value for key, value in found["overrides"].items()}.items()
    )
    assert told.err.startswith("--config.mesh.")


def test_the_door_says_that_it_fits_and_prints_json(capsys):
    code = main([f"--config={QUICKSTART}:tiny", "--topology=h100:8", "--json", *flags(**{"mesh.fsdp": 2})])
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["fits"] and found["mesh"] == {"data": 4, "fsdp": 2}
    assert found["not_compiled"] and found["memory"]["total"] < found["capacity"]
    assert found["bound"]["step"] > 0 and 0 < found["bound"]["mfu"] < 1
    assert found["chip_hours"] == pytest.approx(8 * found["hours"])


def test_what_does_not_fit_exits_1(capsys):
    arguments = [f"--config={ROOT}/configs/pretrain/large_lm.py:7b", "--topology=rtx2080ti:1", "--compile=never"]
    assert main([*arguments, *flags(**{"data.path": "nowhere", "batch_size": 1})]) == 1
    assert "does not fit: " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=toaster:8"], "no such topology"),
        (["--topology=h100:8", "--config.mesh.fsdp=3", "--config.mesh.data=1"], "does not multiply to the 8 devices"),
        (["--topology=h100:8", "--config.mesh.tensor=8", "--config.mesh.data=1"], "mesh.tensor=8 does not divide"),
        (["--topology=h100:8", "--config.batch_size=12"], "batch_size=12 does not divide over 8"),
        (["--topology=h100:8", "--bandwidth=0"], "--bandwidth=0.0"),
        ([], "--minutes=N"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        main([f"--config={QUICKSTART}:tiny", "--compile=never", *arguments])


def test_a_fact_of_the_data_alone_is_asked_for():
    config = f"{ROOT}/configs/pretrain/image_classification.py"
    with pytest.raises(ValueError, match="--num_classes=N"):
        read_subject(page(config, data__path="nowhere"))
    assert read_subject(page(config, data__path="nowhere"), num_classes=10).spec.num_classes == 10
    with pytest.raises(ValueError, match="--config.data.tokenizer.vocab_size"):
        expect({"name": "text", "length": 8, "tokenizer": {"name": "character"}})


def test_a_plan_is_json():
    found = as_json(plan(f"{QUICKSTART}:tiny", "a100:8"))
    assert json.loads(json.dumps(found))["topology"] == "a100:8"
