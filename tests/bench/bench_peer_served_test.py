#!/usr/bin/env python3
"""What tools/bench_peer_served.py makes of two servers' answers; a socket, but neither server."""

import http.server
import json
import pathlib
import sys
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
# pylint: disable=wrong-import-position
import bench_peer_served as served
from serve_bench import harness


def line(**event):
    return b"data: " + json.dumps(event).encode() + b"\n"


def call(arrival, times):
    return {"arrival": arrival, "token_times": times}


class Answers(http.server.BaseHTTPRequestHandler):
    """Streams the tokens that were asked for, some to an event, as the peer does."""
    asked = []

    def do_POST(self):  # pylint: disable=invalid-name
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request)
        self.send_response(200)
        self.end_headers()
        for _ in range(request["n_predict"] // 2):
            self.wfile.write(line(content="a b", tokens=[5, 6]) + b"\n")
        self.wfile.write(line(content="", tokens=[], stop=True) + b"\n")

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass


class Tokens(unittest.TestCase):
    def test_are_counted_in_events_alone(self):
        self.assertEqual(served.tokens_of(line(content="t1 ", tokens=[1])), 1)
        self.assertEqual(served.tokens_of(line(content="", tokens=[])), 0)
        self.assertEqual(served.tokens_of(b"\n"), 0)
        self.assertEqual(served.tokens_of(b": ping\n"), 0)

    def test_an_error_of_the_peer_is_one_here(self):
        with self.assertRaisesRegex(harness.BenchError, "too long"):
            served.tokens_of(line(error={"message": "too long"}))

    def test_sixteen_requests_come_back_whole(self):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
            server.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            calls = served.peer_calls(server)
            server.shutdown()
            thread.join()
        self.assertEqual([len(c["token_times"]) for c in calls], [served.GENERATED] * 16)
        prompts = [tuple(request["prompt"]) for request in Answers.asked]
        self.assertEqual(len(set(prompts)), 16)
        self.assertEqual({len(prompt) for prompt in prompts}, {served.PROMPT})
        self.assertTrue(all(request["ignore_eos"] for request in Answers.asked))


class Figures(unittest.TestCase):
    def test_are_of_the_whole_load(self):
        steps = range(1, served.GENERATED + 1)
        calls = [call(0.0, [0.1 * i for i in steps]), call(0.0, [1 + 0.2 * i for i in steps])]
        figures = served.figures_of(calls)
        self.assertAlmostEqual(figures["rate"], 2 * served.GENERATED / (1 + 0.2 * served.GENERATED))
        self.assertAlmostEqual(figures["first_p50"], 100)
        self.assertAlmostEqual(figures["first_p95"], 1200)
        self.assertAlmostEqual(figures["gap_p99"], 200)

    def test_a_short_answer_is_an_error(self):
        with self.assertRaisesRegex(harness.BenchError, r"\[1\] tokens"):
            served.figures_of([call(0.0, [1.0])])

    def test_a_row_has_the_medians(self):
        runs = [{"rate": rate, "first_p50": 3000, "first_p95": 6000, "gap_p50": 20, "gap_p99": 60}
                for rate in (90, 110, 100)]
        self.assertIn("| a | 100 (90–110) | 3.0 s | 6.0 s | 20 ms | 60 ms |",
                      served.table({"a": runs}))


if __name__ == "__main__":
    unittest.main()
