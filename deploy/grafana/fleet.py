"""Fleet: are we keeping up, and what is anomalous now. The first to open."""

from __future__ import annotations

from typing import Any

from deploy.grafana import frame
from deploy.grafana.panels import lines, row, stat, table

_GOOD = ((None, "green"), (60, "orange"), (120, "red"))
_SHARE = (
    "sum by (group) (rate(zmu_anomalies_total{$W}[15m])) / sum by (group) (rate(zmu_records_scored_total{$W}[15m]))"
)


def dashboard() -> dict[str, Any]:
    return frame.dashboard(
        "zmu-fleet",
        "zmu / Fleet",
        "Are we keeping up, and what is anomalous now.",
        [*_now(), *_keeping_up(), *_anomalous(), *_groups()],
    )


def _now() -> list[Any]:
    return [
        row("Now"),
        stat("Behind by", "Age of the newest scored reading of the slowest partition, while newer ones wait.",
             "max(zmu_consumer_time_lag_seconds{$T})", "s", _GOOD),
        stat("Waiting readings", "On the input topic, not yet scored and committed.",
             "sum(zmu_consumer_lag_records{$T})", "short", decimals=0),
        stat("Readings scored per second", "All workers together.",
             "sum(rate(zmu_records_scored_total{$W}[$I]))", "short"),
        stat("Within 5 s", "Share of readings scored, and their events acknowledged, within 5 s of their timestamp, "
             "over the last hour. Objective: 99 %.",
             'sum(rate(zmu_end_to_end_latency_seconds_bucket{$W,le="5.0"}[1h]))'
             " / sum(rate(zmu_end_to_end_latency_seconds_count{$W}[1h]))",
             "percentunit", ((None, "red"), (0.98, "orange"), (0.99, "green")), decimals=2),
        stat("Workers ready", "Of those that Prometheus sees.", "avg(zmu_ready{$W})", "percentunit",
             ((None, "red"), (0.999, "green"))),
        stat("Alerts firing", "Of the rules in deploy/prometheus/rules, pages and tickets.",
             'count(ALERTS{alertname=~"Zmu.*",alertstate="firing"}) or vector(0)', "short",
             ((None, "green"), (1, "red")), decimals=0),
    ]  # fmt: skip


def _keeping_up() -> list[Any]:
    return [
        row("Are we keeping up"),
        lines("Lag in time", "Age of the newest scored reading of the slowest partition, while newer ones wait. "
              "Red: ZmuTimeLag pages.",
              {"{{group}} {{topic}}": "max by (group, topic) (zmu_consumer_time_lag_seconds{$T})"}, "s", line_at=120),
        lines("Throughput", "Readings fetched and scored, and events and dead letters acknowledged, per second. Scored "
              "stays below fetched by the dead letters.",
              {
                  "fetched": "sum(rate(zmu_records_consumed_total{$T}[$I]))",
                  "scored": "sum(rate(zmu_records_scored_total{$W}[$I]))",
                  "to {{topic}}": "sum by (topic) (rate(zmu_events_produced_total{$W}[$I]))",
              }, "short"),
        lines("End-to-end latency", "From a reading's timestamp to its events acknowledged.",
              {
                  f"{share:g} %": f"histogram_quantile({share / 100:g}, "
                  "sum by (le) (rate(zmu_end_to_end_latency_seconds_bucket{$W}[$I])))"
                  for share in (50, 95, 99)
              }, "s", log=True),
        lines("Error budgets", "How fast they burn: at 1 the month's budget is gone after a month, at 14.4 after two "
              "days. By the rules in deploy/prometheus/rules/objectives.yml.",
              {
                  "latency {{group}}": 'sum by (group) (zmu:latency_missed:ratio_rate1h{group=~"$group"}) / 0.01',
                  "freshness {{group}}": 'sum by (group) (zmu:freshness_missed:ratio_1h{group=~"$group"}) / 0.005',
              }, "short", line_at=14.4),
    ]  # fmt: skip


def _anomalous() -> list[Any]:
    return [
        row("What is anomalous"),
        lines("Anomalous readings", "Events per minute, by severity.",
              {"{{severity}}": "60 * sum by (severity) (rate(zmu_anomalies_total{$W}[$I]))"}, "short", 8,
              stacked=True),
        lines("Share of readings that are anomalous", "Over 15 minutes, beside the share that the model was asked for.",
              {"{{group}}": _SHARE, "budget": "max(zmu_target_alarm_rate{$W})"}, "percentunit", 8),
        lines("Faults of sensors", "Sensors that no longer measure, and entities that fell silent, per minute.",
              {"{{kind}}": "60 * sum by (kind) (rate(zmu_sensor_faults_total{$W}[$I]))"}, "short", 8, stacked=True),
        lines("Dead letters", "Records that are no readings, per minute, by reason.",
              {"{{reason}}": "60 * sum by (reason) (rate(zmu_records_dead_lettered_total{$W}[$I]))"}, "short", 12,
              stacked=True),
        table("Alerts", "What fires now. What to do: docs/runbook.md.",
              'sum by (alertname, severity, group, instance) (ALERTS{alertname=~"Zmu.*",alertstate="firing"})',
              {"alertname": "Alert", "severity": "Severity", "group": "Group", "instance": "Worker"}),
    ]  # fmt: skip


def _groups() -> list[Any]:
    return [
        row("Groups"),
        table("Groups", "One line for each consumer group.",
              {
                  "workers": "count by (group) (zmu_build_info{$W})",
                  "partitions": "sum by (group) (zmu_assigned_partitions{$W})",
                  "entities": "sum by (group) (zmu_entities_tracked{$W})",
                  "scored": "sum by (group) (rate(zmu_records_scored_total{$W}[5m]))",
                  "waiting": "sum by (group) (zmu_consumer_lag_records{$T})",
                  "behind": "max by (group) (zmu_consumer_time_lag_seconds{$T})",
              },
              {
                  "group": "Group", "Value #A": "Workers", "Value #B": "Partitions", "Value #C": "Entities",
                  "Value #D": "Readings per second", "Value #E": "Waiting", "Value #F": "Behind by, s",
              }, 24, 5),
    ]  # fmt: skip
