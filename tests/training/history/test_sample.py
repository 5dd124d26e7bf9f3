"""A bounded, fair part of a history; and columns that wait on disk."""

from __future__ import annotations

import numpy as np
import pytest

from training.history import sample
from training.history.spool import Spool
from worker.errors import TrainingError
from worker.records import Batch


def test_a_loud_machine_gets_no_more_than_the_others() -> None:
    entity_N = np.repeat(np.array([0, 1, 2], np.int32), [100_000, 3000, 500])
    np.random.default_rng(0).shuffle(entity_N)
    kept = sample.fair(entity_N, 6000, 0.25, 1)
    assert np.bincount(entity_N[kept]).tolist() == [2750, 2750, 500]
    assert np.all(np.diff(kept) > 0)


def test_the_newest_stay_together_and_the_rest_are_blocks() -> None:
    kept = sample.fair(np.zeros(50_000, np.int32), 4000, 0.25, 1)
    assert len(kept) == 4000
    assert kept[-1000:].tolist() == list(range(49_000, 50_000))
    breaks = np.flatnonzero(np.diff(kept[:3000]) > 1)
    assert 5 <= len(breaks) <= 3000 / sample.BLOCK
    assert kept[0] < 20_000             # old ones too


def test_what_fits_is_kept_whole_and_the_draw_is_repeatable() -> None:
    entity_N = np.zeros(300, np.int32)
    assert sample.fair(entity_N, 300, 0.25, 1).tolist() == list(range(300))
    big = np.zeros(20_000, np.int32)
    assert sample.fair(big, 2000, 0.25, 7).tolist() == sample.fair(big, 2000, 0.25, 7).tolist()
    assert sample.fair(big, 2000, 0.25, 7).tolist() != sample.fair(big, 2000, 0.25, 8).tolist()


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [([5, 5, 5], 100, 5), ([100, 100], 100, 50), ([10, 10, 980], 100, 80), ([1] * 10, 3, 1)],
)
def test_the_quota(counts: list[int], most: int, expected: int) -> None:
    found = sample.quota(np.array(counts), most)
    assert found == expected
    assert sum(min(count, found) for count in counts) <= max(most, len(counts))


def test_a_spool_gives_back_what_it_took() -> None:
    rng, spool = np.random.default_rng(0), Spool(3)
    parts = [
        Batch(
            rng.normal(size=(n, 3)).astype(np.float32), np.full(n, n, np.int32), np.arange(n), np.zeros(n, np.int32),
            np.arange(n) + 2**40,
        )
        for n in (5, 0, 4000)
    ]
    for part in parts:
        spool.append(part)
    found = spool.batch()
    spool.close()
    assert len(found) == 4005
    np.testing.assert_array_equal(found.x_BF, np.concatenate([part.x_BF for part in parts]))
    assert found.take(slice(3, 7)).entity_B.tolist() == [5, 5, 4000, 4000]
    assert found.offset_B.max() == 2**40 + 3999
    with pytest.raises(ValueError, match="read-only"):
        found.x_BF[0, 0] = 1


def test_an_empty_spool() -> None:
    spool = Spool(2)
    assert spool.batch().x_BF.shape == (0, 2)
    spool.close()


def test_a_full_disk_is_told() -> None:
    spool = Spool(1)
    spool._files["x_BF"].close()
    spool._files["x_BF"] = open("/dev/full", "wb", buffering=0)     # noqa: SIM115
    with pytest.raises(TrainingError, match="set TMPDIR"):
        spool.append(Batch(np.ones((9, 1), np.float32), *(np.ones(9, np.int64) for _ in range(4))))   # type: ignore[arg-type]
    spool.close()
