"""Collectives read from HLO text: kinds, bytes, axes, and how often a loop repeats them."""

import pytest

from research.planning.collectives import compiled_collectives, shape_bytes
from research.planning.compiled import largest_arrays

MESH = {"replica": 1, "data": 2, "fsdp": 4, "tensor": 1, "context": 1}
TEXT = """HloModule jit_train_step, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%add.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.2 = f32[] add(%a, %b)
}

%body.5 (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %g = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %all-gather.3 = f32[32,4]{1,0} all-gather(%g), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %fusion.9 = f32[64,4]{1,0} fusion(%all-gather.3), kind=kLoop, calls=%f, METADATA
  ROOT %t = (s32[], f32[8,4]{1,0}) tuple(%g, %g)
}

%condition.6 (state: (s32[], f32[8,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main.20 (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%p), condition=%condition.6, body=%body.5, CONFIG
  %ar = bf16[16]{0} all-reduce(%x), channel_id=2, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add.1
  %rs = f32[2]{0} reduce-scatter(%y), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%add.1
  %cp = f32[10]{0} collective-permute(%z), source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%while.1), index=1
}
"""
TEXT = TEXT.replace("METADATA", 'metadata={op_name="jit(train_step)/mlp/up/dot"}')
TEXT = TEXT.replace("CONFIG", 'backend_config={"known_trip_count":{"n":"12"}}')


def test_bytes_of_shapes():
    assert shape_bytes("(f32[2,3]{1,0}, bf16[4]{0}, pred[])") == 24 + 8 + 1


def test_collectives_by_kind_and_axes():
    found = compiled_collectives(TEXT, MESH)
    assert found == {
        ("all-gather", "fsdp"): pytest.approx(12 * 512 * 3 / 4),
        ("all-reduce", "data"): pytest.approx(2 * 32 * 1 / 2),
        ("reduce-scatter", "fsdp"): pytest.approx(4 * 8 * 3 / 4),
        ("collective-permute", "data"): pytest.approx(40),
    }


def test_the_largest_arrays_come_with_their_layer():
    size, what = largest_arrays(TEXT)[0]
    assert size == 1024 and what == "f32[64,4] mlp/up/dot"
