"""A model that others can talk to: HTTP in the shapes of OpenAI's API, a page, pictures. A guest of the library.

question                                        file
What is served, and by whom is it worked?       studio.py worker.py
What may a request hold?                        fields.py asking.py
What does a completion, an answer look like?    completions.py chat.py shapes.py
When is a piece of text certain to be shown?    telling.py
What is refused, with which status?             refusals.py guard.py limits.py
How far are the runs, and what do they write?   runs.py following.py
How is it watched?                              meters.py
Which routes are there?  Who listens?           app.py server.py connection.py
What is loaded?                                 opening.py

Everything that touches the model runs on one thread, the worker's; everything that touches a socket on another.
The server library (starlette, uvicorn, prometheus_client) is the extra `serve`.
"""

from importlib.util import find_spec

from minigpt.errors import Error

NEEDED = ("starlette", "uvicorn", "prometheus_client")


def check_installed():
    """`Error` if the extra is not installed."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise Error(f"a server needs {', '.join(missing)}: pip install 'minigpt[serve]'")
