"""How fast, how large, how exact, beside others who do the same: `python -m bench` lists what there is.

harness.py measures (every peer a process of its own, all of them in turn), worker.py is that process, show.py makes
tables and pictures, peers.py builds the models of others. Every other file is one question, and what asks it.
"""
