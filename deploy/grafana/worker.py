"""Worker: where the time goes, partition by partition and process by process."""

from __future__ import annotations

from typing import Any

from deploy.grafana import frame
from deploy.grafana.panels import heat, lines, row, stat

# A snapshot settles beside the loop: its time is nobody's work, and would hide the others'.
_STAGES = '{$W,stage!="snapshot"}'


def dashboard() -> dict[str, Any]:
    return frame.dashboard(
        "zmu-worker",
        "zmu / Worker",
        "Where the time goes: stages, batches, partitions, output, processes.",
        [*_now(), *_time(), *_partitions(), *_output(), *_process()],
    )


def _now() -> list[Any]:
    return [
        row("Now"),
        stat("Ready", "Share of the chosen workers.", "avg(zmu_ready{$W})", "percentunit",
             ((None, "red"), (0.999, "green"))),
        stat("Since the last poll", "Of the worker whose loop turned longest ago. 120 s: the watchdog ends it.",
             "time() - min(zmu_last_poll_timestamp_seconds{$W} > 0)", "s",
             ((None, "green"), (30, "orange"), (120, "red"))),
        stat("Since the last commit",
             "Of the worker that committed longest ago. On a quiet topic this grows and is well.",
             "time() - min(zmu_last_record_processed_timestamp_seconds{$W} > 0)", "s"),
        stat("Partitions", "Assigned to the chosen workers.", "sum(zmu_assigned_partitions{$W})", "short", decimals=0),
        stat("In flight", "Events and dead letters sent and not yet acknowledged.", "sum(zmu_inflight_records{$W})",
             "short", decimals=0),
        stat("Starts in a day", "Processes that began anew under the same address.",
             'sum(changes(process_start_time_seconds{job="zmu-worker",$W}[1d]))', "short",
             ((None, "green"), (3, "orange"), (10, "red")), decimals=0),
    ]  # fmt: skip


def _time() -> list[Any]:
    return [
        row("Where the time goes"),
        lines("Time in each stage", "Seconds of work per second, all chosen workers together.",
              {"{{stage}}": f"sum by (stage) (rate(zmu_stage_duration_seconds_sum{_STAGES}[$I]))"}, "s", 8,
              stacked=True),
        lines("Slowest batches by stage", "95 % of the batches took no longer.",
              {"{{stage}}": "histogram_quantile(0.95, "
               f"sum by (le, stage) (rate(zmu_stage_duration_seconds_bucket{_STAGES}[$I])))"}, "s", 8, log=True),
        lines("Batches", "Per second, by what ended them: full, the wait, or the end of what was there.",
              {"{{reason}}": "sum by (reason) (rate(zmu_batches_total{$W}[$I]))"}, "short", 8, stacked=True),
        heat("End-to-end latency",
             "From a reading's timestamp to its events acknowledged; how many readings took so long.",
             "zmu_end_to_end_latency_seconds_bucket{$W}", "seconds up to"),
        heat("Readings in a batch", "Large batches: the worker is catching up.", "zmu_batch_records_bucket{$W}",
             "readings up to"),
    ]  # fmt: skip


def _partitions() -> list[Any]:
    return [
        row("Partitions"),
        lines("Lag in time, by partition", "Age of the newest scored reading, while newer ones wait.",
              {"{{topic}} {{partition}}": "max by (topic, partition) (zmu_consumer_time_lag_seconds{$T})"}, "s", 8,
              line_at=120),
        lines("Waiting readings, by partition", "Not yet scored and committed.",
              {"{{topic}} {{partition}}": "sum by (topic, partition) (zmu_consumer_lag_records{$T})"}, "short", 8),
        lines("Fetched, by partition", "Readings per second. One far above the others has hot keys.",
              {"{{topic}} {{partition}}": "sum by (topic, partition) (rate(zmu_records_consumed_total{$T}[$I]))"},
              "short", 8),
        lines("Assigned partitions", "By worker.",
              {"{{instance}}": "sum by (instance) (zmu_assigned_partitions{$W})"}, "short", 8, stacked=True),
        lines("Rebalances", "Changes of assignment in 15 minutes, by kind.",
              {"{{kind}}": "sum by (kind) (increase(zmu_rebalances_total{$W}[15m]))"}, "short", 8),
        lines("State taken over",
              "Entities whose state came from the worker before, was read again further back, or is lost.",
              {"{{result}}": "sum by (result) (zmu_state_entities_total{$W})"}, "short", 8),
    ]  # fmt: skip


def _output() -> list[Any]:
    return [
        row("Output"),
        lines("Acknowledged", "Events, incidents and dead letters per second, by topic.",
              {"{{topic}}": "sum by (topic) (rate(zmu_events_produced_total{$W}[$I]))"}, "short", 8, stacked=True),
        lines("Commits", "Of input offsets, per minute; transactions where delivery is exactly-once.",
              {
                  "{{result}}": "60 * sum by (result) (rate(zmu_commits_total{$W}[$I]))",
                  "transactions {{result}}": "60 * sum by (result) (rate(zmu_transactions_total{$W}[$I]))",
              }, "short", 8),
        lines("Snapshots of state", "Per minute.",
              {"{{result}}": "60 * sum by (result) (rate(zmu_snapshots_total{$W}[$I]))"}, "short", 8),
        lines("Dead letters", "Records that are no readings, per minute, by reason.",
              {"{{reason}}": "60 * sum by (reason) (rate(zmu_records_dead_lettered_total{$W}[$I]))"}, "short", 8,
              stacked=True),
        lines("Errors survived", "Since the start of each worker, by stage and type.",
              {"{{stage}} {{type}}": "sum by (stage, type) (zmu_errors_total{$W})"}, "short", 8),
        lines("In flight", "Events and dead letters sent and not yet acknowledged, by worker.",
              {"{{instance}}": "sum by (instance) (zmu_inflight_records{$W})"}, "short", 8),
    ]  # fmt: skip


def _process() -> list[Any]:
    return [
        row("Processes"),
        lines("Resident memory", "By worker.",
              {"{{instance}}": 'process_resident_memory_bytes{job="zmu-worker",$W}'}, "bytes", 8),
        lines("CPU", "Cores in use, by worker.",
              {"{{instance}}": 'rate(process_cpu_seconds_total{job="zmu-worker",$W}[$I])'}, "short", 8),
        lines("Memory of the model's device", "What it holds for us, by worker.",
              {"{{instance}}": "sum by (instance) (zmu_device_memory_bytes{$W})"}, "bytes", 8),
        lines("Entities", "With state in memory, by worker.",
              {"{{instance}}": "sum by (instance) (zmu_entities_tracked{$W})"}, "short", 8, stacked=True),
        lines("Open files", "By worker.", {"{{instance}}": 'process_open_fds{job="zmu-worker",$W}'}, "short", 8),
        lines("Garbage collections", "Of Python's oldest generation, per minute.",
              {"{{instance}}": '60 * sum by (instance) (rate(python_gc_collections_total{$W,generation="2"}[$I]))'},
              "short", 8),
    ]  # fmt: skip
