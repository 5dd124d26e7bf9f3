"""Model: is what it says still sound, and where did it come from."""

from __future__ import annotations

from typing import Any

from deploy.grafana import frame
from deploy.grafana.panels import bars, heat, lines, row, stat, table

_SCORES = "zmu_anomaly_score_bucket{$W}"


def _quantile(share: float, window: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({_SCORES}[{window}])))"


def _alarms(window: str) -> str:
    return (
        f"sum(rate(zmu_anomalies_total{{$W}}[{window}])) / sum(rate(zmu_records_scored_total{{$W}}[{window}]))"
    )


def dashboard() -> dict[str, Any]:
    return frame.dashboard(
        "zmu-model",
        "zmu / Model",
        "Scores against the threshold, alarms against their budget, versions and trainings.",
        [*_served(), *_scores(), *_drift(), *_budget(), *_versions(), *_training()],
    )


def _served() -> list[Any]:
    return [
        row("Served"),
        table("Models served", "What each worker serves.", "zmu_model_info{$W}",
              {
                  "instance": "Worker", "name": "Model", "version": "Version", "kind": "Kind", "device": "Device",
                  "sha256": "SHA-256 of the weights",
              }, 24, 5),
        stat("Served since", "Since the newest load; a restart is a load too.",
             "time() - max(zmu_model_loaded_timestamp_seconds{$W} > 0)", "s"),
        stat("Raw threshold", "The raw score at which anomaly_score is 1.", "max(zmu_threshold{$W})", "short"),
        stat("Alarm budget", "Share of normal readings that may be in alarm.", "max(zmu_target_alarm_rate{$W})",
             "percentunit"),
        stat("Entities", "With state in memory.", "sum(zmu_entities_tracked{$W})", "short", decimals=0),
        stat("Not seen in training", "Entities whose events carry the flag cold_start.",
             "sum(zmu_entities_cold_start{$W}) / sum(zmu_entities_tracked{$W})", "percentunit",
             ((None, "green"), (0.1, "orange"), (0.5, "red"))),
        stat("Warming up", "Share of readings scored before their entity's window was full, over 15 minutes.",
             "sum(rate(zmu_readings_warming_up_total{$W}[15m])) / sum(rate(zmu_records_scored_total{$W}[15m]))",
             "percentunit"),
    ]  # fmt: skip


def _scores() -> list[Any]:
    return [
        row("Scores"),
        heat("Scores over time", "How many readings fell into each band of anomaly_score. Above 1 is anomalous.",
             _SCORES, "anomaly_score up to"),
        bars("Scores of the last hour", "How many readings scored up to so much. Above 1 is anomalous.",
             f"sum by (le) (increase({_SCORES}[1h]))", "{{le}}", "short"),
        lines("Scores against the threshold",
              "Quantiles of anomaly_score; the red line is the threshold, 1 whatever the model.",
              {f"{100 * share:g} %": _quantile(share, "$I") for share in (0.5, 0.99, 0.999)}, "short", log=True,
              line_at=1),
        lines("Drift of ordinary scores",
              "The median and the 90th percentile of 15 minutes over those of 6 hours. Readings that are all a little "
              "less normal move both long before there are alarms; 1 is no change.",
              {
                  "median": f"{_quantile(0.5, '15m')} / {_quantile(0.5, '6h')}",
                  "90 %": f"{_quantile(0.9, '15m')} / {_quantile(0.9, '6h')}",
              }, "short"),
    ]  # fmt: skip


def _drift() -> list[Any]:
    return [
        row("Drift"),
        lines("Drift by feature",
              "Population stability index of the newest readings beside those that the version learnt from. Below 0.1 "
              "is no change; red: ZmuDrift, after three hours.",
              {"{{feature}}": "max by (feature) (zmu_drift_statistic{$W})"}, "short", 8, line_at=0.25),
        lines("Distance by feature", "Kolmogorov and Smirnov's, of the same: 0 is the same distribution, 1 another.",
              {"{{feature}}": "max by (feature) (zmu_drift_ks_statistic{$W})"}, "short", 8),
        lines("Drift of raw scores", "Population stability index beside the held-out ones.",
              {"{{instance}}": "max by (instance) (zmu_score_drift_statistic{$W})"}, "short", 8, line_at=0.25),
    ]  # fmt: skip


def _budget() -> list[Any]:
    return [
        row("Alarms against their budget"),
        lines("Share of readings in alarm",
              "Over 15 minutes, over 6 hours and of each worker's last 100,000 readings, beside the share that the "
              "model was asked for.",
              {
                  "15 minutes": _alarms("15m"),
                  "6 hours": _alarms("6h"),
                  "last 100,000": "avg(zmu_realised_alarm_rate{$W})",
                  "budget": "max(zmu_target_alarm_rate{$W})",
              }, "percentunit", 8),
        lines("Share in alarm, by version", "Of the scores of each version, those above 1.",
              {
                  "{{model_version}}": "1 - sum by (model_version) (rate(zmu_anomaly_score_bucket{$W,le=\"1.0\"}[$I]))"
                  " / sum by (model_version) (rate(zmu_anomaly_score_count{$W}[$I]))"
              }, "percentunit", 8),
        lines("Severity", "Anomalous readings per minute.",
              {"{{severity}}": "60 * sum by (severity) (rate(zmu_anomalies_total{$W}[$I]))"}, "short", 8, stacked=True),
    ]  # fmt: skip


def _versions() -> list[Any]:
    return [
        row("Versions"),
        lines("Readings scored, by version", "Per second.",
              {"{{model_version}}": "sum by (model_version) (rate(zmu_records_scored_total{$W}[$I]))"}, "short", 8,
              stacked=True),
        lines("Workers, by version", "A new version reaches all within ZMU_MODEL__RELOAD_SECONDS.",
              {"{{name}} {{version}}": "count by (name, version) (zmu_model_info{$W})"}, "short", 8, stacked=True),
        lines("Looks at a newer version", "Loaded or refused, since the start of each worker.",
              {"{{result}}": "sum by (result) (zmu_model_reloads_total{$W})"}, "short", 8),
    ]  # fmt: skip


def _training() -> list[Any]:
    return [
        row("Training, where zmu-training schedule runs"),
        stat("Last good training", "Since a version passed its gates.",
             "time() - max(zmu_training_last_success_timestamp_seconds > 0)", "s",
             ((None, "green"), (6 * 3600, "orange"), (12 * 3600, "red"))),
        stat("Training took", "The last one.", "max(zmu_training_duration_seconds)", "s"),
        stat("Next training", "Until it is due.", "min(zmu_training_next_start_timestamp_seconds > 0) - time()", "s"),
        lines("Held-out loss", "Of each training.", {"loss": "max(zmu_training_validation_loss)"}, "short",
              least=None),
        lines("Runs and promotions", "Since the start of zmu-training.",
              {
                  "{{result}}": "sum by (result) (zmu_training_runs_total)",
                  "version {{result}}": "sum by (result) (zmu_training_promotions_total)",
              }, "short"),
        lines("What people said of events", "Labels that the last training took into account.",
              {"{{label}}": "sum by (label) (zmu_training_feedback_labels)"}, "short"),
    ]  # fmt: skip
