"""Sound pages pass every check, and a broken training fails the one that names what is broken."""

from __future__ import annotations

import json

import pytest

from research import verify
from tests.checks import broken
from tests.pages import ROOT, call

QUICKSTART = "configs/quickstart.py:tiny"
# What must apply to a page, beside what applies to all.
SOUND = {
    QUICKSTART: {"packed = separate", "accumulated = whole", "remat on = off", "no other document leaks"},
    "configs/pretrain/text_lm.py:tiny": {"packed = separate", "no later token leaks", "no other document leaks"},
    "configs/pretrain/image_simclr.py:tiny": {"sharded = single"},
    "configs/pretrain/image_text_clip.py:tiny": {"accumulated = whole", "sharded = single"},
    "configs/pretrain/text_pairs.py:tiny": {"accumulated = whole", "remat on = off"},
}
ALWAYS = {
    "sharded = single",
    "state falls as 1/fsdp",
    "resumed = unbroken",
    "bfloat16 near float32",
    "same order on 1, 2, 4 hosts",
    "loss falls",
    "every parameter learns",
    "no other example leaks",
}
BROKEN = [
    (broken.leaking_mask, "packed", "packed = separate"),
    (broken.leaking_mask, "documents", "no other document leaks"),
    (broken.mean_of_means, "accumulated", "accumulated = whole"),
    (broken.norm_over_the_batch, "examples", "no other example leaks"),
    (broken.sum_over_a_part, "sharded", "sharded = single"),
    (broken.unsaved_step, "resumed", "resumed = unbroken"),
    (broken.unsaved_position, "resumed", "resumed = unbroken"),
    (broken.replicated_moments, "divided", "state falls as 1/fsdp"),
]


@pytest.mark.slow
@pytest.mark.parametrize("page", SOUND)
def test_a_sound_page_passes_every_check(page):
    done = call("verify", [f"--config={ROOT / page}", "--json"])
    found = json.loads(done.stdout)
    assert found["passed"]
    verdicts = {check["check"]: check["verdict"] for check in found["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict == "pass"} >= ALWAYS | SOUND[page]
    assert set(verdicts.values()) <= {"pass", "-"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "check", "named"), BROKEN, ids=[f"{variant.__name__}-{check}" for variant, check, _ in BROKEN]
)
def test_a_broken_variant_fails_and_is_named(monkeypatch, capsys, variant, check, named):
    variant(monkeypatch)
    assert verify.main([f"--config={ROOT / QUICKSTART}", f"--checks={check}"]) == 1
    shown = capsys.readouterr()
    assert f"failed: {named}: " in shown.err
    assert shown.out.startswith("FAIL")


@pytest.mark.slow
def test_a_queue_that_would_fill_with_the_repeated_batch_is_left_as_it_began():
    assert verify.main([f"--config={ROOT / 'configs/pretrain/image_moco.py:tiny'}", "--checks=falls"]) == 0


def test_the_order_of_data_is_checked_at_once(capsys):
    assert verify.main([f"--config={ROOT / QUICKSTART}", "--checks=order", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [check["check"] for check in found["checks"]] == ["same order on 1, 2, 4 hosts"]
    assert found["checks"][0]["measures"] == [
        {"name": "rows that differ", "value": 0.0, "bound": "<= 0", "holds": True}
    ]


def test_a_page_without_data_and_an_unknown_check_are_mistakes():
    with pytest.raises(ValueError, match="data.path is empty, and verify reads a few rows"):
        verify.main([f"--config={ROOT / 'configs/pretrain/text_lm.py'}"])
    with pytest.raises(ValueError, match="--checks has 'pack'; there are packed, accumulated"):
        verify.main([f"--config={ROOT / QUICKSTART}", "--checks=pack"])
