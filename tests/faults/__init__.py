"""Faults on purpose: damaged files, kills, full disks, hostile names; and what the code makes of them.

    python -m tests.faults        all of it; writes the table of docs/reliability.md

damage.py breaks files, subjects.py reads them as users do, fuzz.py judges what came of it. kills.py ends processes with
kill -9, disks.py fills the disk under a writer. tests/test_faults.py has a quick part of each.
"""
