"""Packed rows and windows against a plain loop over the documents."""

from types import SimpleNamespace

import numpy as np
import pytest

from research.data.packed_rows import PackedRows
from research.data.packing import RowTable, alone, plan
from research.data.windows import Windows


def shards_of(lengths):
    """Documents whose token ids name their place: every token of the data set is another number."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SimpleNamespace(tokens=np.arange(5, 5 + offsets[-1], dtype=np.uint16), offsets=offsets)


def realistic_lengths(count, *, seed=0):
    return np.exp(np.random.default_rng(seed).normal(5, 1, count)).astype(np.int64) + 1


def predicted_pairs(rows):
    """(token, next token) within each segment of each row."""
    pairs = []
    for index in range(len(rows)):
        row = rows[index]
        same = (row["segment_ids"][1:] == row["segment_ids"][:-1]) & (row["segment_ids"][1:] > 0)
        pairs += zip(row["tokens"][:-1][same].tolist(), row["tokens"][1:][same].tolist(), strict=True)
    return sorted(pairs)


@pytest.mark.parametrize("length", [2, 3, 7, 13])
def test_every_token_after_a_documents_first_is_predicted_exactly_once(length):
    lengths = np.array([0, 1, 2, 3, 7, 8, 13, 14, 25, 26, 97, 1, 5])
    shards = shards_of(lengths)
    wanted = []
    for first, last in zip(shards.offsets[:-1], shards.offsets[1:], strict=True):
        document = shards.tokens[first:last].tolist()
        wanted += zip(document[:-1], document[1:], strict=True)
    table = plan(lengths, length=length)
    assert predicted_pairs(PackedRows(shards, table)) == sorted(wanted)
    assert table.num_dropped == 3
    assert table.piece_length.min() >= 2


def test_a_row_holds_its_pieces_one_after_the_other_and_zeros_behind():
    lengths = realistic_lengths(61) % 23
    shards = shards_of(lengths)
    table = plan(lengths, length=17, seed=3)
    rows = PackedRows(shards, table)
    for index in range(len(table)):
        expected = {key: [] for key in ("tokens", "segment_ids", "positions")}
        for segment, piece in enumerate(range(table.row_starts[index], table.row_starts[index + 1]), start=1):
            first = shards.offsets[table.piece_document[piece]] + table.piece_start[piece]
            size = int(table.piece_length[piece])
            expected["tokens"] += shards.tokens[first : first + size].tolist()
            expected["segment_ids"] += [segment] * size
            expected["positions"] += range(size)
        for key, values in expected.items():
            assert rows[index][key].tolist() == values + [0] * (17 - len(values)), key
            assert rows[index][key].dtype == np.int32


def test_a_batch_of_rows_is_those_rows_stacked():
    lengths = realistic_lengths(53)
    shards = shards_of(lengths)
    for source in (PackedRows(shards, plan(lengths, length=31)), Windows(shards, length=31, stride=11)):
        indices = np.array([5, 0, len(source) - 1, 5])
        batch = source.rows(indices)
        for row, index in enumerate(indices):
            for key, values in source[int(index)].items():
                np.testing.assert_array_equal(batch[key][row], values)


def test_the_plan_depends_on_the_seed_alone():
    lengths = realistic_lengths(211)
    first, again, other = (plan(lengths, length=64, seed=seed) for seed in (1, 1, 2))
    for name in ("row_starts", "piece_document", "piece_start", "piece_length"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.piece_document, other.piece_document)


@pytest.mark.parametrize("length", [64, 512])
def test_rows_are_at_least_95_percent_full(length):
    table = plan(realistic_lengths(20_011), length=length)
    assert table.piece_length.sum() >= 0.95 * len(table) * length


def test_a_table_comes_back_from_disk_the_same(tmp_path):
    table = plan(realistic_lengths(29), length=19)
    table.save(tmp_path / "rows.npz")
    loaded = RowTable.load(tmp_path / "rows.npz")
    assert (loaded.length, loaded.num_dropped) == (19, table.num_dropped)
    np.testing.assert_array_equal(loaded.piece_length, table.piece_length)
    np.testing.assert_array_equal(loaded.row_starts, table.row_starts)
    np.testing.assert_array_equal(loaded.piece_start, table.piece_start)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


@pytest.mark.parametrize("num_tokens", [2, 10, 11, 12, 20, 21, 22, 101])
def test_windows_predict_every_token_after_the_first_exactly_once(num_tokens):
    shards = shards_of([num_tokens // 2, num_tokens - num_tokens // 2])
    tokens = shards.tokens.tolist()
    windows = Windows(shards, length=11)
    assert predicted_pairs(windows) == list(zip(tokens[:-1], tokens[1:], strict=True))
    for index in range(len(windows) - 1):
        assert windows[index]["segment_ids"].all()


def test_windows_with_a_stride_of_one_begin_at_every_token():
    windows = Windows(shards_of([13, 10]), length=7, stride=1)
    assert [windows[index]["tokens"][0] for index in range(len(windows))] == list(range(5, 5 + 23 - 7 + 1))


def test_filled_slots_are_those_with_a_segment():
    shards = shards_of(realistic_lengths(31) % 19)
    for rows in (PackedRows(shards, plan(np.diff(shards.offsets), length=13)), Windows(shards, length=13, stride=5)):
        assert rows.num_filled == sum(int((rows[index]["segment_ids"] > 0).sum()) for index in range(len(rows)))


def test_nothing_to_predict_gives_no_rows():
    assert len(plan(np.array([1, 0, 1]), length=7)) == 0
    assert len(Windows(shards_of([1]), length=7)) == 0


@pytest.mark.parametrize("make", [lambda: plan(np.array([5]), length=1), lambda: Windows(shards_of([5]), length=1)])
def test_a_length_below_two_is_refused(make):
    with pytest.raises(ValueError, match="length=1 leaves nothing to predict"):
        make()


def test_a_stride_that_leaves_tokens_out_is_refused():
    with pytest.raises(ValueError, match="stride=7 for length=7; use 1 to 6 to leave"):
        Windows(shards_of([50]), length=7, stride=7)


def test_alone_each_document_has_a_row_and_is_cut_where_it_ends():
    shards = shards_of(np.array([3, 1, 9, 0, 2]))
    table = alone(np.diff(shards.offsets), length=5)
    rows = PackedRows(shards, table).rows(np.array([2, 0, 1]))
    first = shards.offsets + 5  # a token's id says where it stands
    wanted = [[*range(first[at], first[at] + size)] + [0] * (5 - size) for at, size in ((4, 2), (0, 3), (2, 5))]
    np.testing.assert_array_equal(rows["tokens"], wanted)
    np.testing.assert_array_equal(rows["segment_ids"], np.array(wanted) > 0)
    assert table.num_dropped == 2
