#!/usr/bin/env python3
"""The parts of tools/evaluate without a server: what is asked of one, what is made of answers."""

import json
import pathlib
import sys
import tempfile
import types
import unittest
import unittest.mock
import zlib

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))
# pylint: disable=wrong-import-position
from evaluate import DENSE, EvaluationError, bound, card, cost, facts, recall, suite, tables, text


def token(token_id, logprob=0.0, best=None):
    return types.SimpleNamespace(token_id=token_id, logprob=logprob, top=((best, logprob),))


class Words:
    """A served model whose tokens are words; it costs a token as many nats as its position, and its
    guess at a token is what `guess` says."""

    def __init__(self, context=16, guess=lambda tokens, i, size: 0):
        self.info = types.SimpleNamespace(context_limit=context, vocabulary_size=256)
        self.bos, self.client, self.guess, self.asked = [0], self, guess, []

    def tokenize(self, content):
        return [1000 + zlib.crc32(word.encode()) for word in content.split()]

    def text_bytes(self, token_ids):
        return 2 * len(token_ids)

    def score(self, token_ids, chunk_size, top=None):
        self.asked.append((token_ids, chunk_size, top))
        return types.SimpleNamespace(
            tokens=[token(t, -float(i), self.guess(token_ids, i, chunk_size))
                    for i, t in enumerate(token_ids) if i],
            scored_bytes=2 * (len(token_ids) - 1))


class Texts(unittest.TestCase):
    def test_windows_begin_like_the_models_sequences_and_fill_its_context(self):
        pieces = text.windows(list(range(1, 32)), Words(context=16))
        self.assertEqual([len(piece) for piece in pieces], [16, 16, 2])
        self.assertEqual([piece[0] for piece in pieces], [0, 0, 0])
        self.assertEqual(text.windows([1] * 15, Words(context=16)), [[0] + [1] * 15])

    def test_losses_are_counted_over_all_windows(self):
        served = Words()
        losses = text.measure(served, [[0, 5, 6, 7], [0, 8]], 4)
        self.assertEqual(losses.tokens, 4)
        # 1 + 2 + 3 and 1 nats over 6 and 2 bytes
        self.assertAlmostEqual(losses.bits_per_byte(), 7 / numpy.log(2) / 8)

    def test_a_chunks_first_token_is_counted_from_the_second_chunk_on(self):
        losses = text.measure(Words(), [list(range(12))], 4)
        self.assertEqual(losses.at_chunk_starts(4).tolist(), [4, 8])
        self.assertEqual(text.chunk_starts({4: losses, DENSE: losses}),
                         [{"chunk_size": 4, "nats": 6.0, "dense_twin_nats": 6.0}])

    def test_positions_cover_every_token_once(self):
        served = Words(context=100)
        pieces = [list(range(100)), list(range(50))]
        losses = {4: text.measure(served, pieces, 4)}
        rows = text.by_position(served, pieces, losses)
        self.assertEqual([row[:2] for row in rows], [(1, 32), (32, 64), (64, 100)])
        nats = [values[4] * numpy.log(2) * 2 * tokens
                for (_, _, values), tokens in zip(rows, (62, 32 + 18, 36))]
        self.assertAlmostEqual(sum(nats), sum(range(100)) + sum(range(50)))

    def test_a_text_must_be_text(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for content, complaint in ((b"", "holds no text"), (b"ab\xff", "no UTF-8 at byte 2")):
            (folder / "t").write_bytes(content)
            with self.assertRaisesRegex(EvaluationError, complaint):
                suite.read_text(folder / "t", 100)
        with self.assertRaisesRegex(EvaluationError, "TEXT=file"):
            suite.read_text(folder / "missing", 100)
        (folder / "t").write_text("a\u00e9")  # cut within a character
        self.assertEqual(suite.read_text(folder / "t", 2), "a")
        (folder / "t").write_bytes(b"ab\xffcdef")  # longer than what is read, it passed as text
        with self.assertRaisesRegex(EvaluationError, "no UTF-8 at byte 2"):
            suite.read_text(folder / "t", 5)

    def test_a_text_shorter_than_a_chunk_made_a_card_that_no_server_reads(self):
        short = text.measure(Words(), [[0, 5, 6]], 4)
        longer = text.measure(Words(), [list(range(12))], 4)
        self.assertEqual(text.chunk_starts({4: short, DENSE: short}), [])
        self.assertEqual([row["chunk_size"] for row in text.chunk_starts({4: longer, 16: longer})],
                         [4])


class Facts(unittest.TestCase):
    def test_the_fact_stands_at_its_distance_and_the_context_stays_full(self):
        served = Words(context=64)
        case = facts.cases(served, list(range(1000, 1200)), 1)[0]
        for distance in (0, 5, 16):
            tokens = case.tokens(distance)
            self.assertEqual(len(tokens), 64)
            end = len(tokens) - len(case.question) - len(case.answer) - distance
            self.assertEqual(tokens[end - len(case.fact):end], case.fact)
        self.assertEqual(len(case.tokens(None)), 64)
        self.assertNotIn(case.answer[0], case.tokens(None)[:-1])

    def test_only_distances_with_room_for_the_fact_are_asked(self):
        some = facts.cases(Words(context=64), list(range(1000, 1200)), 2)
        self.assertEqual(facts.fitting(some, (16, 40, 64)), [16, 40])

    def test_a_gain_is_what_the_fact_saves(self):
        served = Words(context=64)
        some = facts.cases(served, list(range(1000, 1200)), 3)
        self.assertEqual(facts.gains(served, some, [16], 4), {None: 63.0, 16: 0.0})

    def test_every_fact_has_an_answer_of_its_own(self):
        some = facts.cases(Words(context=64), list(range(1000, 1200)), len(facts.NAMES))
        self.assertEqual(len({tuple(case.answer) for case in some}), len(facts.NAMES))


class Recall(unittest.TestCase):
    def setUp(self):
        self.questions = recall.draw(16, 8, 256)

    def test_who_knows_every_value_is_right_and_who_guesses_zero_is_not(self):
        knows = Words(guess=lambda tokens, i, size: tokens[i])
        everything = recall.right(knows, self.questions, 8)
        self.assertEqual(recall.accuracy(everything, self.questions), 1.0)
        nothing = recall.right(Words(), self.questions, 8)
        self.assertEqual(recall.accuracy(nothing, self.questions), 0.0)
        self.assertEqual(knows.asked[0][1:], (8, 1))

    def test_distances_lead_from_a_question_back_to_its_pair(self):
        far = recall.distances(self.questions)
        for row, at in zip(*numpy.nonzero(self.questions.asked)):
            tokens = self.questions.tokens[row]
            back = at - far[row, at]
            self.assertLess(back, 32)
            self.assertEqual((tokens[back - 1], tokens[back]), (tokens[at - 1], tokens[at]))

    def test_who_sees_only_the_near_is_right_only_there(self):
        far = recall.distances(self.questions)
        hits = (far > 0) & (far < 32)
        rows = recall.by_distance(hits, self.questions)
        self.assertEqual({share for (begin, _), (share, _) in rows.items() if begin >= 32}, {0.0})
        self.assertEqual({share for (_, end), (share, _) in rows.items() if end <= 32}, {1.0})
        self.assertEqual(sum(count for _, count in rows.values()), 8 * 16)

    def test_seeds_are_fixed_and_not_those_of_training(self):
        again, other = recall.draw(16, 8, 256), recall.draw(16, 8, 256, bound.OTHER_SEED)
        self.assertTrue((again.tokens == self.questions.tokens).all())
        self.assertFalse((other.tokens == self.questions.tokens).all())

    def test_a_small_vocabulary_is_refused_with_the_remedy(self):
        with self.assertRaisesRegex(EvaluationError, "tokenizer"):
            recall.draw(16, 8, 128)


class Costs(unittest.TestCase):
    def test_ratios_are_of_one_round_each(self):
        cat = cost.Way(None, 8, rates=[100, 50, 20], waits=[1, 2, 4], computed=[3, 3, 9],
                       kv_bytes=100)
        twin = cost.Way(None, DENSE, rates=[50, 25, 40], waits=[2, 2, 2], computed=[1, 2, 3],
                        kv_bytes=400)
        row = cost.row(cat, twin, 10)
        self.assertEqual(row["tokens_per_second_to_twin"], {"median": 2, "low": 0.5, "high": 2})
        self.assertEqual(row["first_token_to_twin"], {"median": 1, "low": 0.5, "high": 2})
        self.assertEqual(row["processor_to_twin"], {"median": 3, "low": 1.5, "high": 3})
        self.assertEqual((row["kv_bytes_to_twin"], row["kv_bytes_per_token"]), (0.25, 10))
        self.assertNotIn("kv_bytes_to_twin", cost.row(twin, twin, 10))


class Bounds(unittest.TestCase):
    ON_CARD = {4: 0.08, 8: 0.02, 32: 0.0}

    def test_the_sizes_used_are_those_a_stream_began_and_went_on_with(self):
        def generate(prompt, **options):
            self.assertEqual(options["quality_loss_max"], 0.03)
            yield bound.catserve.Started("id", len(prompt), 0, prompt[0], 7)
            if prompt[0] == 8:
                yield bound.catserve.BudgetChanged(8, 32, 20)
        served = types.SimpleNamespace(info=types.SimpleNamespace(context_limit=64),
                                       client=types.SimpleNamespace(generate=generate))
        self.assertEqual(bound.sizes_used(served, [[4], [8]], 0.03, 1), ([4], 0))
        self.assertEqual(bound.sizes_used(served, [[4], [8]], 0.03, 5), ([4, 8, 32], 2))

    def test_a_bound_is_judged_by_the_worst_that_the_card_allows(self):
        row = bound.row(0.03, self.ON_CARD, {4: 0.09, 8: 0.04, 32: 0.0}, ([32], 0), ([32], 0))
        self.assertEqual(row["allowed"], [8, 32])
        self.assertEqual((row["worst_on_card"], row["worst_elsewhere"]), (0.02, 0.04))

    def test_a_size_that_was_used_without_leave_is_not_kept(self):
        elsewhere = dict.fromkeys(self.ON_CARD, 0.0)
        rows = [bound.row(0.03, self.ON_CARD, elsewhere, ([32], 0), (used, 3))
                for used in ([8, 32], [4])]
        task = {"name": "text", "measure": "m", "better": "lower", "values": []}
        shown = tables.kept({"tasks": [task], "bound": {"rows": rows}})
        self.assertEqual([line.split("|")[-2].strip() for line in shown[2:]], ["yes", "**no**"])


class Cards(unittest.TestCase):
    COLUMN = {"values": [{"chunk_size": 4, "value": 1.5}, {"chunk_size": 8, "value": 1.2}],
              "dense_twin": 1.3}

    def test_a_column_is_what_it_was_made_of(self):
        self.assertEqual(card.column({4: 1.5, 8: 1.2, DENSE: 1.3}), self.COLUMN)
        self.assertEqual(card.figures(self.COLUMN), {4: 1.5, 8: 1.2, DENSE: 1.3})

    def test_losses_are_fractions_of_the_best_and_leave_the_twin_out(self):
        lower = card.losses({4: 1.5, 8: 1.2, DENSE: 1.0}, "lower")
        self.assertEqual((lower[8], round(lower[4], 6)), (0, 0.25))
        higher = card.losses({4: 1.0, 8: 0.9}, "higher")
        self.assertEqual((higher[4], round(higher[8], 6)), (0, 0.1))

    def test_what_training_wrote_stays(self):
        old = {"unigram_nll": 6.7, "quality": [{"chunk_size": 4, "nll": 4.5, "heldout": None}],
               "dense_twin": {"path": "../twin"}}
        new = {"quality": [{"chunk_size": 4, "heldout": 1.6}], "dense_twin": {"parameters": 7}}
        self.assertEqual(card.merged(old, new), {
            "unigram_nll": 6.7, "quality": [{"chunk_size": 4, "nll": 4.5, "heldout": 1.6}],
            "dense_twin": {"path": "../twin", "parameters": 7}})

    def test_a_card_that_says_something_else_is_found(self):
        measured = {"tasks": [{"name": "text", **self.COLUMN}], "cost": {"rows": [1]}}
        self.assertEqual(card.differences(measured, measured), [])
        slower = {**measured, "cost": {"rows": [2]}}
        self.assertEqual(card.differences(slower, measured), [], "times are never compared")
        better = {"tasks": [{"name": "text", **card.column({4: 1.4, 8: 1.2, DENSE: 1.3})}]}
        self.assertEqual(card.differences(better, measured),
                         ["tasks[0].values[0].value: 1.4, 1.5"])
        self.assertEqual(card.differences({}, measured), ["tasks: 0 rows, 1 measured"])

    def test_pretty_json_says_the_same(self):
        value = {"a": [{"b": 1}] * 20, "c": {}, "d": "x" * 120, "e": [[1, 2], [3, [4] * 50]]}
        shown = card.pretty(value)
        self.assertEqual(json.loads(shown), value)
        self.assertIn('{"b": 1}', shown)

    def test_where_the_best_is_nothing_others_lose_all(self):
        self.assertEqual(card.losses({4: 0.0, 8: 0.0}, "higher"), {4: 0.0, 8: 0.0})
        self.assertEqual(card.losses({4: 0.0, 8: 0.1}, "lower"), {4: 0.0, 8: 1e6})

    def test_a_card_is_written_whole_or_stays_as_it_was(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        card.save(folder, {"name": "before"})
        with self.assertRaisesRegex(EvaluationError, "no finite number: is the text long enough"):
            card.save(folder, {"value": float("nan")})
        with unittest.mock.patch.object(pathlib.Path, "write_text",
                                        side_effect=OSError(28, "No space left on device")), \
                self.assertRaisesRegex(EvaluationError, "No space left on device.; it is as"):
            card.save(folder, {"name": "after"})
        self.assertEqual(card.load(folder), {"name": "before"})
        self.assertEqual([path.name for path in folder.iterdir()], ["card.json"])
        with unittest.mock.patch("os.access", return_value=False), \
                self.assertRaisesRegex(EvaluationError, "card.json cannot be written: copy"):
            card.check_writable(folder)
        card.check_writable(folder)

    def test_odd_cards_were_tracebacks(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for content, says in (({"dense_twin": []}, None), ({"dense_twin": [1]}, "dense_twin must"),
                              ({"dense_twin": {"path": 5}}, "its path a string"),
                              ({"quality": {"a": 1}}, "quality must be a list"),
                              ({"dense_twin": None, "quality": None}, None)):
            (folder / "card.json").write_text(json.dumps(content))
            if says:
                with self.assertRaisesRegex(EvaluationError, says):
                    card.load(folder)
            else:
                card.merged(card.load(folder), {"quality": [{"chunk_size": 4}], "dense_twin": {}})

    def test_a_broken_card_is_refused_with_its_name(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for content in ("{", "[]"):
            (folder / "card.json").write_text(content)
            with self.assertRaisesRegex(EvaluationError, "card.json.*mend"):
                card.load(folder)


if __name__ == "__main__":
    unittest.main()
