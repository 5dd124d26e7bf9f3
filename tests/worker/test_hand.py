"""The batch in hand: its offsets, and the headers of any record of it, however it was fetched."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.worker.record_batches import TP, Content, batch_of, fetched, logs, stock
from worker.hand import Hand
from worker.kafka.rawfetch import WholeBatches


@given(logs())
def test_whole_batches_give_the_headers_that_records_have(made: tuple[bytes, int, list[tuple[int, int]]]) -> None:
    raw, end, aborted = made
    records = list(stock(raw, aborted=aborted).take(None))
    by_offset = {record.offset: list(record.headers) for record in records}
    by_record = Hand(TP.topic, records, "v1")
    by_batch = Hand(TP.topic, list(fetched(WholeBatches, raw, aborted=aborted).take(None)), "v1")
    assert len(by_record) == len(by_batch) == len(records)
    for offset in range(-1, end + 1):
        expected = by_offset.get(offset, [])
        assert list(by_batch.headers(TP.partition, offset)) == expected
        assert list(by_record.headers(TP.partition, offset)) == expected
    assert by_batch.headers(TP.partition + 1, records[0].offset if records else 0) == ()


@pytest.mark.parametrize("kind", ["records", "batches"])
def test_it_tells_first_and_last_offset_of_each_partition(kind: str) -> None:
    contents = [Content(1_000, b"a", b"{}")] * 5
    raw = batch_of(contents, 10)[0] + batch_of(contents, 15)[0]
    taken = (stock if kind == "records" else lambda *a, **k: fetched(WholeBatches, *a, **k))(raw, fetch_offset=12)
    here = list(taken.take(None))
    elsewhere = [one._replace(partition=1) for one in here] if kind == "batches" else []
    hand = Hand(TP.topic, [*here, *elsewhere], "v7")
    assert hand.offsets == {TP.partition: (12, 19)} | ({1: (12, 19)} if elsewhere else {})
    assert hand.facts() == {
        "offsets": ["1/12-19", "3/12-19"] if elsewhere else ["3/12-19"], "model_version": "v7"
    }
