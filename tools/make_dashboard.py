#!/usr/bin/env python3
"""Writes Grafana's dashboard of catserve, helm/catserve/files/dashboard.json, to standard output
(tools/check_deploy.sh --write puts it there). Grafana's own builders make sure of the format.
"""

import dataclasses
import sys

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions, StackingConfig, VizLegendOptions)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel and its queries: legend to expression, with JOB and RATE in their places."""

    title: str
    about: str
    unit: str
    queries: dict
    stacked: bool = False


def total(metric, by="", labels=""):
    """Sum of a gauge."""
    return _sum(f"catserve_{metric}{{JOB{labels}}}", by)


def rate(metric, by="", labels=""):
    """Sum of a counter's rate."""
    return _sum(f"rate(catserve_{metric}{{JOB{labels}}}[RATE])", by)


def _sum(what, by):
    return f"sum by ({by}) ({what})" if by else f"sum({what})"


def quantiles(metric):
    """Three quantiles of a histogram, over all servers."""
    return {f"p{round(q * 100)}": f"histogram_quantile({q}, {rate(metric + '_bucket', 'le')})"
            for q in (0.5, 0.95, 0.99)}


def mean(metric, labels=""):
    """Mean of a histogram's observations."""
    return f"{rate(metric + '_sum', labels=labels)} / {rate(metric + '_count', labels=labels)}"


FAILED = ', code=~"INTERNAL|UNKNOWN|DATA_LOSS"'
REFUSED = ', code="RESOURCE_EXHAUSTED"'
GENERATE = ', method="Generate"'

OVERVIEW = [
    Panel("Ready servers", "They accept requests.", "short", {"ready": total("ready")}),
    Panel("Calls", "Ended, of all methods.", "reqps", {"calls": rate("requests_total")}),
    Panel("Tokens generated", "By all servers.", "short", {
        "tokens/s": rate("generated_tokens_total")}),
    Panel("Waiting requests", "In all queues.", "short", {"waiting": total("waiting_requests")}),
    Panel("KV memory in use", "Of the fullest server.", "percentunit", {
        "used": "max(catserve_kv_usage_ratio{JOB})"}),
    Panel("Dense twin / used", "How many times as much KV memory the dense twin would hold for "
          "the same sequences.", "short", {
              "times": f"{total('kv_dense_twin_bytes')} / {total('kv_used_bytes')}"}),
]

ROWS = {
    "Traffic": [
        Panel("Calls by method", "", "reqps", {"{{method}}": rate("requests_total", "method")}),
        Panel("Calls by code", "", "reqps", {"{{code}}": rate("requests_total", "code")}),
        Panel("Tokens", "Prompt tokens when a request starts, generated ones as they come.",
              "short", {"prompt": rate("prompt_tokens_total"),
                        "generated": rate("generated_tokens_total")}),
        Panel("Endings of choices", "", "short", {
            "{{reason}}": rate("choices_finished_total", "reason")}),
    ],
    "Latency": [
        Panel("Time to first token", "From a call's arrival.", "s",
              quantiles("time_to_first_token_seconds")),
        Panel("Between tokens", "Of one choice.", "s", quantiles("inter_token_seconds")),
        Panel("Where the time goes", "Means of Generate, one upon the other.", "s", {
            "queue": mean("queue_seconds", GENERATE), "prefill": mean("prefill_seconds", GENERATE),
            "decode": mean("decode_seconds", GENERATE)}, stacked=True),
        Panel("Whole calls", "95 of 100 are faster.", "s", {
            "{{method}}": "histogram_quantile(0.95, "
                          f"{rate('request_seconds_bucket', 'method, le')})"}),
    ],
    "The dial": [
        Panel("Tokens by chunk size", "Generated, by the chunk size they were drawn at.", "short",
              {"C = {{chunk_size}}": rate("generated_tokens_total", "chunk_size")}, stacked=True),
        Panel("Prompt tokens by chunk size", "Of requests that started.", "short",
              {"C = {{chunk_size}}": rate("prompt_tokens_total", "chunk_size")}, stacked=True),
        Panel("Budget changes", "Requests whose chunk size the server changed.", "short",
              {"{{direction}}": rate("budget_changes_total", "direction")}),
        Panel("Chunks compressed", "", "short", {"chunks/s": rate("chunks_compressed_total")}),
    ],
    "Memory": [
        Panel("KV memory", "What is held, and what dense models would hold for the same sequences.",
              "bytes", {"used": total("kv_used_bytes"),
                        "dense twin": total("kv_dense_twin_bytes"),
                        "dense, as wide": total("kv_dense_same_width_bytes")}),
        Panel("Pages", "", "short", {"used": total("kv_pages_used"),
                                     "cached": total("kv_pages_cached"),
                                     "capacity": total("kv_pages_capacity")}),
        Panel("Prefix cache", "Of the prompt tokens looked up, the share found.", "percentunit", {
            "found": f"{rate('prefix_cache_hit_tokens_total')} / "
                     f"{rate('prefix_cache_query_tokens_total')}"}),
        Panel("Preemptions", "Requests that lost their memory and were computed anew.", "short",
              {"{{instance}}": rate("preemptions_total", "instance")}),
    ],
    "Queue and errors": [
        Panel("Queue", "Waiting requests, and how many may wait.", "short", {
            "{{instance}}": total("waiting_requests", "instance"),
            "room of {{instance}}": total("waiting_requests_capacity", "instance")}),
        Panel("Running requests", "Paused: their readers are behind.", "short", {
            "running": total("running_requests"), "paused": total("paused_requests")}),
        Panel("Errors", "Shares of all calls: ended by us, and refused for want of room.",
              "percentunit", {
                  "failed": f"({rate('requests_total', labels=FAILED)} or vector(0)) / "
                            f"{rate('requests_total')}",
                  "refused": f"({rate('requests_total', labels=REFUSED)} or vector(0)) / "
                             f"{rate('requests_total')}"}),
        Panel("KV memory in use by server", "", "percentunit", {
            "{{instance}}": "catserve_kv_usage_ratio{JOB}"}),
    ],
    "Steps": [
        Panel("Where the step's time goes", "Seconds of the step thread in a second.",
              "percentunit", {"{{part}}": rate("step_seconds_total", "part")}, stacked=True),
        Panel("Steps", "", "short", {"steps/s": rate("steps_total")}),
        Panel("Rows of a step", "Rows that entered the decoder.", "short", quantiles("step_rows")),
        Panel("Live tokens", "Read so far by the sequences that run.", "short", {
            "tokens": total("live_tokens")}),
    ],
}


def panels():
    """Every panel, in order."""
    return OVERVIEW + [panel for row in ROWS.values() for panel in row]


def expression(query):
    """A query in Grafana's form."""
    return query.replace("JOB", 'job=~"$job"').replace("RATE", "$__rate_interval")


def _filled(builder, panel):
    builder = builder.title(panel.title).description(panel.about).unit(panel.unit).min(0)
    builder = builder.datasource(SOURCE)
    for number, (legend, query) in enumerate(panel.queries.items()):
        builder = builder.with_target(prometheus.Dataquery().expr(expression(query))
                                      .legend_format(legend).ref_id(chr(ord("A") + number)))
    return builder


def _stat(panel):
    options = ReduceDataOptions().calcs(["lastNotNull"])
    return _filled(stat.Panel(), panel).reduce_options(options).height(4).span(4)


def _graph(panel):
    legend = VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM).display_mode(
        LegendDisplayMode.LIST)
    graph = _filled(timeseries.Panel(), panel).legend(legend).height(8).span(6).fill_opacity(10)
    if panel.stacked:
        graph = graph.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return graph


def build():
    """The dashboard."""
    board = (dashboard.Dashboard("catserve").uid("catserve").tags(["catserve", "llm", "grpc"])
             .refresh("30s").time("now-1h", "now").timezone("browser").readonly()
             .with_variable(dashboard.DatasourceVariable("datasource").label("Data source")
                            .type("prometheus"))
             .with_variable(dashboard.QueryVariable("job").label("Release").datasource(SOURCE)
                            .query("label_values(catserve_ready, job)").multi(True)
                            .include_all(True).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)))
    for panel in OVERVIEW:
        board = board.with_panel(_stat(panel))
    for title, row in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in row:
            board = board.with_panel(_graph(panel))
    return board.build()


def text():
    """The dashboard's file."""
    return JSONEncoder(sort_keys=True, indent=1).encode(build()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
