"""The order of examples is a function of (seed, index) alone."""

import itertools
import threading

import numpy as np
import pytest

from research.data.rows import Joined, Mixture, read_rows
from research.data.stream import PREFETCH, TrainStream, eval_batches


class Numbers:
    """Rows that hold their own number; read one at a time."""

    def __init__(self, size, first=0):
        self.size, self.first = size, first

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert 0 <= index < self.size
        return {"tokens": np.full(3, self.first + index, np.int32), "label": np.int32(self.first + index)}


def train_stream(examples, *, seed, batch_size, start=0, process_index=0, process_count=1, prefetch=PREFETCH):
    share = batch_size // process_count
    rows = slice(process_index * share, (process_index + 1) * share)
    return TrainStream(examples, seed=seed, batch_size=batch_size, rows=rows).batches(start=start, prefetch=prefetch)


def take(batches, count):
    return list(itertools.islice(batches, count))


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
            assert batch[key].dtype == other[key].dtype
    return True


def test_every_epoch_holds_each_example_once_in_another_order():
    read = labels(take(train_stream(Numbers(35), seed=0, batch_size=5), 21))
    epochs = [read[:35], read[35:70], read[70:]]
    assert all(sorted(epoch) == list(range(35)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_example_ids_count_the_stream():
    batches = take(train_stream(Numbers(7), seed=0, batch_size=3), 4)
    ids = np.concatenate([batch["example_id"] for batch in batches])
    assert ids.dtype == np.uint32
    assert ids.tolist() == list(range(12))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stream_started_late_equals_the_rest_of_the_unbroken_one(prefetch):
    source = Mixture([Numbers(11), Numbers(23, first=100)], [1.0, 2.0])
    whole = take(train_stream(source, seed=4, batch_size=3), 40)
    resumed = take(train_stream(source, seed=4, batch_size=3, start=17 * 3, prefetch=prefetch), 23)
    assert equal(whole[17:], resumed)


def test_two_processes_read_the_rows_that_one_reads():
    whole = take(train_stream(Numbers(29), seed=1, batch_size=6), 9)
    parts = [take(train_stream(Numbers(29), seed=1, batch_size=6, process_index=p, process_count=2), 9) for p in (0, 1)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert equal(whole, joined)


def test_the_batch_of_a_step_can_be_read_again():
    stream = TrainStream(Numbers(29), seed=1, batch_size=5, rows=slice(1, 4))
    batches = take(stream.batches(), 13)
    assert equal(batches[7:8], [stream.batch_at(7)])
    assert batches[7]["example_id"].tolist() == [36, 37, 38]


def test_neighbouring_seeds_do_not_share_epochs():
    orders = [labels(take(train_stream(Numbers(31), seed=seed, batch_size=31), 3)) for seed in (0, 1)]
    epochs = [tuple(order[first : first + 31]) for order in orders for first in (0, 31, 62)]
    assert len(set(epochs)) == 6


def test_a_mixture_keeps_its_weights_and_repeats_each_source_alone():
    source = Mixture([Numbers(13), Numbers(1009, first=1000)], [0.7, 0.3])
    read = np.array(labels(take(train_stream(source, seed=0, batch_size=10), 100)))
    assert abs((read < 1000).mean() - 0.7) < 0.02
    small = read[read < 1000]
    assert all(sorted(small[first : first + 13]) == list(range(13)) for first in range(0, 13 * 50, 13))
    large = read[read >= 1000]
    assert len(set(large)) == len(large)


def test_rows_of_a_joined_source_come_in_the_order_asked_for():
    joined = Joined([Numbers(3), Numbers(0), Numbers(5, first=10)])
    indices = np.array([7, 0, 3, 2, 7])
    assert len(joined) == 8
    assert joined.rows(indices)["label"].tolist() == [14, 0, 10, 2, 14]
    assert [joined[int(index)]["label"] for index in indices] == [14, 0, 10, 2, 14]
    with pytest.raises(IndexError):
        joined[8]


def test_a_sources_own_rows_are_used_where_it_has_them():
    class Fast(Numbers):
        def rows(self, indices):
            return {"label": indices * 2}

    assert read_rows(Fast(9), np.array([4, 1]))["label"].tolist() == [8, 2]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_evaluation_reads_every_row_once_and_masks_the_padding(prefetch):
    batches = list(eval_batches(Numbers(11), batch_size=4, prefetch=prefetch))
    mask = np.concatenate([batch["example_mask"] for batch in batches])
    assert [len(batch["label"]) for batch in batches] == [4, 4, 4]
    assert mask.tolist() == [True] * 11 + [False]
    assert np.array(labels(batches))[mask].tolist() == list(range(11))
    assert np.concatenate([batch["example_id"] for batch in batches])[mask].tolist() == list(range(11))


def test_evaluation_on_two_processes_has_as_many_batches_on_each():
    parts = [list(eval_batches(Numbers(5), batch_size=4, rows=slice(2 * p, 2 * p + 2))) for p in (0, 1)]
    assert [len(part) for part in parts] == [2, 2]
    read = [batch["label"][batch["example_mask"]].tolist() for part in parts for batch in part]
    assert read == [[0, 1], [4], [2, 3], []]


def test_closing_a_stream_ends_its_thread():
    stream = train_stream(Numbers(7), seed=0, batch_size=2)
    next(stream)
    assert any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    stream.close()
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_an_error_in_the_background_reaches_the_reader():
    class Broken(Numbers):
        def __getitem__(self, index):
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        next(train_stream(Broken(7), seed=0, batch_size=2))


def test_example_ids_wrap_at_32_bits():
    stream = train_stream(Numbers(7), seed=0, batch_size=2, start=2**32 - 1, prefetch=0)
    assert next(stream)["example_id"].tolist() == [2**32 - 1, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train_stream(Numbers(0), seed=0, batch_size=2), "training split has no rows"),
        (lambda: train_stream(Numbers(5), seed=-1, batch_size=2), "seed=-1"),
        (lambda: train_stream(Numbers(5), seed=0, batch_size=0), "batch_size=0"),
        (lambda: eval_batches(Numbers(0), batch_size=2), "no rows to evaluate"),
        (lambda: Mixture([Numbers(5), Numbers(5)], [1.0]), "give each source a positive weight"),
        (lambda: Mixture([Numbers(5), Numbers(5)], [1.0, 0.0]), "give each source a positive weight"),
        (lambda: Mixture([Numbers(5), Numbers(0)], [1.0, 1.0]), "source 1 of the mixture has no rows"),
    ],
)
def test_bad_input_is_refused_before_the_first_batch(make, message):
    with pytest.raises(ValueError, match=message):
        make()
