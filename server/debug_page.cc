#include "server/debug_page.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace catserve {
namespace {

constexpr absl::string_view kHead = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>catserve requests</title><style>
body{font:14px/1.4 system-ui,sans-serif;margin:1.5em;color:#1b1f24;background:#fff}
h1{font-size:1.25em;margin:0}h2{font-size:1.05em;margin:1.6em 0 .4em}
p{margin:.3em 0;color:#57606a}
table{border-collapse:collapse}
th{font-weight:600;text-align:left;color:#57606a;border-bottom:1px solid #d0d7de}
th,td{padding:.25em .9em .25em 0;white-space:nowrap;vertical-align:top}
td{border-bottom:1px solid #eaeef2}
.n{text-align:right;font-variant-numeric:tabular-nums}
small{display:block;color:#8c959f;font:11px ui-monospace,monospace}
.bar{position:relative;width:280px;height:1.1em;margin-top:.15em;background:#f6f8fa}
.bar i,.key i{position:absolute;top:0;bottom:0}
.key i{position:static;display:inline-block;width:.8em;height:.8em;margin:0 .35em 0 1em}
.key i:first-child{margin-left:0}
.queue{background:#c4ccd4}.prefill{background:#4c8dd6}.decode{background:#58b368}
.reading{background:#f0c36d}
.bar .budget,.bar .preempted,.bar .paused{width:2px}
.key i.budget,.key i.preempted,.key i.paused{width:2px}
.budget{background:#8250df}.preempted{background:#cf222e}.paused{background:#bc4c00}
</style></head><body>
)";
constexpr absl::string_view kKey =
    "<p class=\"key\"><i class=\"queue\"></i>queue<i class=\"prefill\"></i>prefill"
    "<i class=\"decode\"></i>decode<i class=\"reading\"></i>computed, still being read"
    "<i class=\"budget\"></i>chunk size changed<i class=\"preempted\"></i>preempted"
    "<i class=\"paused\"></i>reader behind, or back</p>\n";

std::string Escape(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string Length(absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (seconds < 1) return absl::StrFormat("%.1f ms", 1e3 * seconds);
  return seconds < 120 ? absl::StrFormat("%.2f s", seconds)
                       : absl::StrFormat("%.1f min", seconds / 60);
}

std::string Bytes(int64_t bytes) {
  if (bytes < 1 << 20) return absl::StrFormat("%.1f KiB", static_cast<double>(bytes) / (1 << 10));
  return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string ChunkSize(int32_t chunk_size) {
  return chunk_size == 0 ? "&ndash;" : absl::StrCat(chunk_size);
}

absl::Time EndOf(const RequestTrace& trace, absl::Time now) { return trace.ended.value_or(now); }

absl::string_view NameOf(TraceMark::Kind kind) {
  switch (kind) {
    case TraceMark::Kind::kBudgetChanged: return "budget";
    case TraceMark::Kind::kPreempted: return "preempted";
    case TraceMark::Kind::kPaused: return "paused";
    case TraceMark::Kind::kResumed: break;
  }
  return "resumed";
}

std::string Describe(const TraceMark& mark) {
  if (mark.kind != TraceMark::Kind::kBudgetChanged) return std::string(NameOf(mark.kind));
  return absl::StrCat("C ", mark.from_chunk_size, " to ", mark.to_chunk_size);
}

// The way of one request, drawn so that `scale` fills the width.
std::string Timeline(const RequestTrace& trace, absl::Time now, absl::Duration scale) {
  const absl::Time end = EndOf(trace, now);
  const auto percent = [&](absl::Time at) {
    const double share = absl::FDivDuration(at - trace.received, scale);
    return 100 * std::clamp(share, 0.0, 1.0);
  };
  std::string bar = "<div class=\"bar\">";
  const auto part = [&](absl::string_view name, std::optional<absl::Time> from,
                        std::optional<absl::Time> to) {
    if (!from) return;
    const double left = percent(*from);
    absl::StrAppendFormat(&bar,
                          "<i class=\"%s\" style=\"left:%.2f%%;width:%.2f%%\" title=\"%s %s\">"
                          "</i>",
                          name, left, percent(to.value_or(end)) - left, name,
                          Length(to.value_or(end) - *from));
  };
  const absl::Time computed = trace.computed.value_or(end);
  part("queue", trace.received, trace.started.value_or(computed));
  part("prefill", trace.started, trace.first_result.value_or(computed));
  part("decode", trace.first_result, computed);
  part("reading", trace.computed, end);
  for (const TraceMark& mark : trace.marks) {
    const bool reader = mark.kind == TraceMark::Kind::kResumed;
    absl::StrAppendFormat(&bar, "<i class=\"%s\" style=\"left:%.2f%%\" title=\"%s\"></i>",
                          reader ? "paused" : NameOf(mark.kind), percent(mark.at), Describe(mark));
  }
  return bar + "</div>";
}

std::string Identity(const RequestTrace& trace) {
  const std::string owner = trace.owner.empty() ? "" : absl::StrCat(" of ", Escape(trace.owner));
  return absl::StrCat("<td>", Escape(trace.request_id), owner, "<small>", Escape(trace.trace_id),
                      "</small></td><td>", Escape(trace.method), "</td>");
}

std::string Tokens(const RequestTrace& trace) {
  return absl::StrCat("<td class=\"n\">", trace.prompt_tokens, "</td><td class=\"n\">",
                      trace.cached_tokens, "</td><td class=\"n\">", trace.generated_tokens,
                      "</td><td class=\"n\">", ChunkSize(trace.chunk_size), "</td>");
}

absl::Duration Longest(const std::vector<RequestTrace>& traces, absl::Time now) {
  absl::Duration longest = absl::Milliseconds(1);
  for (const RequestTrace& trace : traces) {
    longest = std::max(longest, EndOf(trace, now) - trace.received);
  }
  return longest;
}

constexpr absl::string_view kTokenHeads =
    "<th class=\"n\">prompt</th><th class=\"n\">cached</th><th class=\"n\">generated</th>"
    "<th class=\"n\">C</th>";

std::string RunningTable(const DebugView& view) {
  const std::vector<RequestTrace>& traces = view.running.oldest;
  std::string html = absl::StrCat(
      "<h2>", view.running.count, " under way",
      traces.size() < view.running.count ? absl::StrCat("; the oldest ", traces.size()) : "",
      "</h2>\n");
  if (traces.empty()) return html;
  absl::StrAppend(&html, "<table><tr><th>request, trace</th><th>method</th><th>state</th>",
                  "<th class=\"n\">age</th>", kTokenHeads,
                  "<th class=\"n\">KV by length</th><th>timeline</th></tr>\n");
  const absl::Duration longest = Longest(traces, view.now);
  for (const RequestTrace& trace : traces) {
    absl::StrAppend(&html, "<tr>", Identity(trace), "<td>", StateOf(trace), "</td><td class=\"n\">",
                    Length(view.now - trace.received), "</td>", Tokens(trace), "<td class=\"n\">",
                    Bytes(KvBytesByLength(trace, view.geometry)), "</td><td>",
                    Timeline(trace, view.now, longest), "</td></tr>\n");
  }
  return html + "</table>\n";
}

std::string SlowestTable(const DebugView& view) {
  std::string html = absl::StrCat("<h2>The slowest of the last ",
                                  absl::ToInt64Minutes(RequestTraces::kRecent), " minutes</h2>\n");
  if (view.slowest.empty()) return html + "<p>None has ended.</p>\n";
  absl::StrAppend(&html, "<table><tr><th>request, trace</th><th>method</th><th>end</th>",
                  "<th class=\"n\">took</th>", kTokenHeads,
                  "<th class=\"n\">KV at most</th><th class=\"n\">pieces</th>",
                  "<th class=\"n\">chunks</th><th>timeline</th></tr>\n");
  const absl::Duration longest = Longest(view.slowest, view.now);
  for (const RequestTrace& trace : view.slowest) {
    absl::StrAppend(&html, "<tr>", Identity(trace), "<td>", trace.reason, "<small>", trace.code,
                    "</small></td><td class=\"n\">", Length(*trace.ended - trace.received), "</td>",
                    Tokens(trace), "<td class=\"n\">", Bytes(trace.kv_bytes_peak),
                    "</td><td class=\"n\">", trace.prefill_pieces, "</td><td class=\"n\">",
                    trace.chunks_compressed, "<small>", Length(trace.compressing),
                    "</small></td><td>", Timeline(trace, view.now, longest), "</td></tr>\n");
  }
  return html + "</table>\n";
}

using nlohmann::json;

json SecondsAfter(const RequestTrace& trace, std::optional<absl::Time> at) {
  return at ? json(absl::ToDoubleSeconds(*at - trace.received)) : json(nullptr);
}

json MarksJson(const RequestTrace& trace) {
  json marks = json::array();
  for (const TraceMark& mark : trace.marks) {
    json item = {{"event", std::string(NameOf(mark.kind))},
                 {"seconds", SecondsAfter(trace, mark.at)}};
    if (mark.kind == TraceMark::Kind::kBudgetChanged) {
      item["from_chunk_size"] = mark.from_chunk_size;
      item["to_chunk_size"] = mark.to_chunk_size;
    }
    marks.push_back(std::move(item));
  }
  return marks;
}

// What running and ended requests share. Times are seconds since the arrival.
json TraceJson(const RequestTrace& trace) {
  return {{"request_id", trace.request_id},
          {"trace_id", trace.trace_id},
          {"owner", trace.owner},
          {"method", trace.method},
          {"received", absl::FormatTime(absl::RFC3339_full, trace.received, absl::UTCTimeZone())},
          {"started", SecondsAfter(trace, trace.started)},
          {"first_result", SecondsAfter(trace, trace.first_result)},
          {"computed", SecondsAfter(trace, trace.computed)},
          {"prompt_tokens", trace.prompt_tokens},
          {"cached_tokens", trace.cached_tokens},
          {"generated_tokens", trace.generated_tokens},
          {"choices", trace.choices},
          {"chunk_size", trace.chunk_size},
          {"marks", MarksJson(trace)},
          {"marks_left_out", trace.marks_left_out}};
}

}  // namespace

int64_t KvBytesByLength(const RequestTrace& trace, const ModelGeometry& geometry) {
  const bool holds = trace.started && !trace.preempted && !trace.computed;
  if (!holds || (geometry.compresses() && !geometry.Offers(trace.chunk_size))) return 0;
  const int64_t tokens = trace.prompt_tokens + trace.generated_tokens / trace.choices;
  return trace.choices * PageBytes(geometry, EntriesAtRest(geometry, trace.chunk_size, tokens));
}

std::string DebugHtml(const DebugView& view) {
  return absl::StrCat(kHead, "<h1>", view.model.empty() ? "catserve" : Escape(view.model),
                      "</h1>\n<p>",
                      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", view.now, absl::UTCTimeZone()),
                      "; <a href=\"?format=json\">as JSON</a></p>\n", kKey, RunningTable(view),
                      SlowestTable(view), "</body></html>\n");
}

std::string DebugJson(const DebugView& view) {
  json running = json::array();
  for (const RequestTrace& trace : view.running.oldest) {
    json item = TraceJson(trace);
    item["state"] = std::string(StateOf(trace));
    item["age_seconds"] = absl::ToDoubleSeconds(view.now - trace.received);
    item["kv_bytes_by_length"] = KvBytesByLength(trace, view.geometry);
    running.push_back(std::move(item));
  }
  json slowest = json::array();
  for (const RequestTrace& trace : view.slowest) {
    json item = TraceJson(trace);
    item["ended"] = SecondsAfter(trace, trace.ended);
    item["code"] = std::string(trace.code);
    item["reason"] = std::string(trace.reason);
    item["prefill_pieces"] = trace.prefill_pieces;
    item["chunks_compressed"] = trace.chunks_compressed;
    item["compress_seconds"] = absl::ToDoubleSeconds(trace.compressing);
    item["kv_bytes_peak"] = trace.kv_bytes_peak;
    item["budget_changes"] = trace.budget_changes;
    item["preemptions"] = trace.preemptions;
    slowest.push_back(std::move(item));
  }
  const json document = {{"model", view.model},
                         {"running_count", view.running.count},
                         {"running", std::move(running)},
                         {"slowest", std::move(slowest)}};
  return document.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace catserve
