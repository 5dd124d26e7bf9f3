"""The live part: break pumps, gather what the worker says, show it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import msgspec
from rich.console import Console

from deploy.demo.faults import Fault
from deploy.demo.interrupt import Interrupt
from deploy.demo.kafka import DemoKafka
from deploy.demo.lines import Lines
from deploy.demo.live import LivePlant
from deploy.demo.programs import Worker
from deploy.demo.pumps import Pumps
from deploy.demo.referee import Referee, epoch_ms
from deploy.demo.scenario import first_faults, later_faults
from deploy.demo.screen import Screen
from deploy.demo.view import Scores, View
from deploy.demo.vitals import Scraper
from worker.records import Event

_POLL_MS = 200                  # also how often the screen is redrawn
_SCRAPE_SECONDS = 0.5
_AHEAD_MS = 5_000               # how long before its start a fault is made known to the plant


def watch(
    console: Console,
    kafka: DemoKafka,
    pumps: Pumps,
    live: LivePlant,
    worker: Worker,
    seed: int,
    seconds: float | None,
    interrupt: Interrupt,
) -> View:
    """For so many seconds, or, with None, until Ctrl-C, which `interrupt` must remember; it ends either. Returns the
    last view.

    Raises what ended the plant or the worker, if something did.
    """
    start_ms = _now_ms()
    end_ms = None if seconds is None else start_ms + round(seconds * 1000)
    referee, scores = Referee(), Scores()
    scraper = Scraper(worker.metrics_url, time.monotonic)
    coming: Iterator[Fault] = iter(()) if seconds is not None else later_faults(pumps.entities, seed, start_ms)
    later = next(coming, None)
    faults = first_faults(start_ms)
    pumps.inject(faults)
    referee.expect(faults)

    def view() -> View:
        return View(
            pumps.entities, kafka.what, worker.metrics_url, scraper.last, referee, scores, _now_ms(), start_ms, end_ms
        )

    next_scrape_seconds = 0.0
    with contextlib.closing(kafka.anomalies()) as consumer, (
        Screen(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)
    ) as display:
        while not interrupt.asked and (end_ms is None or _now_ms() < end_ms):
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                for record in records:
                    event = msgspec.json.decode(record.value, type=Event)
                    referee.see(event)
                    scores.note(event.entity, epoch_ms(event.timestamp), event.anomaly_score)
            if later is not None and later.start_ms - _AHEAD_MS < _now_ms():
                pumps.inject([later])
                referee.expect([later])
                later = next(coming, None)
            if time.monotonic() >= next_scrape_seconds:
                scraper.look()
                next_scrape_seconds = time.monotonic() + _SCRAPE_SECONDS
            worker.check()
            live.check()
            display.show(view())
    return view()


def _now_ms() -> int:
    return round(time.time() * 1000)
