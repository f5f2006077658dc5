"""Triton's own client, unchanged, against the real server: the example of docs/kserve.md too."""

import contextlib
import io
import queue
import re
import unittest
from importlib import metadata

import chart
import numpy as np
import tritonclient.grpc as triton
from catserved import MODEL as MODEL_DIRECTORY
from catserved import Server
from report import validated
from tritonclient.utils import InferenceServerException

MODEL = MODEL_DIRECTORY.name
PROMPT = "Once upon a time"
CLIENT = f"tritonclient {metadata.version('tritonclient')}"


def text_input(text):
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
    return tensor


def ids_input(ids):
    tensor = triton.InferInput("input_ids", [len(ids)], "INT32")
    tensor.set_data_from_numpy(np.array(ids, dtype=np.int32))
    return tensor


def text_of(result):
    return result.as_numpy("text_output")[0].decode()


def parameter(result, name):
    value = result.get_response().parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


class TritonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.enterClassContext(cls.server)
        cls.client = cls.enterClassContext(
            contextlib.closing(triton.InferenceServerClient(cls.server.address)))

    def test_the_example_of_the_page_prints_a_text(self):
        page = (chart.ROOT / "docs/kserve.md").read_text()
        example = re.search(r"```python\n(.*?)```", page, re.S)[1]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example.replace("127.0.0.1:8500", self.server.address), {})
        self.assertGreater(len(printed.getvalue()), 20)

    def test_it_finds_the_server_and_the_model(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready(MODEL))
        self.assertEqual(self.client.get_server_metadata().name, "catserve")
        metadata = self.client.get_model_metadata(MODEL)
        self.assertEqual([tensor.name for tensor in metadata.inputs], ["text_input", "input_ids"])
        config = self.client.get_model_config(MODEL, as_json=True)["config"]
        self.assertTrue(config["model_transaction_policy"]["decoupled"])
        self.assertIn("16", config["parameters"]["chunk_sizes"]["string_value"].split(","))
        validated("KServe v2: live, ready, metadata, config", CLIENT)

    def test_an_inference_brings_text_and_what_it_cost_at_each_chunk_size(self):
        peaks = {}
        for chunk_size in (4, 16):
            answer = self.client.infer(
                MODEL, [text_input(PROMPT)], request_id="7",
                parameters={"max_tokens": 200, "chunk_size": chunk_size, "temperature": 0.0,
                            "ignore_eos": True})
            self.assertEqual(answer.get_response().id, "7")
            self.assertEqual(len(answer.as_numpy("output_ids")), 200)
            self.assertTrue(text_of(answer))
            self.assertEqual(parameter(answer, "chunk_size"), chunk_size)
            self.assertEqual(parameter(answer, "finish_reason"), "length")
            peaks[chunk_size] = parameter(answer, "kv_bytes_peak")
            self.assertLess(peaks[chunk_size], parameter(answer, "kv_bytes_dense_twin"))
        self.assertLess(peaks[16], peaks[4])
        validated("KServe v2: ModelInfer", CLIENT)

    def test_a_stream_says_the_same_in_pieces(self):
        parameters = {"max_tokens": 40, "chunk_size": 8, "temperature": 0.0, "ignore_eos": True}
        whole = self.client.infer(MODEL, [text_input(PROMPT)], parameters=parameters)
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            self.client.async_stream_infer(MODEL, [text_input(PROMPT)], request_id="a",
                                           parameters=parameters,
                                           enable_empty_final_response=True)
            text, pieces = "", 0
            while True:
                result, error = answers.get(timeout=60)
                self.assertIsNone(error)
                self.assertEqual(result.get_response().id, "a")
                text += text_of(result)
                pieces += 1
                if parameter(result, "triton_final_response"):
                    break
        finally:
            self.client.stop_stream()
        self.assertEqual(text, text_of(whole))
        self.assertGreater(pieces, 1)
        validated("KServe v2: ModelStreamInfer", CLIENT)

    def test_ids_in_ids_out_and_only_what_was_asked_for(self):
        answer = self.client.infer(MODEL, [ids_input([5, 6, 7])],
                                   outputs=[triton.InferRequestedOutput("output_ids")],
                                   parameters={"max_tokens": 3, "ignore_eos": True})
        self.assertEqual(answer.as_numpy("output_ids").shape, (3,))
        self.assertIsNone(answer.as_numpy("text_output"))

    def test_errors_come_as_its_users_know_them(self):
        with self.assertRaises(InferenceServerException) as unknown:
            self.client.infer("gpt", [text_input(PROMPT)])
        self.assertEqual(unknown.exception.status(), "StatusCode.NOT_FOUND")
        self.assertIn("unknown model: 'gpt'", unknown.exception.message())
        with self.assertRaises(InferenceServerException) as wrong:
            self.client.infer(MODEL, [text_input(PROMPT)], parameters={"chunk_size": 5})
        self.assertEqual(wrong.exception.status(), "StatusCode.INVALID_ARGUMENT")
        self.assertIn("chunk_size", wrong.exception.message())

    def test_an_error_on_a_stream_leaves_the_others_alone(self):
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            for name, chunk_size in (("bad", 5), ("good", 8)):
                self.client.async_stream_infer(
                    MODEL, [text_input(PROMPT)], request_id=name,
                    parameters={"max_tokens": 4, "chunk_size": chunk_size, "ignore_eos": True})
            errors, ids, final = [], 0, False
            while not (errors and final):
                result, error = answers.get(timeout=60)
                if error is not None:
                    errors.append(error.message())
                    continue
                self.assertEqual(result.get_response().id, "good")
                ids += len(result.as_numpy("output_ids"))
                final = parameter(result, "triton_final_response")
        finally:
            self.client.stop_stream()
        self.assertEqual(ids, 4)
        self.assertEqual(len(errors), 1)
        self.assertIn("INVALID_ARGUMENT", errors[0])
