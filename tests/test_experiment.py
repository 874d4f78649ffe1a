"""What a page builds."""

from pathlib import Path

import jax

from research.experiment import load_page, open_experiment
from research.planned import prepare_on, read_subject

ROOT = Path(__file__).resolve().parents[1]


def test_matmul_dtype_reaches_backbone_head_and_optimizer(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDWORK_CACHE", str(tmp_path))
    (tmp_path / "a.txt").write_text("one two three four five\n\nsix seven eight nine ten\n\n" * 40)
    data = [("data.path", str(tmp_path / "a.txt")), ("data.valid_path", ""), ("data.valid_fraction", "0.2")]
    data += [("data.tokenizer.name", "byte"), ("data.packing", "documents")]
    for wanted in ("", "bfloat16"):
        given = [("matmul_dtype", wanted)] if wanted else []
        page = load_page(str(ROOT / "configs/quickstart.py:tiny"), [*data, *given])
        experiment = open_experiment(page, say=lambda line: None)
        model = experiment.objective.model
        assert model.backbone.config.matmul_dtype == model.head.matmul_dtype == wanted
        assert experiment.about["model"]["matmul_dtype"] == experiment.about["head"]["matmul_dtype"] == wanted
        # Muon's products too: its update has bfloat16 in it, though parameters and gradients have none.
        prepared = prepare_on(read_subject(page), jax.devices()[:1])
        params = prepared.abstract.variables["params"]
        update = jax.make_jaxpr(prepared.transform.update)(params, prepared.abstract.opt_state, params)
        assert ("bf16" in str(update)) == (wanted == "bfloat16")
