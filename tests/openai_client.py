"""The official OpenAI client against `tui serve`: models, chat, streams, usage, JSON schemas, and errors of the
right class.

    openai_client.py TUI        (needs the package `openai`; `make openai` sets that up)

Starts servers of its own in a folder that goes away. Exits 1 when something is not as it should be.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import openai

TOKEN = "a-token-for-the-openai-client-0123456789"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


class Server:
    """A server on a free port of loopback."""

    def __init__(self, tui, *flags, config=""):
        self.folder = tempfile.TemporaryDirectory()
        place = Path(self.folder.name)
        (place / "config").mkdir()
        (place / "config/config.toml").write_text(config)
        names = {"CONFIG": "config", "DATA": "data", "CACHE": "cache", "RUNTIME": "run"}
        env = {f"DUET_{name}_DIR": str(place / where) for name, where in names.items()}
        env |= {"HOME": str(place), "PATH": os.environ.get("PATH", ""), "DUET_SERVE_TOKEN": TOKEN}
        command = [tui, "serve", "--listen", "127.0.0.1:0", *flags]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"serving on (\S+)", line):
                self.url = found[1] + "/v1"
                return
        raise SystemExit("the server did not start")

    def client(self, key=TOKEN):
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.folder.cleanup()


def same(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, not {expected!r}")
    print(f"ok  {what}")


def raises(what, kind, work):
    try:
        work()
    except openai.OpenAIError as error:
        same(what, type(error), kind)
        return error
    raise SystemExit(f"{what}: no error, not {kind.__name__}")


def ask(client, **more):
    return client.chat.completions.create(**{"model": "builtin", "messages": QUESTION, "temperature": 0} | more)


def trusted(server):
    """Over TLS, trusting the certificate the server made and nothing else."""
    cert = Path(server.folder.name) / "data/serve/cert.pem"
    context = ssl.create_default_context(cafile=cert)
    client = openai.OpenAI(
        base_url=server.url, api_key=TOKEN, max_retries=0, http_client=openai.DefaultHttpxClient(verify=context)
    )
    same("chat over TLS", ask(client).choices[0].message.content, ANSWER)
    raises("a certificate nobody trusts", openai.APIConnectionError, lambda: ask(server.client()))


def usual(server):
    client = server.client()
    same("models", [model.id for model in client.models.list()], ["builtin"])
    same("one model", client.models.retrieve("builtin").id, "builtin")
    answer = ask(client)
    same("chat", answer.choices[0].message.content, ANSWER)
    same("finish", answer.choices[0].finish_reason, "stop")
    usage = answer.usage
    same("usage", usage.prompt_tokens > 0 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, True)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    same("stream", text, ANSWER)
    same("usage of a stream", chunks[-1].usage.completion_tokens, usage.completion_tokens)
    same("length", ask(client, max_tokens=2).choices[0].finish_reason, "length")
    early = ask(client, stream=True)
    next(iter(early))
    early.close()
    same("after a cancelled stream", ask(client).choices[0].message.content, ANSWER)


def errors(server):
    client = server.client()
    wrong = raises("wrong key", openai.AuthenticationError, lambda: ask(server.client("wrong")))
    same("which tells nothing", "builtin" in str(wrong) or "duet" in str(wrong).lower(), False)
    raises("wrong key, models", openai.AuthenticationError, lambda: server.client("wrong").models.list())
    raises("unknown model", openai.NotFoundError, lambda: ask(client, model="gpt-4o"))
    raises("unknown model, retrieved", openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"))
    raises("a path as a model", openai.NotFoundError, lambda: ask(client, model="/etc/passwd"))
    raises("unknown route", openai.NotFoundError, lambda: client.completions.create(model="builtin", prompt="x"))
    raises("no messages", openai.BadRequestError, lambda: ask(client, messages=[]))
    hot = raises("temperature", openai.BadRequestError, lambda: ask(client, temperature=1000))
    same("which names the field", "temperature" in hot.message, True)
    raises("too long", openai.BadRequestError, lambda: ask(client, messages=[{"role": "user", "content": "word " * 20000}]))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    refused = raises("schema where none is allowed", openai.BadRequestError, lambda: ask(client, response_format=schema))
    same("which says how", "--allow-grammar" in refused.message, True)
    large = [{"role": "user", "content": "x" * (9 << 20)}]
    error = raises("body too large", openai.APIStatusError, lambda: ask(client, messages=large))
    same("status", error.status_code, 413)


def schemas(server):
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    answer = ask(server.client(), response_format=schema, max_tokens=60)
    same("JSON schema", type(json.loads(answer.choices[0].message.content)["ok"]), bool)


def busy(server):
    client = server.client()
    endless = {"ignore_eos": True}
    running = ask(client, stream=True, max_tokens=100_000, extra_body=endless)
    next(iter(running))
    error = raises("full queue", openai.RateLimitError, lambda: ask(client))
    same("retry-after", error.response.headers.get("retry-after"), "2")
    running.close()


def main(tui):
    with Server(tui) as server:
        usual(server)
        errors(server)
    with Server(tui, "--tls") as server:
        trusted(server)
    with Server(tui, "--allow-grammar") as server:
        schemas(server)
    with Server(tui, config="[serve.limits]\nqueue = 0\n[engine]\nslots = 1\n") as server:
        busy(server)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
