"""A verdict for people (a table and a sentence), for scripts (JSON) and for CI servers (JUnit)."""

import json
import math
from xml.etree import ElementTree

from lora.compare import Finding
from lora.verify import Verdict

FEW = ("elements", "changed", "not finite", "rounding")  # reasons for which single elements tell something
LINES = 30  # of the table, unless all are asked for


def table(verdict: Verdict, everything: bool = False) -> str:
    """One line a tensor, wrong ones first; untouched ones that are as they should be are only counted."""
    worst = "ulp" if verdict.policy == "exact" else "of bound"
    wrong = [found for found in verdict.findings if not found.ok]
    fine = [found for found in verdict.findings if found.ok and (everything or found.kind != "untouched")]
    rows = wrong + fine
    shown = rows if everything else rows[:LINES]
    width = max([len(found.name) for found in shown], default=0)
    lines = [f"{'tensor':<{width}}  {'dtype':<5} {'elements':>13}  {worst:>8}  verdict"] if shown else []
    for found in shown:
        numbers = f"{found.dtype:<5} {found.elements:>13,}  {_worst(found, verdict):>8}"
        lines.append(f"{found.name:<{width}}  {numbers}  {_said(found)}")
        lines += [
            f"{'':<{width}}    [{', '.join(map(str, place))}] is {_number(is_)}, expected {_number(should)}"
            for place, is_, should in found.off[: 4 if found.reason and found.reason.kind in FEW else 0]
        ]
    if len(rows) > len(shown):
        lines.append(f"... and {len(rows) - len(shown)} more (--all shows them)")
    same = sum(found.ok and found.kind == "untouched" for found in verdict.findings)
    if same and not everything:
        lines.append(f"{same} tensors the adapter does not touch are as in the base")
    return "\n".join(lines)


def _worst(found: Finding, verdict: Verdict) -> str:
    if found.kind != "adapted":
        return ""
    return f"{found.ulp:.3g}" if verdict.policy == "exact" else f"{found.share:.2g}"


def _said(found: Finding) -> str:
    if found.ok:
        return "ok" + (f" ({found.note})" if found.note else "")
    return f"WRONG: {found.reason.text}"


def sentence(verdict: Verdict) -> str:
    """The answer in one sentence, and its reasons."""
    adapted = [found for found in verdict.findings if found.kind == "adapted"]
    how = "correctly rounded" if verdict.policy == "exact" else "within the bound of an honest computation"
    if verdict.equal:
        return (
            f"EQUAL: merged is base + adapter: {len(adapted)} adapted tensors are {how}, the others as they should be."
        )
    return "NOT EQUAL: " + "; ".join(verdict.reasons) + "."


def as_json(verdict: Verdict) -> str:
    """Everything, with infinities and NaN as strings, which JSON does not know."""
    values = {
        "equal": verdict.equal,
        "policy": verdict.policy,
        "reasons": verdict.reasons,
        "notes": verdict.notes,
        "bytes": verdict.nbytes,
        "tensors": [_tensor(found) for found in verdict.findings],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _tensor(found: Finding) -> dict:
    return {
        "name": found.name,
        "kind": found.kind,
        "ok": found.ok,
        "dtype": found.dtype,
        "elements": found.elements,
        "wrong": found.wrong,
        "worst_ulp": _finite(found.ulp),
        "share_of_bound": _finite(found.share),
        "scale": _finite(found.scale),
        "reason": {"kind": found.reason.kind, "text": found.reason.text} if found.reason else None,
        "note": found.note,
        "first_wrong": [
            {"index": list(place), "found": _finite(is_), "expected": _finite(should)}
            for place, is_, should in found.off
        ],
    }


def _finite(value: float) -> float | str:
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _number(value: float) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def as_junit(verdict: Verdict) -> str:
    """One test case a tensor, and one for the answer."""
    failures = sum(not found.ok for found in verdict.findings)
    counts = {"tests": str(len(verdict.findings) + 1), "failures": str(failures + (not verdict.equal)), "errors": "0"}
    suite = ElementTree.Element("testsuite", name="lora verify", **counts)
    answer = ElementTree.SubElement(suite, "testcase", classname="lora.verify", name="merged is base + adapter")
    if not verdict.equal:
        ElementTree.SubElement(answer, "failure", message=sentence(verdict))
    for found in verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname=f"lora.verify.{found.kind}", name=found.name)
        if not found.ok:
            failure = ElementTree.SubElement(case, "failure", message=f"{found.name} {found.reason.text}")
            failure.text = "\n".join(f"{place}: is {is_}, expected {should}" for place, is_, should in found.off)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
