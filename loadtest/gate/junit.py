"""The result as JUnit XML: a test case for each stage and criterion."""

from __future__ import annotations

from xml.etree import ElementTree

from understudy.loadtest.gate.result import Result, StageResult
from understudy.loadtest.gate.verdict import against


def to_xml(result: Result) -> str:
    """The result as an XML document."""
    root = ElementTree.Element("testsuites", {"name": "understudy gate"})
    suite = ElementTree.SubElement(root, "testsuite", {"name": result.plan})
    failures = errors = tests = 0
    for stage in result.stages:
        cases = [(stage.name, stage.verdict, "; ".join(stage.why))]
        if stage.verdict != "shown":
            cases += [
                (
                    f"{stage.name}: {one.name}",
                    one.verdict,
                    one.why or against(one),
                )
                for one in stage.criteria
            ]
        for name, verdict, why in cases:
            tests += 1
            case = ElementTree.SubElement(
                suite,
                "testcase",
                {"name": name, "classname": f"gate.{stage.kind}", "time": f"{stage.seconds:.3f}"},
            )
            if verdict == "failed":
                failures += 1
                ElementTree.SubElement(case, "failure", {"message": why})
            elif verdict in ("invalid", "not measured"):
                errors += 1
                ElementTree.SubElement(case, "error", {"message": why, "type": verdict})
        for attempt in stage.attempts:
            _output(suite, attempt)
    if result.why:
        tests += 1
        errors += 1
        case = ElementTree.SubElement(suite, "testcase", {"name": "the gate", "classname": "gate"})
        ElementTree.SubElement(case, "error", {"message": result.why, "type": result.verdict})
    for element in (root, suite):
        element.set("tests", str(tests))
        element.set("failures", str(failures))
        element.set("errors", str(errors))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _output(suite: ElementTree.Element, stage: StageResult) -> None:
    texts = list(stage.facts)
    if stage.outcome is not None:
        summary = stage.outcome.summary()
        latency = {k: v for k, v in summary["latency"].items() if v is not None}
        text = ", ".join(f"{name} {value * 1e3:.3f} ms" for name, value in latency.items())
        texts.insert(0, f"{summary['requests']} requests, {summary['failed']} failed; {text}")
    if stage.repeated:
        texts.append(f"the second attempt, with {stage.repeated}")
    if texts:
        out = ElementTree.SubElement(suite, "system-out")
        out.text = f"{stage.name}: {stage.verdict}: {'; '.join([*texts, *stage.why])}"
