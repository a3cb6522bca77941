"""Can the tests fail?  The core is broken on purpose, one small change at a time, and its tests are run.

    make mutants            all changes by meaning, and 40 drawn by lot from each area; N=200 for more
    python -m tests.mutants --areas loss,masks --draw 100

semantic.py   changes that mean something: GELU's other form, a window one too wide, the sum divided by micro-batches
by_lot.py     changes by lot: an operator, a constant, a condition, a statement of every line of the core files
areas.py      which files are the core, and which tests are theirs
running.py    a copy of the tree, a change, the tests, a verdict
equivalent.txt   changes that change nothing, each with its reason

A change that no test notices is a test that is missing, or a line that does nothing.
"""
