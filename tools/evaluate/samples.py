"""What the models write: the same held-out beginnings continued at every chunk size."""

PLACES = (0, 3)  # of the windows that the beginnings are taken from
PROMPT_TOKENS, TOKENS = 40, 60
SETTINGS = {"temperature": 0.7, "top_k": 40, "seed": 7}


def write(servers, pieces):
    """A row for each beginning: its text, and {chunk size: continuation}."""
    rows = []
    for place in PLACES[:len(pieces)]:
        prompt = pieces[place % len(pieces)][:PROMPT_TOKENS]
        found = {}
        for served in servers:
            for size in served.chunk_sizes:
                found[size] = served.client.complete(
                    prompt, max_tokens=TOKENS, ignore_eos=True, **served.budget(size),
                    **SETTINGS).text
        rows.append({"prompt": servers[0].client.detokenize(prompt),
                     "texts": [{"chunk_size": size, "text": text}
                               for size, text in found.items()]})
    return {"settings": SETTINGS, "rows": rows}
